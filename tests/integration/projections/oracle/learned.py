"""The learned forecast by its written formulas: hazards as direct sums over the stays of the raw
events, chances from a renewal equation."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from domain.opportunity import Opportunity
from domain.pipeline import Pipeline
from domain.values import Stage
from infra.eventstore.feed import Recorded

LAST = 730
"""Days beyond are not told apart."""
PRIOR, HALF_LIFE_DAYS = 2.0, 90.0
SHAPE = 4
THIN = 10.0
NOTHING = 1e-9
NEVER = 1e-6
"""Who leaves with less than this chance a day beyond LAST stays for ever."""
DAYS_A_MONTH = 30.4375
DAY = timedelta(days=1)
WON, LOST = "won", "lost"

State = tuple[str, bool]
"""Stage, and whether the deal is suspended in it."""


@dataclass
class _Part:
    """Of a stay: at one stage and status; `since` is when the clock of its days began."""

    state: State
    since: datetime
    begun: datetime
    stopped: datetime | None = None
    how: str | State | None = None
    """`won`, `lost`, or the state it went to."""


def stays(events: Iterable[Recorded], pipeline: UUID) -> list[_Part]:
    """Of events in the order of time; the last part of a deal that did not end is not stopped."""
    found: list[_Part] = []
    last: dict[UUID, _Part] = {}
    entered: dict[UUID, datetime] = {}
    amounts: dict[UUID, Decimal] = {}

    def begin(deal: UUID, state: State, since: datetime, at: datetime) -> None:
        last[deal] = _Part(state, since, at)
        found.append(last[deal])

    for event in events:
        e, deal, at = event.event, event.stream_id, event.occurred_at
        if isinstance(e, Opportunity.Created):
            if e.pipeline_id == pipeline:
                entered[deal], amounts[deal] = at, e.amount.value
                begin(deal, (e.stage, False), at, at)
            continue
        part = last.get(deal)
        if part is None:
            continue
        stage, suspended = part.state
        how: str | State | None = None
        match e:
            case Opportunity.StageAdvanced() | Opportunity.StageMovedBack():
                # The deal stays suspended; it is a stay in the other stage that begins.
                how, entered[deal] = (e.to_stage, suspended), at
            case Opportunity.Suspended() if not suspended:
                how = stage, True
            case Opportunity.Resumed() if suspended:
                how = stage, False
            case Opportunity.AmountChanged() if e.amount.value != amounts[deal]:
                amounts[deal] = e.amount.value
                if suspended and at > part.begun:  # another suspension, then
                    part.stopped = at
                    begin(deal, part.state, at, at)
                continue
            case Opportunity.ContractSigned():
                how = WON
            case Opportunity.Lost() | Opportunity.Terminated():
                how = LOST
        if how is None:
            continue
        part.stopped, part.how = at, how
        if isinstance(how, str):
            del last[deal]
        else:
            begin(deal, how, at if how[1] else entered[deal], at)
    return found


@dataclass
class _Seen:
    """Weighed sums by day: stays that lasted that long, and how many of them ended how."""

    exposed: dict[int, float] = field(default_factory=lambda: defaultdict(float))
    ended: dict[str, dict[int, float]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(float))
    )


def seen(parts: Iterable[_Part], until: datetime) -> tuple[dict[str | None, _Seen], int]:
    """By stage, and of all suspensions as None; and how many stays had ended at all."""
    found: dict[str | None, _Seen] = defaultdict(_Seen)
    ends = 0
    for part in parts:
        stage, suspended = part.state
        one = found[None if suspended else stage]
        stop = until if part.stopped is None else part.stopped
        last = (stop - part.since) // DAY
        first = 0 if part.begun == part.since else (part.begun - part.since) // DAY + 1

        def weight(day: int, since: datetime = part.since) -> float:
            """Of a day of the stay: half for each half-life that has gone since it."""
            return float(2 ** (-((until - since) / DAY - day) / HALF_LIFE_DAYS))

        for day in range(first, last + 1):
            one.exposed[day] += weight(day)
        how = part.how
        if how is None:
            continue
        if isinstance(how, str):
            outcome = how
        elif how[0] != stage or how[1] == suspended:
            outcome = f"to {how[0]}"
        else:
            outcome = "suspended" if how[1] else "resumed"
        if suspended and outcome.startswith("to "):
            continue  # of a suspension only what ends it counts
        one.ended[outcome][last] += weight(last)
        ends += outcome not in ("suspended", "resumed") and not suspended
    return found, ends


def defined(
    known: Iterable[Recorded], pipeline: UUID, until: datetime
) -> dict[str, tuple[Stage, str | None]]:
    """The stages of all revisions there were by then, each as the latest has it, with the one that
    follows; of the first revision where there was none yet."""
    revisions: list[tuple[int, datetime, Sequence[Stage]]] = []
    for event in known:
        if event.stream_id == pipeline and isinstance(
            event.event, Pipeline.Created | Pipeline.Revised
        ):
            number = getattr(event.event, "revision", 1)
            revisions.append((number, event.occurred_at, event.event.stages))
    revisions.sort(key=lambda one: one[0])
    held = [one for one in revisions if one[1] <= until] or revisions[:1]
    found: dict[str, tuple[Stage, str | None]] = {}
    for _, _, stages in held:
        names = [*(stage.name for stage in stages), None]
        for stage, following in zip(stages, names[1:], strict=True):
            found[stage.name] = stage, following
    return found


class _Hazard:
    """h(day) = (d + w · f(day) · p) ÷ (n + w · S(day)), of one state."""

    def __init__(self, days: float, own: _Seen) -> None:
        self._own = own
        self._lasting = [_lasts(days, day) for day in range(LAST + 2)]
        self._defined = [self._leaving(days, day) for day in range(LAST + 1)]
        expected = [own.exposed.get(day, 0.0) * self._defined[day] for day in range(LAST + 1)]
        thin = (day for day in range(LAST) if own.exposed.get(day, 0.0) < THIN)
        self._tail = next(thin, LAST)
        behind, enough = 0.0, 0
        for day in range(LAST, -1, -1):
            behind += expected[day]
            if behind >= THIN:
                enough = day
                break
        self._window = min(self._tail, enough)
        self._late = sum(expected[self._window :])

    def _leaving(self, days: float, day: int) -> float:
        left, after = self._lasting[day], self._lasting[day + 1]
        if left > NOTHING:
            return (left - after) / left
        return 1.0 if days == 0 else 1 - math.exp(-SHAPE / days)

    def of(self, outcome: str, chance: float) -> list[float]:
        """By day."""
        ended, found = self._own.ended.get(outcome, {}), []
        for day in range(LAST + 1):
            below = self._own.exposed.get(day, 0.0) + PRIOR * self._lasting[day]
            if day >= self._tail or below <= NOTHING:
                found.append(self._defined[day] * chance)
                continue
            leave = PRIOR * (self._lasting[day] - self._lasting[day + 1])
            found.append((ended.get(day, 0.0) + leave * chance) / below)
        prior = PRIOR * self._lasting[self._window]
        if self._late + prior > NOTHING:
            left = sum(ended.get(day, 0.0) for day in range(self._window, LAST + 1))
            late = (left + prior * chance) / (self._late + prior)
            for day in range(self._tail, LAST + 1):
                found[day] = self._defined[day] * late
        return found


def _lasts(days: float, day: int) -> float:
    """The part of the stays that last so long: of a gamma distribution of shape 4 and this mean,
    that is of the fourth event of a Poisson process."""
    if days == 0:
        return float(day == 0)
    x = day * SHAPE / days
    return math.exp(-x) * sum(x**k / math.factorial(k) for k in range(SHAPE))


class Learned:
    """The model of one pipeline on one day."""

    def __init__(self, known: Sequence[Recorded], pipeline: UUID, until: datetime) -> None:
        """`known`: in the order of time; what happened before `until` is learned from."""
        past = [event for event in known if event.occurred_at < until]
        parts = stays(past, pipeline)
        found, self.ended = seen(parts, until)
        stages = defined(known, pipeline, until)
        names = {*stages, *(part.state[0] for part in parts)}
        self.states = [(name, paused) for paused in (False, True) for name in sorted(names)]
        self._place = {state: place for place, state in enumerate(self.states)}
        self.won: list[list[float]] = []
        self.moves: list[list[list[float]]] = []
        """By state, day, state."""
        self.stays: list[list[float]] = []
        for state in self.states:
            self._add(state, stages, found)
        self._fresh: dict[int, list[float]] = {0: [0.0] * len(self.states)}
        self._ever = self._fixed([self._passage(place, 0) for place in range(len(self.states))])

    def _add(
        self,
        state: State,
        stages: dict[str, tuple[Stage, str | None]],
        found: dict[str | None, _Seen],
    ) -> None:
        name, paused = state
        nowhere = [0.0] * (LAST + 1)
        moves = [nowhere] * len(self.states)
        if paused:
            hazard = _Hazard(DAYS_A_MONTH, found.get(None, _Seen()))
            moves[self._place[name, False]] = hazard.of("resumed", 0.5)
            won, lost = nowhere, hazard.of(LOST, 0.5)
        else:
            chance, months, following = 0.0, 1.0, None
            if name in stages:
                stage, following = stages[name]
                chance, months = float(stage.chance_to_next), float(stage.duration_months)
            hazard = _Hazard(months * DAYS_A_MONTH, found.get(name, _Seen()))
            for other, paused_there in self.states:
                if not paused_there:
                    prior = chance if other == following else 0.0
                    moves[self._place[other, False]] = hazard.of(f"to {other}", prior)
            moves[self._place[name, True]] = hazard.of("suspended", 0.0)
            won = hazard.of(WON, chance if following is None else 0.0)
            lost = hazard.of(LOST, 1 - chance)
        self.won.append([])
        self.moves.append([])
        self.stays.append([])
        for day in range(LAST + 1):
            to = [row[day] for row in moves]
            leaves = sum(to) + won[day] + lost[day]
            excess = max(leaves, 1.0)
            self.won[-1].append(won[day] / excess)
            self.moves[-1].append([one / excess for one in to])
            self.stays[-1].append(1 - leaves / excess)

    def knows(self, stage: str) -> bool:
        return (stage, False) in self._place

    def within(self, stage: str, age: int, days: int) -> float:
        """The chance to be won within so many days, today included."""
        self._fill(days)
        return self._sum(self._place[stage, False], min(age, LAST), days, self._fresh)

    def _fill(self, days: int) -> None:
        """The same of deals that just entered, for each number of days up to this one: what comes
        in the rest of a day after a move is in the equation on both sides."""
        for count in range(len(self._fresh), days + 1):
            size = len(self.states)
            fixed = [
                self._sum(place, 0, count, self._fresh, same_day=False) for place in range(size)
            ]
            self._fresh[count] = self._fixed(
                [(fixed[place], self.moves[place][0]) for place in range(size)]
            )

    def _sum(
        self,
        place: int,
        age: int,
        days: int,
        fresh: dict[int, list[float]],
        *,
        same_day: bool = True,
    ) -> float:
        """Over the days on which the deal leaves its state: won, or what comes after a move."""
        there, found = 1.0, 0.0
        for passed in range(days):
            day = min(age + passed, LAST)
            found += there * self.won[place][day]
            if passed or same_day:
                after = fresh[days - passed]
                found += there * sum(
                    move * later for move, later in zip(self.moves[place][day], after, strict=True)
                )
            there *= self.stays[place][day]
            if not there:
                break
        return found

    def ever(self, stage: str, age: int) -> float:
        """The chance to be won at all."""
        won, moves = self._passage(self._place[stage, False], min(age, LAST))
        return min(1.0, won + sum(move * one for move, one in zip(moves, self._ever, strict=True)))

    def _passage(self, place: int, age: int) -> tuple[float, list[float]]:
        """The chances that the state is left for a win, and for each state, whenever."""
        there, won, moves = 1.0, 0.0, [0.0] * len(self.states)
        for day in range(age, LAST + 1):
            stay = self.stays[place][day]
            if day == LAST:  # and all days after it
                there = there / (1 - stay) if 1 - stay >= NEVER else 0.0
            won += there * self.won[place][day]
            moves = [
                sum_ + there * move
                for sum_, move in zip(moves, self.moves[place][day], strict=True)
            ]
            there *= stay
        return won, moves

    @staticmethod
    def _fixed(rows: Sequence[tuple[float, Sequence[float]]]) -> list[float]:
        """x = a + M·x, the least solution: by going on until nothing changes."""
        found = [0.0] * len(rows)
        for _ in range(100_000):
            after = [
                own + sum(move * one for move, one in zip(moves, found, strict=True))
                for own, moves in rows
            ]
            if max(abs(new - old) for new, old in zip(after, found, strict=True)) < 1e-15:
                return after
            found = after
        raise AssertionError("a chance that does not settle")
