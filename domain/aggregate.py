"""What all aggregates of the ledger share: typed events, effective time, snapshots."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import field
from datetime import UTC, datetime
from typing import Self
from uuid import UUID

from eventsourcing.domain import Aggregate, MutableOrImmutableAggregate, TAggregate
from eventsourcing.domain import Snapshot as LibrarySnapshot
from eventsourcing.utils import register_topic

from domain.typecheck import check_types

_NEVER = datetime.min.replace(tzinfo=UTC)


class LedgerAggregate(Aggregate):
    """An aggregate whose state is declared by annotation and whose events are type-checked.

    State is kept in attributes declared with `field(init=False)`; a container may change in place,
    but what it contains is immutable. Command methods check every rule, then trigger; `apply`
    methods only set state and take any history.
    """

    last_occurred_on: datetime = field(init=False, default=_NEVER)
    """The latest effective time of any event; later ones may be recorded with earlier times."""
    _created_on: datetime = field(init=False)
    _modified_on: datetime = field(init=False)

    class Event(Aggregate.Event):
        """A fact. `timestamp` is its effective time (occurred_at), aware.

        Building one with a value of another type than annotated raises TypeError, as do NaN,
        Infinity, naive times, U+0000 and lone surrogates anywhere in its fields.
        """

        class_version = 1
        originator_id: UUID

        def __post_init__(self) -> None:
            check_types(self)

        def mutate(self, aggregate: TAggregate | None) -> TAggregate | None:
            mutated = super().mutate(aggregate)
            if isinstance(mutated, LedgerAggregate):
                mutated.last_occurred_on = max(mutated.last_occurred_on, self.timestamp)
            return mutated

    class Created(Event, Aggregate.Created):
        """The first event of a stream."""

    class Snapshot(LibrarySnapshot):
        TOPIC = "crm.snapshot"

        @classmethod
        def take(cls, aggregate: MutableOrImmutableAggregate[UUID]) -> Self:
            """The state as it is now; what happens to the aggregate later does not show in it."""
            return super().take(deepcopy(aggregate))

    @property
    def partition_key(self) -> UUID:
        """The customer the facts belong to, else the stream itself; never changes."""
        return self.id

    @staticmethod
    def _is_latest(at: datetime, known: datetime | None) -> bool:
        """Whether a fact of `at` decides, where the one that does so far is of `known`."""
        return known is None or at >= known

    def __deepcopy__(self, memo: Mapping[int, object]) -> Self:
        """Copies containers one level deep: what they contain is immutable."""
        copied = object.__new__(type(self))
        for name, value in vars(self).items():
            mutable = isinstance(value, (dict, list, set))
            copied.__dict__[name] = value.copy() if mutable else value
        return copied


register_topic(LedgerAggregate.Snapshot.TOPIC, LedgerAggregate.Snapshot)
