"""Why Kafka is not reached, by how far a connection gets."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from infra.reachability import why_not_reached
from tests.unit.infra.certificates import Authority

Serve = Callable[[Callable[[socket.socket], object]], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """A server for one connection, which it leaves to the function given; its address."""
    threads: list[threading.Thread] = []

    def start(answer: Callable[[socket.socket], object]) -> str:
        listener = socket.create_server(("127.0.0.1", 0))

        def once() -> None:
            with listener, listener.accept()[0] as connection:
                answer(connection)

        threads.append(threading.Thread(target=once))
        threads[-1].start()
        return f"127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for thread in threads:
        thread.join()


def test_nobody_listens() -> None:
    assert why_not_reached("127.0.0.1:1", tls=False) == "127.0.0.1:1: refused"


def test_a_name_that_there_is_not() -> None:
    found = why_not_reached("no-such-host.invalid:9092", tls=False, seconds=30)
    assert found == "no-such-host.invalid:9092: no such host"


def test_it_is_reached(serve: Serve) -> None:
    assert "login or protocol" in why_not_reached(serve(lambda _: None), tls=False)


def test_a_certificate_that_is_not_trusted(serve: Serve, authority: Authority) -> None:
    found = why_not_reached(serve(handshake(authority)), tls=True)
    assert "certificate verify failed: self-signed certificate" in found


def test_a_certificate_that_is_trusted(serve: Serve, authority: Authority) -> None:
    address = serve(handshake(authority))
    found = why_not_reached(address, tls=True, ca_file=str(authority.certificate))
    assert "login or protocol" in found


def test_no_tls_where_it_is_asked_for(serve: Serve) -> None:
    def answer(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(b"what?")

    assert "no TLS there" in why_not_reached(serve(answer), tls=True)


def test_one_that_says_nothing(serve: Serve) -> None:
    """Until whoever asks has gone away."""

    def silent(connection: socket.socket) -> None:
        while connection.recv(4096):
            pass

    assert "timed out" in why_not_reached(serve(silent), tls=True, seconds=0.2)


def handshake(authority: Authority) -> Callable[[socket.socket], None]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.certificate, authority.key)

    def answer(connection: socket.socket) -> None:
        with suppress(OSError):  # it is told what the client thinks of the certificate
            context.wrap_socket(connection, server_side=True).close()

    return answer
