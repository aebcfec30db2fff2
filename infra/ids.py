"""Ids: new ones, drawn without giving up the interpreter for each, and those of events."""

from __future__ import annotations

import hashlib
import os
from uuid import UUID

_AT_ONCE = 256
_VERSION_4, _VARIANT = 0x4000 << 64, 0x8000 << 48
_KEPT = ~((0xF000 << 64) | (0xC000 << 48))

_drawn: list[bytes] = []
os.register_at_fork(after_in_child=_drawn.clear)


def new_id() -> UUID:
    """A UUID of version 4, from any thread.

    Like `uuid.uuid4`, from the system's source, but asked for many at a time: each request to the
    system releases the interpreter lock, which among busy threads costs more than a whole command.
    """
    try:
        bits = int.from_bytes(_drawn.pop(), "big")
    except IndexError:
        source = os.urandom(16 * _AT_ONCE)
        _drawn.extend(source[start : start + 16] for start in range(16, len(source), 16))
        bits = int.from_bytes(source[:16], "big")
    return UUID(int=bits & _KEPT | _VERSION_4 | _VARIANT)


def event_id(stream_id: UUID | str, version: int) -> UUID:
    """Id of an event: that of the log's outbox. Always the same for a stream and version."""
    name = f"{stream_id}:{version}".encode()
    return UUID(bytes=hashlib.md5(name, usedforsecurity=False).digest())
