"""Tells readers that the log has grown: by NOTIFY between processes, by a call within one.

A ring may be lost or late; it only ever saves waiting. Readers poll as well.
"""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Callable
from typing import Any

import psycopg2
import structlog

log = structlog.get_logger(__name__)

_RECONNECT_DELAY = 1.0
_GATHER = 0.002
"""Seconds from what is heard to the ring, which is for all that was heard meanwhile: to be woken by
each of a thousand commits a second takes a fifth of the commits (measured with one writer), and
readers woken at once compete with the answers to those who committed."""


class Doorbell:
    """Counts rings. `connect` gives an autocommit connection to listen on; without it, only
    `ring` of this process is heard. `told` hears what else is said on the same channel, and an
    empty text where something may have been missed."""

    def __init__(
        self,
        connect: Callable[[], Any] | None = None,
        told: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._told = told
        self._rung = threading.Condition()
        self._rings = 0
        self._stopped = threading.Event()
        self._connect = connect
        self._thread: threading.Thread | None = None
        self._leave: socket.socket | None = None  # closing it ends the thread's waiting

    def start(self) -> None:
        """Listen in a thread of its own until `stop`."""
        if self._connect is not None and self._thread is None:
            self._leave, leaving = socket.socketpair()
            self._thread = threading.Thread(
                target=self._listen, args=(self._connect, leaving), name="doorbell", daemon=True
            )
            self._thread.start()

    def stop(self) -> None:
        """Wake every waiter for good."""
        self._stopped.set()
        if self._leave is not None:
            self._leave.close()
        self.ring()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    @property
    def rings(self) -> int:
        """How often it has rung: to be passed to `wait`, taken before looking at the log."""
        return self._rings

    def ring(self) -> None:
        """Wake all who wait."""
        with self._rung:
            self._rings += 1
            self._rung.notify_all()

    def wait(self, heard: int, timeout: float) -> bool:
        """Wait for a ring after the `heard`-th, at most `timeout` seconds; false if none came."""
        with self._rung:
            return self._rung.wait_for(
                lambda: self._rings != heard or self._stopped.is_set(), timeout
            )

    def _listen(self, connect: Callable[[], Any], leaving: socket.socket) -> None:
        with leaving:
            while not self._stopped.is_set():
                self._listen_once(connect, leaving)

    def _listen_once(self, connect: Callable[[], Any], leaving: socket.socket) -> None:
        connection = None
        try:
            connection = connect()
            with connection.cursor() as cursor:
                cursor.execute("SELECT 'crm_' || current_schema()")
                cursor.execute(f'LISTEN "{cursor.fetchone()[0]}"')
            self.ring()  # what was appended before we listened
            self._told("")
            self._hear(connection, leaving)
        except (psycopg2.Error, OSError) as error:
            log.warning("doorbell lost its connection", error=type(error).__name__)
            self._stopped.wait(_RECONNECT_DELAY)
        finally:
            if connection is not None:
                connection.close()

    def _hear(self, connection: Any, leaving: socket.socket) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(connection, selectors.EVENT_READ)
            selector.register(leaving, selectors.EVENT_READ)
            while not self._stopped.is_set():
                selector.select()
                self._stopped.wait(_GATHER)
                connection.poll()
                if connection.notifies:
                    said = [notify.payload for notify in connection.notifies if notify.payload]
                    connection.notifies.clear()
                    for word in said:
                        self._told(word)
                    self.ring()
