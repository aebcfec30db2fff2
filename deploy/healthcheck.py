"""Exit code 0 if the process in this container answers: the API, or a worker by its metrics."""

from __future__ import annotations

import http.client
import os
import sys

TIMEOUT = 4.0
"""Seconds."""


def main() -> int:
    port, path = os.environ.get("CRM_METRICS_PORT"), "/metrics"
    if not port:
        port, path = os.environ.get("CRM_PORT") or "8000", "/health/live"
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=TIMEOUT)
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
    except OSError as error:
        sys.stderr.write(f"{path} on port {port}: {error}\n")
        return 1
    finally:
        connection.close()
    if status != 200:
        sys.stderr.write(f"{path} on port {port}: status {status}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
