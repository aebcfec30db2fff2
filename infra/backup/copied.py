"""PostgreSQL's binary COPY, taken apart; events are checked and hashed as they go by.

Columns of events stand in the order in which a leaf of the log's Merkle tree has them
(`infra.proof.leaves`), so that a leaf is the bytes of its row, without the lengths of the first
nine fields.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, NamedTuple

from infra.proof.leaves import COLUMNS, LAYOUT
from infra.proof.tree import leaf_hash

FIXED: Final = 132
"""Bytes of a row up to the end of its ninth field."""

_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END: Final = -1
_COUNT: Final = struct.Struct(">h")
_LENGTH: Final = struct.Struct(">i")
_ROW: Final = struct.Struct(">hiqi16siiihi16siqiqi16si16s")
_LENGTHS: Final = (15, 8, 16, 4, 2, 16, 8, 8, 16, 16)
_PIECE: Final = 262_144
_LAYOUT: Final = bytes([LAYOUT])


class Malformed(Exception):
    """These bytes are no COPY of what they should be; the message says how."""


class Rows:
    """Takes a binary COPY piece by piece and counts its rows. Memory: a piece and a row."""

    def __init__(self, seen: Callable[[bytes, int, int], None] | None = None) -> None:
        """`seen` hears of each row: a buffer, and from where to where the row lies in it."""
        self.rows = 0
        self._seen = seen
        self._begun = self._ended = False
        self._pieces: list[bytes] = []
        self._size = 0

    def write(self, piece: bytes) -> int:
        """Raises Malformed, and what `seen` raises."""
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size >= _PIECE:
            self._take()
        return len(piece)

    def close(self) -> None:
        """Raises Malformed unless the COPY was whole, and nothing came after it."""
        self._take()
        if not self._ended or self._size:
            raise Malformed("it does not end as a COPY does")

    def _take(self) -> None:
        buffer = b"".join(self._pieces)
        at = 0
        if not self._begun:
            if len(buffer) < len(_HEADER):
                return
            if not buffer.startswith(_HEADER):
                raise Malformed("it does not begin as a COPY does")
            self._begun, at = True, len(_HEADER)
        while not self._ended:
            end = self._row(buffer, at)
            if end is None:
                break
            at = end
        if self._ended and at < len(buffer):
            raise Malformed("something follows the end of the COPY")
        self._pieces = [buffer[at:]]
        self._size = len(buffer) - at

    def _row(self, buffer: bytes, at: int) -> int | None:
        """Where the row that begins at `at` ends; None if it's not all there."""
        if len(buffer) < at + 2:
            return None
        count = _COUNT.unpack_from(buffer, at)[0]
        if count == _END:
            self._ended = True
            return at + 2
        end = _end(buffer, at + 2, count)
        if end is not None:
            self._count(buffer, at, end)
        return end

    def _count(self, buffer: bytes, at: int, end: int) -> None:
        self.rows += 1
        if self._seen is not None:
            self._seen(buffer, at, end)


class EventRows(Rows):
    """The same of log.events: positions are to follow each other, times of recording not to fall.

    Without a gap from `first` on, in the columns of COLUMNS.
    """

    def __init__(
        self,
        first: int,
        hashed: Callable[[bytes], None],
        seen: Callable[[bytes, int, int], None] | None = None,
    ) -> None:
        """`hashed` hears the hash of each leaf."""
        super().__init__(seen)
        self._next = first
        self._recorded = -(2**63)
        self._hashed = hashed

    def _row(self, buffer: bytes, at: int) -> int | None:
        if len(buffer) < at + 2:
            return None
        if _COUNT.unpack_from(buffer, at)[0] != len(COLUMNS):
            return super()._row(buffer, at)
        end = _end(buffer, at + FIXED, len(COLUMNS) - 9)
        if end is not None:
            self._count(buffer, at, end)
        return end

    def _count(self, buffer: bytes, at: int, end: int) -> None:
        if end - at < FIXED:
            raise Malformed("rows of another table")
        row = fixed(buffer, at)
        if row.position != self._next:
            raise Malformed(f"position {row.position:,} stands where {self._next:,} should")
        if row.recorded_at < self._recorded:
            raise Malformed(f"position {row.position:,} was recorded before the one before it")
        self._next += 1
        self._recorded = row.recorded_at
        self._hashed(leaf_hash(leaf(buffer, at, end)))
        super()._count(buffer, at, end)


class Fixed(NamedTuple):
    """The fields of a row that are never NULL and of one size; times in µs since 2000 UTC."""

    position: int
    stream_id: bytes
    version: int
    class_version: int
    partition_key: bytes
    occurred_at: int
    recorded_at: int
    command_id: bytes
    correlation_id: bytes


def fixed(buffer: bytes, at: int) -> Fixed:
    """Raises Malformed for a row that has other fields."""
    found = _ROW.unpack_from(buffer, at)
    if (found[0], *found[1::2]) != _LENGTHS:
        raise Malformed("rows of another table")
    return Fixed._make(found[2::2])


def variable(buffer: bytes, at: int) -> list[bytes | None]:
    """The fields of the row that begins at `at` that follow the fixed ones."""
    at += FIXED
    found: list[bytes | None] = []
    for _ in COLUMNS[9:]:
        size = _LENGTH.unpack_from(buffer, at)[0]
        at += 4
        found.append(None if size < 0 else buffer[at : at + size])
        at += max(size, 0)
    return found


def leaf(buffer: bytes, at: int, end: int) -> bytes:
    """The leaf of the row that lies from `at` to `end`."""
    return b"".join(
        (
            _LAYOUT,
            buffer[at + 6 : at + 14],
            buffer[at + 18 : at + 34],
            buffer[at + 38 : at + 42],
            buffer[at + 46 : at + 48],
            buffer[at + 52 : at + 68],
            buffer[at + 72 : at + 80],
            buffer[at + 84 : at + 92],
            buffer[at + 96 : at + 112],
            buffer[at + 116 : end],
        )
    )


def _end(buffer: bytes, at: int, fields: int) -> int | None:
    for _ in range(fields):
        if len(buffer) < at + 4:
            return None
        size = _LENGTH.unpack_from(buffer, at)[0]
        at += 4
        if size > 0:
            at += size
        elif size < -1:
            raise Malformed("a field of less than nothing")
    return at if at <= len(buffer) else None
