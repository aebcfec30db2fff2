"""Events into rows: states in memory, batches folded and written, and keys that have to wait."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from uuid import UUID

import psycopg2
import structlog
from psycopg2.extensions import cursor as Cursor  # noqa: N812  (it is a class)

from infra.eventstore.feed import Recorded, Undecodable
from infra.eventstore.transcoder import later_version
from projections import parking
from projections.origin import NewerProgram
from projections.projection import Changes, Fold, Projection, fact_line, instant
from projections.states import States
from projections.writing import Statements, refused, send, statements

log = structlog.get_logger(__name__)

Keyed = list[tuple[UUID, Recorded]]
"""Events, each with the key of the fold that takes it in."""

Failure = tuple[UUID, Recorded, str]
"""An event that cannot be folded, with its key and the error, or one that waits for such a one."""


@dataclass(slots=True)
class Counters:
    """What a projector has done since it was made; only ever grow, but for `parked`."""

    events: int = 0
    batches: int = 0
    rows_added: int = 0
    rows_closed: int = 0
    late_owner: int = 0
    refused_batches: int = 0
    parked: int = 0


@dataclass(slots=True)
class Memory:
    """What is known without asking the database: states of keys, and which keys wait."""

    states: list[States]
    parked: set[UUID]


class Folding:
    """Folds events into the rows of one projection. Not thread-safe.

    The caller opens the transaction, with the projection's tables in the search path; after one
    that was rolled back, `forget` has to be called.
    """

    def __init__(self, projection: Projection, counters: Counters, cached_facts: int) -> None:
        """`cached_facts`: how many facts the states in memory may hold after `trim`."""
        self._projection = projection
        self._counters = counters
        self._cached_facts = cached_facts // len(projection.folds)
        self._routes: dict[str, tuple[int, Fold, Callable[[Recorded], tuple[str, ...] | None]]] = {
            topic: (number, fold, extract)
            for number, fold in enumerate(projection.folds)
            for topic, extract in fold.extract.items()
        }
        self.memory = Memory(self._no_states(), set())

    @property
    def parked(self) -> set[UUID]:
        """The keys that wait, as far as is known here."""
        return self.memory.parked

    def forget(self) -> None:
        """Drop all states; they are read from their facts when needed."""
        self.memory = Memory(self._no_states(), self.parked)

    def _no_states(self) -> list[States]:
        return [States(fold, self._cached_facts) for fold in self._projection.folds]

    def remember(self, memory: Memory) -> None:
        """Go on with states of before, but for those of keys that waited and do not any more: of
        these somebody else has written the rows."""
        now = self.memory.parked
        self.memory = memory
        self._now_parked(now)

    def trim(self, *, latest: bool = True) -> None:
        """Forget states until the rest is within the limit; those of the keys of the batch that was
        folded last only with `latest`."""
        for states in self.memory.states:
            states.trim(latest=latest)

    def load_parked(self, cursor: Cursor) -> None:
        """Read which keys wait. Their states are taken to be forgotten."""
        self.memory.parked = parking.keys(cursor, self._projection.id)
        self._counters.parked = len(self.memory.parked)

    def look_at_parked(self, cursor: Cursor) -> None:
        """Read which keys wait: somebody else may have tried them again."""
        self._now_parked(parking.keys(cursor, self._projection.id))

    def _now_parked(self, now: set[UUID]) -> None:
        for key in self.memory.parked - now:
            for states in self.memory.states:
                states.drop(key)
        self.memory.parked = now
        self._counters.parked = len(now)

    def wants(self, topic: str) -> bool:
        """Whether the projection takes in events of this topic."""
        return topic in self._routes

    def keyed(self, events: Iterable[Recorded]) -> Keyed:
        """The events that the projection takes in."""
        routes = self._routes
        return [
            (routes[event.topic][1].key_of(event), event)
            for event in events
            if event.topic in routes
        ]

    def fold(
        self, cursor: Cursor, keyed: Keyed, *, begun: bool = False
    ) -> tuple[list[Changes], list[Failure]]:
        """The changes of each fold, and the events that cannot be folded or wait for such a one.

        `begun`: these are the first events of their keys, of which nothing is stored. Raises
        NewerProgram for an event that a later version of the program wrote.
        """
        held = self._held(cursor, keyed)
        self._load(cursor, keyed, begun)
        changes = [Changes() for _ in self._projection.folds]
        failed: list[Failure] = []
        states, routes = self.memory.states, self._routes
        by_integer = [own.by_integer for own in states]
        for key, recorded in keyed:
            if held and key in held:
                failed.append((key, recorded, ""))
                continue
            number, _, extract = routes[recorded.topic]
            try:
                columns = extract(recorded)
                if columns is None:
                    continue
                fact = (instant(recorded.occurred_at), recorded.position, *columns)
                state = by_integer[number][key.int]
                state.apply(fact, changes[number])
            except Exception as error:  # noqa: BLE001  (whatever it is, it holds back one key)
                self._refuse_later(recorded)
                held = held | {key}
                failed.append((key, recorded, _reason(recorded, error)))
                continue
            changes[number].facts.append(fact_line(state.key, fact))
        for own, change in zip(states, changes, strict=True):
            own.grown(len(change.facts))
        return changes, failed

    def _refuse_later(self, recorded: Recorded) -> None:
        event = recorded.event
        if isinstance(event, Undecodable) and later_version(recorded.topic, event.class_version):
            raise NewerProgram(
                f"position {recorded.position} holds {recorded.topic} of version"
                f" {event.class_version}, which a later version of the program wrote:"
                f" {self._projection.id} of this one ends here"
            )

    def write(self, cursor: Cursor, changes: list[Changes], failed: list[Failure]) -> None:
        """Write what `fold` found. Raises what the database raises, and UnicodeEncodeError."""
        self.send(cursor, self.statements(changes), changes, failed)

    def statements(self, changes: list[Changes]) -> Statements:
        """What `send` is to write: from now on the next batch can be folded, from any thread."""
        return statements(self._projection.folds, changes)

    def send(
        self,
        cursor: Cursor,
        statements: Statements,
        changes: list[Changes],
        failed: list[Failure],
    ) -> None:
        """Write what `fold` found, which `statements` made ready."""
        send(cursor, statements)
        self._park(cursor, failed)
        for change in changes:
            self._counters.rows_added += len(change.added)
            self._counters.rows_closed += len(change.closed)

    def by_key(self, cursor: Cursor, keyed: Keyed) -> None:
        """Fold and write a batch that the database refused, narrowed down to the keys whose rows
        are refused: these are parked."""
        groups: dict[UUID, list[Recorded]] = {}
        for key, recorded in keyed:
            groups.setdefault(key, []).append(recorded)
        self._narrow(cursor, list(groups.items()))

    def _narrow(self, cursor: Cursor, groups: list[tuple[UUID, list[Recorded]]]) -> None:
        """Halve the batch until the keys whose rows are refused stand alone."""
        if not groups:
            return
        cursor.execute("SAVEPOINT part")
        try:
            keyed = [(key, event) for key, events in groups for event in events]
            self.write(cursor, *self.fold(cursor, keyed))
            cursor.execute("RELEASE SAVEPOINT part")
            return
        except (psycopg2.Error, UnicodeEncodeError) as error:
            if not refused(error):
                raise
            cursor.execute("ROLLBACK TO SAVEPOINT part")
            cursor.execute("RELEASE SAVEPOINT part")
            self.forget()
            reason = f"{type(error).__name__}: {error}".strip()
        if len(groups) > 1:
            middle = len(groups) // 2
            self._narrow(cursor, groups[:middle])
            self._narrow(cursor, groups[middle:])
            return
        key, events = groups[0]
        if len(events) > 1:
            # Parking the first bad one makes the rest of the key wait.
            middle = len(events) // 2
            self._narrow(cursor, [(key, events[:middle])])
            self._narrow(cursor, [(key, events[middle:])])
            return
        self._park(cursor, [(key, events[0], reason)])

    def _held(self, cursor: Cursor, keyed: Keyed) -> set[UUID]:
        """The keys that wait, looked at anew if one that this batch is about did, or if it is
        about none."""
        if self.parked and (not keyed or any(key in self.parked for key, _ in keyed)):
            self.look_at_parked(cursor)
        return self.parked

    def _load(self, cursor: Cursor, keyed: Keyed, begun: bool) -> None:
        """States of all keys of a batch, one query for each fold; none, where they have begun."""
        routes = self._routes
        keys: list[dict[int, UUID]] = [{} for _ in self.memory.states]
        for key, recorded in keyed:
            keys[routes[recorded.topic][0]][key.int] = key
        for states, wanted in zip(self.memory.states, keys, strict=True):
            if begun:
                states.begin(wanted.values())
            else:
                states.load(cursor, wanted.values())

    def _park(self, cursor: Cursor, failed: list[Failure]) -> None:
        if not failed:
            return
        for key, recorded, error in failed:
            if error:
                log.error(
                    "event parked",
                    projection=self._projection.id,
                    key=str(key),
                    position=recorded.position,
                    error=error,
                )
        parking.park(cursor, self._projection.id, failed)
        self.memory.parked = self.parked | {key for key, _, _ in failed}
        self._counters.parked = len(self.parked)


def _reason(recorded: Recorded, error: Exception) -> str:
    if isinstance(recorded.event, Undecodable):
        return recorded.event.error
    return f"{type(error).__name__}: {error}"
