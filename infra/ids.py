"""Ids: new ones, drawn without giving up the interpreter for each, and those of events."""

from __future__ import annotations

import hashlib
import os
import time
from uuid import UUID

_AT_ONCE = 256
_VERSION_7, _VARIANT = 7 << 76, 2 << 62
_RANDOM = (0x0FFF << 64) | (2**62 - 1)

_drawn: list[bytes] = []
os.register_at_fork(after_in_child=_drawn.clear)


def new_id() -> UUID:
    """A UUID of version 7 (RFC 9562, section 5.7), from any thread: the time to the millisecond,
    then 74 random bits.

    What is made about the same time lies together in indexes: however long the log, new ids go to
    a few pages. Randomness is asked of the system for many at a time: each request releases the
    interpreter lock, which among busy threads costs more than a whole command.
    """
    try:
        bits = int.from_bytes(_drawn.pop(), "big")
    except IndexError:
        source = os.urandom(16 * _AT_ONCE)
        _drawn.extend(source[start : start + 16] for start in range(16, len(source), 16))
        bits = int.from_bytes(source[:16], "big")
    milliseconds = time.time_ns() // 1_000_000
    return UUID(int=milliseconds << 80 | bits & _RANDOM | _VERSION_7 | _VARIANT)


def event_id(stream_id: UUID | str, version: int) -> UUID:
    """Id of an event: that of the log's outbox. Always the same for a stream and version."""
    name = f"{stream_id}:{version}".encode()
    return UUID(bytes=hashlib.md5(name, usedforsecurity=False).digest())
