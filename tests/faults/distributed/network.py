"""The way to Kafka, which can be blocked, and on which connections can break at any moment."""

from __future__ import annotations

import random
import socket
import threading
from contextlib import suppress

_PORTS = range(15_000, 20_000, 2)
"""Below those that the system gives to clients: one of these that tries to reach a port where
nobody listens can come to be connected to itself."""


def free_port() -> int:
    """With the one after it, which a broker takes too."""
    for port in random.sample(_PORTS, len(_PORTS)):
        with (
            suppress(OSError),
            socket.create_server(("127.0.0.1", port)),
            socket.create_server(("127.0.0.1", port + 1)),
        ):
            return port
    raise OSError(f"no port is free from {_PORTS.start} to {_PORTS.stop}")


class Way:
    """Passes on what clients and a server on this machine say to each other."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", free_port()))
        self.port: int = self._listener.getsockname()[1]
        self.upstream = 0
        """The server's port."""
        self._passable = threading.Event()
        self._passable.set()
        self._closed = False
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def block(self) -> None:
        """Nothing gets through any more, either way, and nobody is told."""
        self._passable.clear()

    def unblock(self) -> None:
        """What was held up arrives now."""
        self._passable.set()

    def cut(self) -> None:
        """All connections break, with what is under way on them."""
        with self._lock:
            for each in self._open:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._closed = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.unblock()
        self.cut()
        self._thread.join()

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.socket() as server:
            self._passable.wait()
            try:
                server.connect(("127.0.0.1", self.upstream))
            except OSError:
                return
            both = {client, server}
            with self._lock:
                self._open |= both
            back = threading.Thread(target=self._pass_on, args=(server, client), daemon=True)
            back.start()
            self._pass_on(client, server)
            back.join()
            with self._lock:
                self._open -= both

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while said := source.recv(1 << 16):
                self._passable.wait()
                sink.sendall(said)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
