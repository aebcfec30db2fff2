"""A way to the server that can be cut at a chosen moment."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from enum import Enum
from selectors import EVENT_READ, DefaultSelector

from psycopg2.extensions import make_dsn, parse_dsn

_READY = b"Z\x00\x00\x00\x05"  # what ends a server's reply


class Lost(Enum):
    REQUEST = "the request is lost"
    REPLY = "the reply is lost"


class Proxy:
    """Passes on what client and server say to each other, each connection in its own thread."""

    def __init__(self, url: str) -> None:
        given = parse_dsn(url)
        host, port = given.get("host", "localhost"), int(given.get("port", 5432))
        unix = host.startswith("/")
        self._family = socket.AF_UNIX if unix else socket.AF_INET
        self._upstream = f"{host}/.s.PGSQL.{port}" if unix else (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        own_port = self._listener.getsockname()[1]
        self.url = make_dsn(
            url, host="127.0.0.1", port=own_port, sslmode="disable", gssencmode="disable"
        )
        self.refuses = False
        self.cut = threading.Event()
        self._armed: tuple[Lost, bytes] | None = None
        self._threads = [threading.Thread(target=self._accept)]
        self._open: set[socket.socket] = set()
        self._threads[0].start()

    def lose(self, lost: Lost, at: bytes) -> None:
        """Cuts the connection on which a request with `at` in it comes by next, once.

        Either before the server has it, or when the server has carried it out.
        """
        self.cut.clear()
        self._armed = (lost, at)

    def close(self) -> None:
        for each in [self._listener, *self._open]:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.refuses:
                client.close()
                continue
            server = socket.socket(self._family, socket.SOCK_STREAM)
            server.connect(self._upstream)
            self._open |= {client, server}
            thread = threading.Thread(target=self._pass_on, args=(client, server))
            self._threads.append(thread)
            thread.start()

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        losing_reply = False
        with client, server, DefaultSelector() as selector, suppress(OSError):
            selector.register(client, EVENT_READ, server)
            selector.register(server, EVENT_READ, client)
            while True:
                for key, _ in selector.select():
                    source, sink = key.fileobj, key.data
                    assert isinstance(source, socket.socket)
                    said = source.recv(1 << 20)
                    if not said:
                        return
                    if source is client and self._armed and self._armed[1] in said:
                        losing_reply = self._armed[0] is Lost.REPLY
                        self._armed = None
                        if not losing_reply:
                            self._cut_off(client, server)
                            return
                    if source is client or not losing_reply:
                        sink.sendall(said)
                    elif said[-6:-1] == _READY:
                        self._cut_off(client, server)
                        return

    def _cut_off(self, client: socket.socket, server: socket.socket) -> None:
        client.close()
        server.close()
        self.cut.set()
