"""The state of a thing after any of its events or at any date, and what made it differ.

Two orders, for two questions:

- *after version n*: the events 1 to n in the order in which they were recorded. What the write side
  held then, and decided on.
- *as of a date*, known at a position: the events that were true by then and recorded by then, in
  order of (occurred_at, position), as the read models fold them. So a fact told late takes its
  place in time, and what was recorded after the position is not known yet. The first event comes
  first, whatever its time: without it there is no thing.

Without facts told late the two agree. Both are folded from events alone, by the aggregate's own
`apply`; snapshots are not looked at.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any, Final, NamedTuple
from uuid import UUID

from domain.aggregate import LedgerAggregate
from domain.values import Money, Personal
from infra.eventstore.transcoder import decode_event
from infra.postgres import Pool

_FETCHED: Final = 1_000
MADE_BY: Final = 100
"""Events that are named for one difference: the latest."""
DIFFERENCES: Final = 10_000
"""Places of a state in which it may differ."""

_COLUMNS: Final = """position, version, topic, class_version, occurred_at, recorded_at, actor,
    reason, command_id::text, state"""


_HIDDEN: Final = frozenset({"_id", "_version", "_pending_events"})


@cache
def _declared(cls: type) -> tuple[str, ...]:
    """The attributes of an aggregate's state."""
    return tuple(one.name for one in dataclasses.fields(cls))


class NoSuchStream(LookupError):
    """The log has no such stream, or had none then."""


class NotFoldable(Exception):
    """An event of the stream cannot be read or applied: no state from it on can be told."""

    def __init__(self, position: int, version: int, error: str) -> None:
        super().__init__(f"the event of version {version}, position {position}: {error}")
        self.position = position
        self.version = version


class TooManyDifferences(Exception):
    """The states differ in more places than are told at once."""


class Fact(NamedTuple):
    """An event without its body, as a difference names it."""

    position: int
    stream_id: UUID
    version: int
    topic: str
    class_version: int
    occurred_at: datetime
    recorded_at: datetime
    actor: str
    reason: str | None
    command_id: str


@dataclass(frozen=True, slots=True)
class AfterVersion:
    """The events up to a version; None: all."""

    version: int | None = None


@dataclass(frozen=True, slots=True)
class AsOf:
    """The events that were true by `as_of` (None: whenever), recorded up to `known_at` (None:
    all)."""

    as_of: datetime | None
    known_at: int | None = None


When = AfterVersion | AsOf


@dataclass(slots=True)
class State:
    """`aggregate` after `events` events, of which `last` was folded last; its personal text is
    unopened. `version`: the highest of theirs."""

    aggregate: LedgerAggregate
    events: int
    version: int
    first: int
    last: Fact
    through: int
    """The highest position of theirs."""

    def fields(self) -> dict[str, Any]:
        """What it is made of, by name: also what no event has set yet, as it is at first."""
        aggregate = self.aggregate
        names = dict.fromkeys((*_declared(type(aggregate)), *vars(aggregate)))
        found = {
            name.removeprefix("_"): getattr(aggregate, name)
            for name in names
            if name not in _HIDDEN and hasattr(aggregate, name)
        }
        found["modified_on"] = self.last.occurred_at
        return found


@dataclass(slots=True)
class Difference:
    """A place in a state, what it was and is (None: nothing there), and the events that made it so,
    in the order in which they were folded, latest last."""

    place: str
    before: Any
    after: Any = None
    made_by: list[Fact] = field(default_factory=list)
    more: int = 0


def state(pool: Pool, stream_id: UUID, when: When) -> State:
    """Raises NoSuchStream, NotFoldable."""
    found = deque((one for one, _ in _folded(pool, stream_id, when)), maxlen=1)
    if not found:
        raise NoSuchStream(str(stream_id))
    return found[0]


def differences(pool: Pool, stream_id: UUID, earlier: When, later: When) -> list[Difference]:
    """What differs between two states of the same kind, the later of which has all events of the
    earlier. Raises NoSuchStream, NotFoldable, TooManyDifferences."""
    begun = False
    found: dict[str, Difference] = {}
    for now, before in _folded(pool, stream_id, later, copied=lambda fact: not _in(fact, earlier)):
        begun = True
        if before is None:
            continue
        for place, old, new in _changes(before, now.fields()):
            one = found.setdefault(place, Difference(place, old))
            one.after = new
            one.made_by.append(now.last)
            if len(one.made_by) > MADE_BY:
                del one.made_by[0]
                one.more += 1
        if len(found) > DIFFERENCES:
            raise TooManyDifferences
    if not begun:
        raise NoSuchStream(str(stream_id))
    return [one for one in found.values() if not _same(one.before, one.after)]


def _folded(
    pool: Pool,
    stream_id: UUID,
    when: When,
    copied: Callable[[Fact], bool] = lambda fact: False,
) -> Iterator[tuple[State, Mapping[str, Any] | None]]:
    """The state after each event and, where `copied` says so, the fields before it."""
    found: State | None = None
    in_versions = isinstance(when, AfterVersion)
    with _events(pool, stream_id, when) as events:
        for fact, body in events:
            before = None
            if copied(fact):
                before = {} if found is None else _copied(found)
            aggregate = None if found is None else found.aggregate
            try:
                changed = _applied(aggregate, fact, body, in_versions=in_versions)
            except Exception as error:
                told = f"{type(error).__name__}: {error}"[:500]
                raise NotFoldable(fact.position, fact.version, told) from error
            if found is None:
                found = State(changed, 0, 0, fact.position, fact, 0)
            found.events += 1
            found.version = max(found.version, fact.version)
            found.first = min(found.first, fact.position)
            found.through = max(found.through, fact.position)
            found.last = fact
            yield found, before


def _applied(
    aggregate: Any, fact: Fact, state: memoryview, *, in_versions: bool
) -> LedgerAggregate:
    event = decode_event(
        fact.topic,
        fact.stream_id,
        fact.version,
        fact.class_version,
        fact.occurred_at,
        bytes(state),
    )
    if aggregate is None or in_versions:
        changed: LedgerAggregate = event.mutate(aggregate)
        return changed
    # Not `mutate`: it demands that versions follow each other.
    event.apply(aggregate)
    aggregate.last_occurred_on = max(aggregate.last_occurred_on, fact.occurred_at)
    kept: LedgerAggregate = aggregate
    return kept


def _copied(found: State) -> dict[str, Any]:
    fields = found.fields()
    return {
        name: value.copy() if isinstance(value, (dict, set, list)) else value
        for name, value in fields.items()
    }


@contextmanager
def _events(pool: Pool, stream_id: UUID, when: When) -> Iterator[Iterator[tuple[Fact, memoryview]]]:
    """A stream's events in the order in which they are folded, some in memory at a time."""
    clause, values = "stream_id = %s", list[Any]([stream_id])
    if isinstance(when, AfterVersion):
        order = "version"
        if when.version is not None:
            clause += " AND version <= %s"
            values.append(when.version)
    else:
        order = "version > 1, occurred_at, position"
        if when.as_of is not None:
            clause += " AND occurred_at <= %s"
            values.append(when.as_of)
        if when.known_at is not None:
            clause += " AND position <= %s"
            values.append(when.known_at)
    with pool.connection() as connection, connection.cursor("history") as cursor:
        cursor.itersize = _FETCHED
        cursor.execute(f"SELECT {_COLUMNS} FROM events WHERE {clause} ORDER BY {order}", values)
        yield ((Fact(row[0], stream_id, *row[1:-1]), row[-1]) for row in cursor)


def _in(fact: Fact, when: When) -> bool:
    if isinstance(when, AfterVersion):
        return when.version is None or fact.version <= when.version
    known = when.known_at is None or fact.position <= when.known_at
    return known and (when.as_of is None or fact.occurred_at <= when.as_of)


_NOT_TOLD: Final = frozenset({"modified_on", "last_occurred_on"})
"""They follow from which events there are."""


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Places at which two states differ, with both values; None where there is nothing."""
    for name in {**before, **after}:
        old, new = before.get(name), after.get(name)
        if old is new or name in _NOT_TOLD:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            if old == new:
                continue
            keys = {k: None for k in (*old, *new) if old.get(k) is not new.get(k)}
            old = {k: old[k] for k in keys if k in old}
            new = {k: new[k] for k in keys if k in new}
        was, has = dict(_places(name, old)), dict(_places(name, new))
        for place in {**was, **has}:
            if not _same(was.get(place), has.get(place)):
                yield place, was.get(place), has.get(place)


def _places(place: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Each place in a value that holds something, and what it holds. An amount is one thing."""
    if value is None:
        return
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _places(f"{place}.{key}", part)
    elif isinstance(value, (tuple, list)):
        for number, part in enumerate(value, 1):
            yield from _places(f"{place}.{number}", part)
    elif isinstance(value, (set, frozenset)):
        for part in sorted(value):
            yield f"{place}.{part}", True
    elif dataclasses.is_dataclass(value) and not isinstance(value, (Money, type)):
        for one in dataclasses.fields(value):
            yield from _places(f"{place}.{one.name}", getattr(value, one.name))
    else:
        yield place, value


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Personal) and isinstance(other, Personal):
        return one.sealed == other.sealed  # unopened, all texts about somebody are alike
    return type(one) is type(other) and bool(one == other)


class Versions(NamedTuple):
    """How far a stream goes, and the topic of its first event."""

    last: int
    topic: str


def versions(pool: Pool, stream_id: UUID) -> Versions:
    """Raises NoSuchStream."""
    with pool.connection() as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT version, (SELECT topic FROM events AS first WHERE first.stream_id = %s"
            " ORDER BY version LIMIT 1) FROM events WHERE stream_id = %s"
            " ORDER BY version DESC LIMIT 1",
            (stream_id, stream_id),
        )
        row = cursor.fetchone()
    if row is None:
        raise NoSuchStream(str(stream_id))
    return Versions(*row)


def positions(pool: Pool, stream_id: UUID, after: int, count: int) -> tuple[int, int]:
    """The first and last position of the next `count` versions after `after`; there must be one."""
    with pool.connection() as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT min(position), max(position) FROM (SELECT position FROM events"
            " WHERE stream_id = %s AND version > %s ORDER BY version LIMIT %s) AS page",
            (stream_id, after, count),
        )
        first, last = cursor.fetchone() or (0, 0)
    return first, last
