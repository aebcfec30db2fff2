"""Who was erased, outside the database: a file that a restored backup does not take back.

One line of JSON for each erasure, only ever added: ids, a time and an actor, no personal text. Two
requests for the same one at the same moment may add it twice.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal
from uuid import UUID

import structlog

from infra.durable import settle

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """An erasure as both the file and the vault have it."""

    subject: UUID
    customer_id: UUID
    kind: Literal["contact", "customer"]
    erased_at: datetime
    actor: str


class ErasureFile:
    """Any number of processes may add to it at once."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, entries: Iterable[Entry]) -> None:
        """Adds lines and waits until they are on disk. Raises `OSError`."""
        self._add("".join(_line(entry) for entry in entries).encode())

    def take_over(self, source: Path) -> int:
        """Adds the lines of another such file that this one lacks; how many. Raises `OSError`.

        What is here stays, in its order: an older file brings nobody back.
        """
        known = set(self.path.read_bytes().splitlines()) if self.path.exists() else set()
        lacking = [line for line in source.read_bytes().splitlines() if line not in known]
        self._add(b"".join(line + b"\n" for line in lacking))
        return len(lacking)

    def _add(self, lines: bytes) -> None:
        if not lines:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = not self.path.exists()
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                lines = b"\n" + lines  # ends the line that a crash left half
            while lines:
                lines = lines[os.write(descriptor, lines) :]
            os.fsync(descriptor)
        if new:
            settle(self.path.parent)

    def entries(self) -> Iterator[Entry]:
        """All of them, in the order in which they were added. A line that is none, such as one
        that a crash left half, is told of and passed over. Raises `OSError`."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    yield _entry(line)
                except (ValueError, KeyError, TypeError):
                    log.warning("a line of the file of erasures cannot be read", line=number)


def _line(entry: Entry) -> str:
    return (
        json.dumps(
            {
                "subject": str(entry.subject),
                "customer_id": str(entry.customer_id),
                "kind": entry.kind,
                "erased_at": entry.erased_at.isoformat(),
                "actor": entry.actor,
            }
        )
        + "\n"
    )


def _entry(line: bytes) -> Entry:
    given = json.loads(line)
    if given["kind"] not in ("contact", "customer"):
        raise ValueError("neither a contact nor a customer")
    at = datetime.fromisoformat(given["erased_at"])
    if at.tzinfo is None:
        raise ValueError("a time without an offset")
    return Entry(
        UUID(given["subject"]), UUID(given["customer_id"]), given["kind"], at, str(given["actor"])
    )
