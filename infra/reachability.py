"""Why Kafka is not reached: its client only says that it is not."""

from __future__ import annotations

import socket
import ssl
import threading

PROBE_SECONDS = 2.0


def why_not_reached(
    address: str, *, tls: bool, ca_file: str | None = None, seconds: float = PROBE_SECONDS
) -> str:
    """One line on how far a connection to `address` (host:port) gets, in at most `seconds`.

    `tls`: whether certificates are to be shown; `ca_file` holds those to trust, without it the
    system's are. Nothing is sent but what TLS begins with.
    """
    found = ["timed out"]  # also for a resolver that takes longer, which nothing can interrupt

    def probe() -> None:
        found[0] = _probed(address, tls, ca_file, seconds)

    thread = threading.Thread(target=probe, name="kafka-probe", daemon=True)
    thread.start()
    thread.join(seconds)
    return f"{address}: {found[0]}"


def _probed(address: str, tls: bool, ca_file: str | None, seconds: float) -> str:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        with socket.create_connection((host, int(port)), timeout=seconds) as connection:
            if tls:
                context = ssl.create_default_context(cafile=ca_file)
                context.wrap_socket(connection, server_hostname=host).close()
    except ssl.SSLCertVerificationError as error:
        return f"certificate verify failed: {error.verify_message}"
    except ssl.SSLError as error:
        return f"no TLS there: {error.reason or 'the connection was closed'}"
    except socket.gaierror:
        return "no such host"
    except ConnectionRefusedError:
        return "refused"
    except TimeoutError:
        return "timed out"
    except OSError as error:
        return error.strerror or type(error).__name__
    return "reached, but it did not let us in: login or protocol wrong?"
