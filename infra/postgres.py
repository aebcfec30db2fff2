"""Connections to PostgreSQL, one by one and from a bounded pool."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TypeAlias
from uuid import UUID, SafeUUID

import orjson
import psycopg2
import psycopg2.extensions
from psycopg2.extras import register_default_jsonb, register_uuid

Connection: TypeAlias = psycopg2.extensions.connection

CONNECT_TIMEOUT = 10
"""Seconds to wait for a server that does not answer."""

UNANSWERED_MS = 20_000
"""Milliseconds after which a connection is lost on which nothing that was sent gets through."""


def _uuid(text: str | bytes | None, _: psycopg2.extensions.cursor) -> UUID | None:
    """The server's text for a UUID, which needs none of the constructor's checks."""
    if text is None:
        return None
    value: UUID = object.__new__(UUID)
    object.__setattr__(value, "int", int(str(text).replace("-", ""), 16))
    object.__setattr__(value, "is_safe", SafeUUID.unknown)
    return value


_QUICK_UUID = psycopg2.extensions.new_type((2950,), "UUID", _uuid)


class PoolTimeout(psycopg2.OperationalError):
    """No connection became free in time."""


class PoolClosed(psycopg2.OperationalError):
    """The pool was closed."""


def quote(name: str) -> str:
    """``name`` as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def connect(
    url: str,
    *,
    role: str | None = None,
    search_path: Sequence[str] | None = None,
    application_name: str = "crm",
    autocommit: bool = False,
    settings: Mapping[str, str] | None = None,
    asynchronous: bool = False,
) -> Connection:
    """A session in UTC that understands UUIDs.

    ``role`` is what the session acts as (the login of ``url`` must be a member of it),
    ``search_path`` the schemas that unqualified names are looked up in, ``settings`` further
    parameters of the server for this session, as ``{"lock_timeout": "5s"}``.
    ``asynchronous`` ones are not connected yet: ``poll`` says when, and they commit each statement.
    Raises ``psycopg2.OperationalError``.
    """
    parameters: dict[str, str] = {"TimeZone": "UTC", **(settings or {})}
    if role is not None:
        parameters["role"] = role
    if search_path is not None:
        parameters["search_path"] = ", ".join(quote(schema) for schema in search_path)
    options = " ".join(f"-c {name}={_escaped(value)}" for name, value in parameters.items())
    given = psycopg2.extensions.parse_dsn(url)
    defaults: dict[str, str | int] = {
        "connect_timeout": CONNECT_TIMEOUT,
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        "tcp_user_timeout": UNANSWERED_MS,
        "client_encoding": "UTF8",
    }
    connection: Connection = psycopg2.connect(
        **{
            **defaults,
            **given,
            "application_name": application_name,
            "options": f"{given.get('options', '')} {options}".strip(),
            "async_": asynchronous,
        }
    )
    if not asynchronous:
        connection.autocommit = autocommit
    register_uuid(conn_or_curs=connection)  # type: ignore[no-untyped-call]
    psycopg2.extensions.register_type(_QUICK_UUID, connection)
    # jsonb writes a large float as an integer of many digits; orjson reads that as the float again.
    register_default_jsonb(conn_or_curs=connection, loads=orjson.loads)
    return connection


def _escaped(value: str) -> str:
    return re.sub(r"([\\\s])", r"\\\1", value)


class Pool:
    """At most ``size`` connections, made when needed, shared by any number of threads.

    A connection that broke is dropped. After one broke, those that lay idle meanwhile are tried
    before they are handed out, so a restart of the server costs each user one error at most.
    """

    def __init__(
        self,
        url: str,
        *,
        size: int = 10,
        role: str | None = None,
        search_path: Sequence[str] | None = None,
        application_name: str = "crm",
        autocommit: bool = False,
        settings: Mapping[str, str] | None = None,
        timeout: float = 10.0,
    ) -> None:
        """``timeout`` is how many seconds ``connection()`` waits for one to become free."""
        if size < 1:
            raise ValueError("a pool holds at least one connection")
        self._url = url
        self._size = size
        self._role = role
        self._search_path = search_path
        self._application_name = application_name
        self._autocommit = autocommit
        self._settings = settings
        self._timeout = timeout
        self._changed = threading.Condition()
        self._idle: list[tuple[Connection, int]] = []  # with the number of breaks seen by then
        self._breaks = 0
        self._count = 0
        self._closed = False

    @contextmanager
    def connection(self, timeout: float | None = None) -> Iterator[Connection]:
        """A connection of one's own for a while: committed at the end, rolled back on an error.

        Raises ``PoolTimeout``, ``PoolClosed`` and whatever connecting raises; where the connection
        breaks meanwhile, ``OperationalError`` or ``InterfaceError``.
        """
        connection = self._take(self._timeout if timeout is None else timeout)
        try:
            yield connection
            if not self._autocommit:
                connection.commit()
        except BaseException as error:
            with suppress(psycopg2.Error):
                connection.rollback()
            if type(error) is psycopg2.DatabaseError and error.pgcode is None:
                # not from the server: what the driver at times calls a connection that broke
                raise psycopg2.OperationalError(str(error)) from error
            raise
        finally:
            self._give_back(connection)

    def close(self) -> None:
        """Closes the idle connections now, the others when they come back."""
        with self._changed:
            self._closed = True
            idle, self._idle = self._idle, []
            self._count -= len(idle)
            self._changed.notify_all()
        for connection, _ in idle:
            _close(connection)

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take(self, timeout: float) -> Connection:
        deadline = time.monotonic() + timeout
        while True:
            idle = None
            with self._changed:
                while not self._idle and self._count >= self._size and not self._closed:
                    left = deadline - time.monotonic()
                    if left <= 0 or not self._changed.wait(left):
                        raise PoolTimeout(
                            f"none of {self._size} connections became free in {timeout:g} s"
                        )
                if self._closed:
                    raise PoolClosed("the pool is closed")
                if self._idle:
                    idle = self._idle.pop()
                else:
                    self._count += 1
            if idle is None:
                return self._connect()
            connection, breaks = idle
            if breaks == self._breaks or _alive(connection):
                return connection
            self._forget(connection)

    def _connect(self) -> Connection:
        try:
            return connect(
                self._url,
                role=self._role,
                search_path=self._search_path,
                application_name=self._application_name,
                autocommit=self._autocommit,
                settings=self._settings,
            )
        except BaseException:
            with self._changed:
                self._count -= 1
                self._breaks += 1
                self._changed.notify()
            raise

    def _give_back(self, connection: Connection) -> None:
        healthy = _at_rest(connection)
        with self._changed:
            if healthy and not self._closed:
                self._idle.append((connection, self._breaks))
                self._changed.notify()
                return
            if not healthy:
                self._breaks += 1
        self._forget(connection)

    def _forget(self, connection: Connection) -> None:
        with self._changed:
            self._count -= 1
            self._changed.notify()
        _close(connection)


def _at_rest(connection: Connection) -> bool:
    return (
        not connection.closed
        and connection.info.transaction_status == psycopg2.extensions.TRANSACTION_STATUS_IDLE
    )


def _alive(connection: Connection) -> bool:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        connection.rollback()
    except psycopg2.Error:
        return False
    return True


def _close(connection: Connection) -> None:
    with suppress(psycopg2.Error):
        connection.close()
