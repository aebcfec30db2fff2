"""Leaves out of the database, as fast as it sends them: COPY in binary, read as it arrives."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from infra.postgres import Connection
from infra.proof.leaves import LEAF_SQL

_SIGNATURE: Final = b"PGCOPY\n\xff\r\n\x00"
_HEADER: Final = len(_SIGNATURE) + 8
_LEAF_AT: Final = 6  # a row: int16 count of fields, int32 length, the leaf
_LENGTH: Final = struct.Struct(">hi")
_END: Final = b"\xff\xff"
_AT_ONCE: Final = 1024

Take = Callable[[list[bytes]], None]
"""Is given leaves, each with 0x00 before it, so that its hash is the SHA-256 of what it is given.
In order of position, some at a time."""


def stream_leaves(connection: Connection, after: int, through: int | None, take: Take) -> None:
    """Gives the leaves of the events after one position and up to another, or to the end.

    Holds a thousand of them at a time. The connection's search path leads to the log. Raises
    what ``take`` and the driver raise.
    """
    upper = "" if through is None else f" AND position <= {int(through)}"
    query = (
        f"SELECT '\\x00'::bytea || {LEAF_SQL} FROM events"
        f" WHERE position > {int(after)}{upper} ORDER BY position"
    )
    reader = _Reader(take)
    with connection.cursor() as cursor:
        cursor.copy_expert(f"COPY ({query}) TO STDOUT (FORMAT binary)", reader)
    reader.finish()


class _Reader:
    """The file that the driver writes to, a row at a time."""

    def __init__(self, take: Take) -> None:
        self._take = take
        self._chunks: list[bytes] = []
        self._rest = b""
        self._begun = False

    def write(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        if len(self._chunks) == _AT_ONCE:
            self._read()

    def finish(self) -> None:
        """Raises ``ValueError`` if the server stopped before its end mark."""
        self._read()
        if self._rest != _END:
            raise ValueError("the server's answer ended before its end")

    def _read(self) -> None:
        data = b"".join((self._rest, *self._chunks))
        self._chunks.clear()
        at = 0
        if not self._begun:
            if len(data) < _HEADER:
                self._rest = data
                return
            if not data.startswith(_SIGNATURE):
                raise ValueError("not the server's binary format")
            self._begun = True
            at = _HEADER
        end = len(data)
        leaves = []
        unpack = _LENGTH.unpack_from
        while at + _LEAF_AT <= end:
            _, length = unpack(data, at)
            following = at + _LEAF_AT + length
            if following > end:
                break
            leaves.append(data[at + _LEAF_AT : following])
            at = following
        self._rest = data[at:]
        if leaves:
            self._take(leaves)
