"""Leaves out of the database, as fast as it sends them: COPY in binary, read as it arrives.

A row of COPY's binary format is the count of its fields, then each with its length before it. So of
the fixed part as the first field and the other columns after it, the leaf is the rest of the row
behind that first length, as it is: nothing has to be put together.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from infra.postgres import Connection
from infra.proof.leaves import FIXED_BYTES, FIXED_SQL, VARIABLE

_SIGNATURE: Final = b"PGCOPY\n\xff\r\n\x00" + bytes(8)  # no flags, no extension
_ROW: Final = struct.pack(">hi", 1 + len(VARIABLE), 1 + FIXED_BYTES)
_LEAF_AT: Final = len(_ROW)
_END: Final = b"\xff\xff"
_AT_ONCE: Final = 1024
_QUERY: Final = f"SELECT '\\x00'::bytea || {FIXED_SQL}, {', '.join(VARIABLE)} FROM events"

Take = Callable[[list[bytes]], None]
"""Is given leaves, each with 0x00 before it, so that its hash is the SHA-256 of what it is given.
In order of position, some at a time."""


def stream_leaves(connection: Connection, after: int, through: int | None, take: Take) -> None:
    """Gives the leaves of the events after one position and up to another, or to the end.

    Holds a thousand of them at a time. The connection's search path leads to the log, its
    ``client_encoding`` is UTF8. Raises what ``take`` and the driver raise.
    """
    upper = "" if through is None else f" AND position <= {int(through)}"
    query = f"{_QUERY} WHERE position > {int(after)}{upper} ORDER BY position"
    reader = _Reader(take)
    with connection.cursor() as cursor:
        cursor.copy_expert(f"COPY ({query}) TO STDOUT (FORMAT binary)", reader)
    reader.finish()


class _Reader:
    """The file that the driver writes to: a row at a time, as the server sends them (PostgreSQL's
    protocol, COPY Operations: one row per message)."""

    def __init__(self, take: Take) -> None:
        self._take = take
        self._leaves: list[bytes] = []
        self._begun = False
        self._ended = False

    def write(self, row: bytes) -> None:
        if row.startswith(_ROW):
            self._leaves.append(row[_LEAF_AT:])
            if len(self._leaves) == _AT_ONCE:
                self._give()
        elif not self._begun and row.startswith(_SIGNATURE):
            self._begun = True
            if rest := row[len(_SIGNATURE) :]:  # the server sends them together
                self.write(rest)
        elif row == _END:
            self._ended = True
        else:
            raise ValueError("not the server's binary format")

    def finish(self) -> None:
        """Raises ``ValueError`` if the server stopped before its end mark."""
        if not self._begun or not self._ended:
            raise ValueError("the server's answer ended before its end")
        self._give()

    def _give(self) -> None:
        leaves, self._leaves = self._leaves, []
        if leaves:
            self._take(leaves)
