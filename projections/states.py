"""States of keys in memory: read from their facts when needed, forgotten when there are many."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from uuid import UUID

from psycopg2.extensions import cursor as Cursor  # noqa: N812  (it is a class)

from projections.projection import Changes, Fact, Fold, KeyState, instant, text


class States:
    """States of one fold's keys, least recently used first.

    They are found by the integer of the key's UUID, which is quicker to look up than the UUID.
    """

    def __init__(self, fold: Fold, limit: int) -> None:
        """`limit`: how many facts the states may hold together when `trim` is called."""
        self._fold = fold
        self._limit = limit
        self._states: OrderedDict[int, KeyState] = OrderedDict()
        self._facts = 0
        self._latest = 0  # so many at the end are of the keys that were loaded last

    @property
    def by_integer(self) -> Mapping[int, KeyState]:
        """The states of the keys that were loaded, by the integers of these."""
        return self._states

    def begin(self, keys: Iterable[UUID]) -> None:
        """Have the states of these keys, of which no facts are stored."""
        for key in keys:
            self._states[key.int] = KeyState(self._fold, key)

    def load(self, cursor: Cursor, keys: Collection[UUID]) -> None:
        """Have the states of these keys: from memory, else from their facts, in one query."""
        states = self._states
        missing: list[UUID] = []
        self._latest = len(keys)
        for key in keys:
            if key.int in states:
                states.move_to_end(key.int)
            else:
                states[key.int] = KeyState(self._fold, key)
                missing.append(key)
        if not missing:
            return
        rows_as_written = Changes()
        for key, fact in _stored_facts(cursor, self._fold, missing):
            states[key.int].apply(fact, rows_as_written)
            self._facts += 1
        for entry in rows_as_written.added:
            entry.written = True

    def grown(self, facts: int) -> None:
        """The states took in so many facts more."""
        self._facts += facts

    def drop(self, key: UUID) -> None:
        state = self._states.pop(key.int, None)
        if state is not None:
            self._facts -= len(state.facts)

    def clear(self) -> None:
        self._states.clear()
        self._facts = 0

    def trim(self, *, latest: bool) -> None:
        """Forget states until what is left is within the limit; those that were loaded last only
        with `latest`."""
        spared = 0 if latest else self._latest
        while self._facts > self._limit and len(self._states) > spared:
            _, state = self._states.popitem(last=False)
            self._facts -= len(state.facts)


def _stored_facts(cursor: Cursor, fold: Fold, keys: Iterable[UUID]) -> list[tuple[UUID, Fact]]:
    """The facts of the keys that the tables hold, in the order of recording."""
    columns = ", ".join(f"{column.name}::text" for column in fold.facts.columns)
    cursor.execute(
        f"SELECT {fold.key.name}, occurred_at, position, {columns} FROM {fold.facts.name}"
        f" WHERE {fold.key.name} = ANY(%s::uuid[]) ORDER BY position",
        [[str(key) for key in keys]],
    )
    return [(row[0], (instant(row[1]), row[2], *map(text, row[3:]))) for row in cursor.fetchall()]
