"""What was learned, for all who ask on the same day.

The model in force on a day rests on what was true before the day began, in the time zone of the
question, as known at its `known_at`, or at the position that the read model has reached. So it is a
function of the log and the question; and what happens on the day, however much of it, makes no
other model. Facts of earlier days that are recorded later do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, time
from threading import Lock
from typing import Final
from uuid import UUID
from zoneinfo import ZoneInfo

from domain.definitions import ForecastDefinition
from projections.funnel.cells import counts, one_in
from projections.funnel.counting import StageSample
from projections.funnel.learning import DefinedStage, Learned, hazards
from projections.funnel.open_deals import Pipelines
from projections.funnel.spread import Floats
from projections.kept import Kept
from projections.reading import Connection, Moment, fetch_one

_MANY: Final = 50_000
"""Positions that are searched for facts of earlier days; after more, all is learned anew."""

_WITHIN: Final = 4
"""So many answers are kept with a fit: it is asked for a few numbers of months."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What was learned from: what was true before `until`, of one in so many deals. Not `used`
    where no stay had ended: the definition counts, then."""

    pipeline_id: UUID
    until: datetime
    one_in: int
    used: bool
    ended: int
    stages: list[StageSample]


@dataclass(frozen=True, slots=True)
class Fit:
    """`ever`: the chances to be won at all, as the model has them."""

    sample: Sample
    model: Learned
    ever: Floats
    _within: Kept[Floats] = field(default_factory=lambda: Kept(_WITHIN))

    def within(self, days: Sequence[int]) -> Floats:
        """The chances to be won within so many days, as the model has them."""
        return self._within.get(tuple(days), lambda: self.model.within(days))


class _Slot:
    """The fit of a day, and up to which position it is what the log says."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.fit: Fit | None = None
        self.known_at = 0


class Fits:
    """Fits by what they rest on: one filling of the tables, the pipeline and its definition, the
    day, what is known."""

    def __init__(self, most: int = 16) -> None:
        self._slots: Kept[_Slot] = Kept(most)

    def fit(
        self,
        connection: Connection,
        moment: Moment,
        pipeline_id: UUID,
        pipelines: Pipelines,
        definition: ForecastDefinition,
        timezone: ZoneInfo,
    ) -> Fit:
        """The model of the moment's day."""
        until = day_begins(moment.as_of, timezone)
        filled, parked, known_at = _state(connection, moment)
        defined = pipelines.defined(pipeline_id, until)
        share = one_in(known_at)
        key = (
            filled, parked, until, moment.known_at, share, pipeline_id, definition.id,
            tuple(defined.items()),
        )  # fmt: skip

        def make() -> Fit:
            return _fit(connection, pipeline_id, defined, definition, until, known_at, share)

        slot = self._slots.get(key, _Slot)
        with slot.lock:
            if slot.fit is None or known_at > slot.known_at:
                if slot.fit is None or _learnt(connection, until, slot.known_at, known_at):
                    slot.fit = make()
                slot.known_at = known_at
                return slot.fit
            if known_at == slot.known_at or not _learnt(connection, until, known_at, slot.known_at):
                return slot.fit
        return make()  # a snapshot that is older than that of somebody else


def day_begins(at: datetime, timezone: ZoneInfo) -> datetime:
    """The first instant of the day in which `at` lies."""
    return datetime.combine(at.astimezone(timezone).date(), time.min, tzinfo=timezone)


def _fit(
    connection: Connection,
    pipeline_id: UUID,
    defined: Mapping[str, DefinedStage],
    definition: ForecastDefinition,
    until: datetime,
    known_at: int,
    share: int,
) -> Fit:
    counted = counts(
        connection,
        pipeline_id,
        until=until,
        known_at=known_at,
        stages=list(defined),
        half_life_days=definition.half_life_days,
        one_in=share,
    )
    model = Learned(hazards(counted, defined, definition.prior_weight))
    used = counted.ended > 0
    sample = Sample(pipeline_id, until, share, used, counted.ended, counted.sample)
    return Fit(sample, model, model.ever())


def _state(connection: Connection, moment: Moment) -> tuple[str | None, str, int]:
    """The filling of the tables, which events wait, and the last position that counts: what all
    partitions have reached, if the question does not say."""
    state = fetch_one(
        connection,
        """SELECT (SELECT string_agg(filled::text, ' ' ORDER BY projection) FROM origin
                WHERE projection LIKE 'funnel/%%') AS filled,
            (SELECT count(*) || ' ' || coalesce(sum(position), 0) FROM parked
                WHERE projection LIKE 'funnel/%%') AS parked,
            (SELECT coalesce(min(position), 0) FROM position
                WHERE projection LIKE 'funnel/%%') AS reached""",
        {},
    )
    filled, parked, reached = (state or {}).values()
    return filled, parked, reached if moment.known_at is None else min(moment.known_at, reached)


def _learnt(connection: Connection, until: datetime, after: int, through: int) -> bool:
    """Whether anything of the time before `until` was recorded at these positions; or so much was
    recorded that it is not worth looking."""
    if through - after > _MANY:
        return True
    row = fetch_one(
        connection,
        """SELECT EXISTS (SELECT FROM deal_fact WHERE occurred_at < %(until)s
            AND position > %(after)s AND position <= %(through)s) AS learnt""",
        {"until": until, "after": after, "through": through},
    )
    return bool((row or {})["learnt"])
