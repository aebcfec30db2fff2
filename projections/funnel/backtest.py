"""Past forecasts against what came."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import Final, Literal
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from domain.definitions import ForecastDefinition
from projections.funnel.counting import DAYS, Counts, Ints, Tally
from projections.funnel.history import DAY, History, Minutes, history, minutes
from projections.funnel.learning import Learned, hazards
from projections.funnel.months import MonthsBy, Timing, month_of, months_later, months_left
from projections.funnel.open_deals import Pipelines, pipelines_known
from projections.funnel.spread import Floats, Spread, spread
from projections.funnel.stays import ENDINGS
from projections.reading import Connection, Moment, last_known

NAIVE: Final = "naive"
METHODS: Final = (*(timing.value for timing in Timing), NAIVE)
_WON: Final = ENDINGS.index("won")
_DRAWS: Final = 2_000


@dataclass(frozen=True, slots=True)
class MonthEnd:
    """A month's end and the forecast horizon after it. `at`: the first instant of the month that
    follows, before which everything counts; `known_at`: the position up to which it counts, None
    for all; [start, end): the horizon in days."""

    at: datetime
    start: date
    end: date
    known_at: int | None


@dataclass(frozen=True, slots=True)
class MethodForecast:
    """`brier`: mean squared difference between the chance of each open deal to be won within the
    horizon, and 1 or 0. None where the method knows no deals, or there were none. `ended`: stays
    learned from; where there are none, the definition counts (aged)."""

    method: str
    expected: float
    spread: Spread | None
    brier: float | None
    ended: int | None


@dataclass(frozen=True, slots=True)
class PastForecast:
    """`open`: what the deals open at the month's end brought within the horizon; `all`: what any
    did."""

    month_end: MonthEnd
    deals: int
    open: float
    all: float
    forecasts: list[MethodForecast]


@dataclass(frozen=True, slots=True)
class Score:
    """With A what came and F the forecast: wape = Σ|A − F| ÷ ΣA, bias = Σ(F − A) ÷ ΣA; accuracy is
    the mean of max(0, 1 − |A − F| ÷ A) where A > 0. None where nothing came."""

    wape: float | None
    bias: float | None
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class MethodScore:
    """`coverage`: how often `open` lay within the intervals of LEVELS. `brier`: over all deals."""

    method: str
    open: Score
    all: Score
    coverage: list[float] | None
    brier: float | None


@dataclass(frozen=True, slots=True)
class Backtest:
    pipeline_id: UUID
    currency: str
    horizon: int
    month_ends: list[PastForecast]
    scores: list[MethodScore]


def month_ends(as_of: datetime, timezone: ZoneInfo, months: int, horizon: int) -> list[MonthEnd]:
    """The last `months` ends of months whose horizon is over at `as_of`, the earliest first."""
    this = as_of.astimezone(timezone).date().replace(day=1)
    found = []
    for back in range(months + horizon - 1, horizon - 1, -1):
        start, end = months_later(this, -back), months_later(this, horizon - back)
        if start > date(1900, 1, 1):
            at = datetime.combine(start, time.min, tzinfo=timezone)
            found.append(MonthEnd(at, start, end, None))
    return found


def backtest(
    connection: Connection,
    moment: Moment,
    *,
    pipeline_id: UUID,
    currency: str,
    timezone: ZoneInfo,
    definition: ForecastDefinition,
    ends: Sequence[MonthEnd],
    horizon: int,
) -> Backtest | None:
    """What would have been forecast at each month's end, by each method, and what came: of the
    pipeline's deals in the currency, by calendar months; None for an unknown pipeline.

    With a `known_at` on the month ends, each forecast rests on what was known then; without, on
    what was true then as known at the moment. Either way nothing later than the month's end is in
    it; what came is as known at the moment.
    """
    pipelines = pipelines_known(connection, moment)
    if pipeline_id not in pipelines.revisions:
        return None
    last = last_known(moment)
    known = [last if end.known_at is None else min(end.known_at, last) for end in ends]
    positions = sorted({*known, last})
    past = history(
        connection, pipeline_id, until=moment.as_of, positions=positions, currency=currency
    )
    came = _Wins(past, minutes(moment.as_of) + 1, len(positions) - 1)
    learning = _Learning(
        past,
        pipelines.stages(pipeline_id),
        definition,
        [minutes(end.at) for end in ends],
        [positions.index(position) for position in known],
    )
    tested = []
    for number, end in enumerate(ends):
        then = _Then(past, learning, number, pipelines, pipeline_id, end)
        tested.append(_tested(then, came, definition, horizon, timezone))
    return Backtest(pipeline_id, currency, horizon, tested, _scores(tested))


class _Learning:
    """What had been seen at each of the month ends, which are asked for in order.

    A stay that ended is counted at the first month's end at which that was known, and taken out
    where it is no longer; so each is looked at about once, however many month ends there are.
    """

    def __init__(
        self,
        past: History,
        stages: Sequence[str],
        definition: ForecastDefinition,
        untils: Sequence[Minutes],
        known: Sequence[int],
    ) -> None:
        self.past, self.untils, self.known = past, untils, known

        def first(among: Sequence[int], of: Ints, side: Literal["left", "right"]) -> Ints:
            return np.searchsorted(np.array(among, np.int64), of, side=side).astype(np.int16)

        into = np.maximum(first(untils, past.end, "right"), first(known, past.known_from, "left"))
        out = first(known, past.known_to, "left")
        never = into >= out
        into[never] = out[never] = -1
        self._into, self._out = into, out
        self._tally = Tally(past, stages, definition.half_life_days)

    def at(self, number: int) -> Counts:
        until = self.untils[number]
        if number:
            self._tally.age(until - self.untils[number - 1])
        self._tally.add(np.flatnonzero(self._into == number), until)
        self._tally.add(np.flatnonzero(self._out == number), until, taken_out=True)
        now = self._tally.copy()
        now.add(self.past.lasting(until, self.known[number]), until)
        return now.counts()


class _Wins:
    """Won deals as known at the moment: when, which, how much."""

    def __init__(self, past: History, until: Minutes, known: int) -> None:
        won = (past.ended == _WON) & (past.end < until) & (past.won_amount >= 0)
        rows = np.flatnonzero(won & (past.known_from <= known) & (known < past.known_to))
        rows = rows[np.argsort(past.end[rows], kind="stable")]
        self._at, self._deal, self._amount = past.end[rows], past.deal[rows], past.won_amount[rows]

    def between(self, begin: datetime, end: datetime) -> float:
        return float(self._amount[self._places(begin, end)].sum())

    def of(self, deals: NDArray[np.int64], begin: datetime, end: datetime) -> Floats:
        """What each of the deals brought from `begin` to before `end`; -1 for those not won."""
        places = self._places(begin, end)
        found = np.full(len(deals), -1.0)
        if len(deals):
            order = np.argsort(deals, kind="stable")
            won = self._deal[places]
            at = np.minimum(np.searchsorted(deals, won, sorter=order), len(deals) - 1)
            there = deals[order[at]] == won
            found[order[at[there]]] = self._amount[places][there]
        return found

    def _places(self, begin: datetime, end: datetime) -> slice:
        first, last = np.searchsorted(self._at, (minutes(begin), minutes(end)))
        return slice(int(first), int(last))


class _Then:
    """What was there at a month's end."""

    def __init__(
        self,
        past: History,
        learning: _Learning,
        number: int,
        pipelines: Pipelines,
        pipeline_id: UUID,
        end: MonthEnd,
    ) -> None:
        self.past, self.end, self.pipelines, self.pipeline_id = past, end, pipelines, pipeline_id
        self.until, self.known = learning.untils[number], learning.known[number]
        self.counted = learning.at(number)
        rows = past.lasting(self.until, self.known)
        rows = rows[~past.suspended[rows] & (past.amount[rows] >= 0)]
        self.deal, self.amount = past.deal[rows], past.amount[rows]
        age = np.minimum((self.until - past.entered[rows]) // DAY, DAYS)
        stages = max(len(past.stages), 1)
        code = past.revision[rows].astype(np.int64) * stages + past.stage[rows]
        groups, self.group = np.unique(code * (DAYS + 1) + age, return_inverse=True)
        self.age = groups % (DAYS + 1)
        self.stage = groups // (DAYS + 1) % stages
        self.revision = groups // (DAYS + 1) // stages

    def defined(self, timing: Timing, horizon: int) -> Floats:
        """The chance of each group to be won within the horizon."""
        found = np.zeros(len(self.age))
        for place in range(len(found)):
            stage = self.pipelines.stage(
                self.pipeline_id, int(self.revision[place]), self.past.stages[self.stage[place]]
            )
            left = months_left(timing, stage.duration, stage.later, int(self.age[place]))
            if month_of(left, self.end.start, MonthsBy.CALENDAR) <= horizon:
                found[place] = float(stage.chance)
        return found

    def learned(self, definition: ForecastDefinition) -> tuple[Floats | None, int]:
        """The same as learned up to then, and the number of stays learned from; None if that is
        0."""
        if self.counted.ended == 0:
            return None, 0
        stages = self.pipelines.defined(self.pipeline_id, self.end.at, self.end.known_at)
        model = Learned(hazards(self.counted, stages, definition.prior_weight))
        within = model.within([(self.end.end - self.end.start).days])[:, :, 0]
        place = np.array([model.stage(name) for name in self.past.stages], np.int64)
        return within[place[self.stage], self.age], self.counted.ended


def _tested(
    then: _Then, came: _Wins, definition: ForecastDefinition, horizon: int, timezone: ZoneInfo
) -> PastForecast:
    end = then.end
    over = datetime.combine(end.end, time.min, tzinfo=timezone)
    brought = came.of(then.deal, end.at, over)
    won = (brought >= 0).astype(float)
    forecasts = []
    for timing in Timing:
        ended = None
        if timing is Timing.LEARNED:
            chances, ended = then.learned(definition)
            if chances is None:
                chances = then.defined(Timing.AGED, horizon)
        else:
            chances = then.defined(timing, horizon)
        forecasts.append(_forecast(timing.value, then, chances, won, ended))
    naive = _naive(then, definition, horizon, timezone)
    forecasts.append(MethodForecast(NAIVE, naive, None, None, None))
    return PastForecast(
        end,
        len(then.deal),
        float(brought[brought > 0].sum()),
        came.between(end.at, over),
        forecasts,
    )


def _forecast(
    method: str, then: _Then, chances: Floats, won: Floats, ended: int | None
) -> MethodForecast:
    of_deals = chances[then.group]
    spread_ = spread(np.ones(len(of_deals), np.int64), of_deals, then.amount, draws=_DRAWS)
    brier = float(np.mean((of_deals - won) ** 2)) if len(won) else None
    return MethodForecast(method, float(of_deals @ then.amount), spread_, brier, ended)


def _naive(then: _Then, definition: ForecastDefinition, horizon: int, timezone: ZoneInfo) -> float:
    """The mean of the last months' wins, as known then, for each month of the horizon."""
    begin = datetime.combine(
        months_later(then.end.start, -definition.naive_months), time.min, tzinfo=timezone
    )
    past = then.past
    won = (past.ended == _WON) & (past.end < then.until) & (past.end >= minutes(begin))
    seen = (past.known_from <= then.known) & (then.known < past.known_to)
    amounts = past.won_amount[won & seen & (past.won_amount >= 0)]
    return float(amounts.sum()) / definition.naive_months * horizon


# ---- scores ----


def _scores(tested: Sequence[PastForecast]) -> list[MethodScore]:
    found = []
    for place, method in enumerate(METHODS):
        forecasts = [one.forecasts[place] for one in tested]
        expected = np.array([one.expected for one in forecasts])
        opened = np.array([one.open for one in tested])
        coverage: list[float] | None = None
        weighed = [
            (one.brier, test.deals) for one, test in zip(forecasts, tested, strict=True)
            if one.brier is not None
        ]  # fmt: skip
        deals = sum(count for _, count in weighed)
        if tested and all(one.spread is not None for one in forecasts):
            spreads = [one.spread for one in forecasts if one.spread is not None]
            coverage = _coverage(spreads, opened)
        found.append(
            MethodScore(
                method,
                _score(opened, expected),
                _score(np.array([one.all for one in tested]), expected),
                coverage,
                sum(brier * count for brier, count in weighed) / deals if deals else None,
            )
        )
    return found


def _coverage(spreads: Sequence[Spread], came: Floats) -> list[float]:
    within = [
        [low <= one <= high for low, high in found.intervals]
        for found, one in zip(spreads, came, strict=True)
    ]
    return [float(share) for share in np.mean(within, axis=0)]


def _score(came: Floats, expected: Floats) -> Score:
    whole = float(came.sum())
    if whole <= 0:
        return Score(None, None, None)
    off = np.abs(came - expected)
    some = came > 0
    accuracy = float(np.mean(np.maximum(0.0, 1 - off[some] / came[some])))
    return Score(float(off.sum()) / whole, float((expected - came).sum()) / whole, accuracy)
