"""Where the events come from that are verified: the database, or a file they were exported to."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson

from infra.postgres import Connection
from infra.proof.leaves import leaf, row_of_json
from infra.proof.streaming import Take, stream_leaves

_AT_ONCE = 1024
_LONGEST_LINE = 64_000_000


class UnreadableExport(ValueError):
    """The file is not an export of the log; the message says what and where."""


class DatabaseSource:
    """The log itself, over a connection whose search path leads to it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def stream(self, take: Take) -> None:
        """All events by position."""
        stream_leaves(self._connection, 0, None, take)

    def some(self, first: int, count: int) -> list[bytes]:
        """The events at so many positions from one on."""
        found: list[bytes] = []
        stream_leaves(self._connection, first - 1, first + count - 1, found.extend)
        return found


class ExportSource:
    """A file: NDJSON as `json_of_row` writes it, or Parquet (`.parquet`) with the same columns.

    Methods raise `UnreadableExport` and `OSError`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def stream(self, take: Take) -> None:
        """All events in the order of the file."""
        leaves = []
        for _, one in self._leaves():
            leaves.append(one)
            if len(leaves) == _AT_ONCE:
                take(leaves)
                leaves = []
        if leaves:
            take(leaves)

    def some(self, first: int, count: int) -> list[bytes]:
        """The events at so many positions from one on; reads the whole file."""
        found = []
        for position, one in self._leaves():
            if first <= position < first + count:
                found.append(one)
        return found

    def _leaves(self) -> Iterator[tuple[int, bytes]]:
        """Position and leaf, with 0x00 before it, of each event."""
        rows = self._of_parquet() if self._path.suffix == ".parquet" else self._of_ndjson()
        number = 0
        while True:
            number += 1
            try:
                fields = next(rows, None)
                if fields is None:
                    return
                row = row_of_json(fields)
                one = b"\x00" + leaf(row)
            except ValueError as error:
                raise UnreadableExport(f"{self._path.name}, event {number:,}: {error}") from None
            yield row.position, one

    def _of_ndjson(self) -> Iterator[dict[str, Any]]:
        with self._path.open("rb") as file:
            while line := file.readline(_LONGEST_LINE):
                if not line.isspace():
                    yield _object(line)

    def _of_parquet(self) -> Iterator[dict[str, Any]]:
        import pyarrow as pa  # heavy, and only needed here
        import pyarrow.parquet as pq

        try:
            file = pq.ParquetFile(self._path)
        except pa.ArrowInvalid as error:
            raise ValueError(f"no Parquet file: {error}") from None
        with file:
            for batch in file.iter_batches(_AT_ONCE):
                yield from map(_texts, batch.to_pylist())


def _object(line: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"no JSON: {error.msg}") from None
    if not isinstance(found, dict):
        raise ValueError("no JSON object")
    return found


def _texts(fields: dict[str, Any]) -> dict[str, Any]:
    """Parquet's values as an export in JSON has them: its ids may be text or 16 bytes, its times
    text or timestamps, its state base64 or bytes."""
    found = {}
    for name, value in fields.items():
        if isinstance(value, datetime):
            found[name] = value.isoformat()
        elif isinstance(value, bytes) and name == "state":
            found[name] = base64.b64encode(value).decode()
        elif isinstance(value, bytes) and len(value) == 16:
            found[name] = str(UUID(bytes=value))
        else:
            found[name] = value
    return found
