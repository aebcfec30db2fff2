"""What the database holds of a proof: tiles, checkpoints, keys. For any role that may read it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from infra.postgres import Connection
from infra.proof.tree import Tree


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """A checkpoint as it was signed. `note` is not verified."""

    number: int
    size: int
    note: str


class Stored:
    """The tables of one log, over one connection, whose search path leads to them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._tiles: dict[tuple[int, int], bytes] = {}

    def log_id(self) -> UUID:
        """Of the log: what its checkpoints are named by."""
        found: UUID = self._rows("SELECT log_id FROM seal")[0][0]
        return found

    def head(self) -> int:
        """Position of the last event."""
        found: int = self._rows("SELECT position FROM head")[0][0]
        return found

    def newest(self) -> StoredCheckpoint | None:
        """The checkpoint of the largest size, of those the last one signed."""
        return self._checkpoint("", [])

    def of_size(self, size: int) -> StoredCheckpoint | None:
        """The checkpoint of that size, of those the last one signed."""
        return self._checkpoint("AND size = %s", [size])

    def _checkpoint(self, condition: str, parameters: list[Any]) -> StoredCheckpoint | None:
        rows = self._rows(
            "SELECT number, size, note FROM checkpoint"
            f" WHERE log_id = (SELECT log_id FROM seal) {condition}"
            " ORDER BY size DESC, number DESC LIMIT 1",
            parameters,
        )
        return StoredCheckpoint(*rows[0]) if rows else None

    def checkpoints(self, chunk: int = 1000) -> Iterator[StoredCheckpoint]:
        """All of them, in the order of size and of signing."""
        after = (0, 0)
        while True:
            rows = self._rows(
                "SELECT number, size, note FROM checkpoint"
                " WHERE log_id = (SELECT log_id FROM seal) AND (size, number) > (%s, %s)"
                " ORDER BY size, number LIMIT %s",
                [*after, chunk],
            )
            for row in rows:
                yield StoredCheckpoint(*row)
            if len(rows) < chunk:
                return
            after = (rows[-1][1], rows[-1][0])

    def count(self) -> int:
        """How many checkpoints there are."""
        found: int = self._rows(
            "SELECT count(*) FROM checkpoint WHERE log_id = (SELECT log_id FROM seal)"
        )[0][0]
        return found

    def vkeys(self) -> list[str]:
        """The vkeys that signed for the log, the first one first."""
        rows = self._rows(
            "SELECT vkey FROM seal_key WHERE log_id = (SELECT log_id FROM seal)"
            " ORDER BY first_size, added_at, vkey"
        )
        return [row[0] for row in rows]

    def signing_key(self) -> str | None:
        """The vkey that signs at present."""
        rows = self._rows(
            "SELECT vkey FROM seal_key"
            " WHERE log_id = (SELECT log_id FROM seal) AND last_size IS NULL"
            " ORDER BY first_size DESC, added_at DESC LIMIT 1"
        )
        return rows[0][0] if rows else None

    def tile(self, level: int, index: int) -> bytes:
        """The tile's hashes; none if there is no such tile. The latest few are remembered."""
        found = self._tiles.get((level, index))
        if found is None:
            rows = self._rows(
                "SELECT hashes FROM tile WHERE level = %s AND index = %s", [level, index]
            )
            found = bytes(rows[0][0]) if rows else b""
            if len(self._tiles) >= 64:
                self._tiles.clear()
            self._tiles[level, index] = found
        return found

    def leaf_tiles(self, first: int, count: int) -> dict[int, bytes]:
        """Tiles of level 0 by index, from one on, so many at most."""
        rows = self._rows(
            "SELECT index, hashes FROM tile WHERE level = 0 AND index >= %s AND index < %s",
            [first, first + count],
        )
        return {index: bytes(hashes) for index, hashes in rows}

    @property
    def tree(self) -> Tree:
        """The tree as the tiles have it."""
        return Tree(self.tile)

    def _rows(self, query: str, parameters: list[Any] | None = None) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(query, parameters)
            return cursor.fetchall()
