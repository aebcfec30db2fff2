"""How long stays in the stages lasted and how they ended, counted by day."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from projections.funnel.history import DAY, History, Minutes
from projections.funnel.stays import ENDINGS

DAYS: Final = 730
"""Ages beyond are not told apart."""
NOTHING: Final = 1e-9
_OLDEST: Final = 20.0
"""Half-lives after which a stay's days weigh no more than those before."""
_CHUNK: Final = 1 << 18
_ADVANCED, _BACK, _WON, _LOST, _TERMINATED, _SUSPENDED, _RESUMED, _REPRICED = range(len(ENDINGS))
CELLS: Final = DAYS + 1

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[Any]


@dataclass(frozen=True, slots=True)
class StageSample:
    """Stays in a stage that had ended, whenever: the deal moved on or back, was won, or lost or
    terminated; and how many times one was suspended."""

    stage: str
    moved: int
    won: int
    lost: int
    suspended: int

    @property
    def ended(self) -> int:
        return self.moved + self.won + self.lost


@dataclass(frozen=True, slots=True)
class Counts:
    """What was seen, weighed. Per stage and day (0 to DAYS, the last for all from there on):
    `exposed` stays, and how many of them went to each stage, were won, lost or suspended then; and
    the same for all suspensions together, whose outcomes are resumed and given up."""

    stages: list[str]
    exposed: Floats
    moved: Floats
    """Stage, stage they went to, day."""
    won: Floats
    lost: Floats
    paused: Floats
    suspension_exposed: Floats
    resumed: Floats
    given_up: Floats
    sample: list[StageSample]

    @property
    def ended(self) -> int:
        """The size of the sample."""
        return sum(stage.ended for stage in self.sample)


class Cells:
    """Weighed sums by stage and day, from which Counts are made.

    Of each stage, and of all suspensions as the last: `gone`, entries less departures as of the
    first day; `late`, days from DAYS on; `ends`, by outcome (to a stage, won, lost, suspended,
    resumed) and day; `sample`, numbers by outcome. A day weighs as the first one of its stay, times
    `older` for its age.
    """

    def __init__(self, stages: Sequence[str], half_life_days: Decimal) -> None:
        size = len(stages)
        self.stages = list(stages)
        self.half_life = float(half_life_days)
        self.gone = np.zeros((size + 1, CELLS + 1))
        self.late = np.zeros(size + 1)
        self.ends = np.zeros((size + 1, size + 4, CELLS))
        self.sample = np.zeros((size + 1, size + 4))
        self.older = np.exp2(np.minimum(np.arange(float(CELLS)) / self.half_life, _OLDEST))

    def counts(self) -> Counts:
        size = len(self.stages)
        exposed = np.cumsum(self.gone, axis=1)[:, :CELLS]
        exposed[exposed < NOTHING] = 0.0  # what sums that should be nothing leave over
        exposed *= self.older
        exposed[:, DAYS] = self.late
        ends = np.maximum(self.ends, 0.0)
        sample = np.rint(self.sample).astype(int)
        return Counts(
            stages=self.stages,
            exposed=exposed[:size],
            moved=ends[:size, :size],
            won=ends[:size, size],
            lost=ends[:size, size + 1],
            paused=ends[:size, size + 2],
            suspension_exposed=exposed[size],
            resumed=ends[size, size + 3],
            given_up=ends[size, size + 1],
            sample=[
                StageSample(stage, int(row[:size].sum()), *map(int, row[size : size + 3]))
                for stage, row in zip(self.stages, sample, strict=False)
            ],
        )


class Tally(Cells):
    """Counts stays, each as known and true at a moment: what is in it can be taken out again, and
    weighs less as time goes by.

    Each day of a stay weighs 2^(−t / half-life), t being how long before the moment it was. A stay
    that had not ended then was there on its last day and is not seen to have ended.
    """

    def __init__(self, history: History, stages: Sequence[str], half_life_days: Decimal) -> None:
        """`stages`: the first ones counted; those that only the history names follow."""
        more = [stage for stage in history.stages if stage not in stages]
        super().__init__([*stages, *more], half_life_days)
        self._history = history
        self._place = np.array([self.stages.index(stage) for stage in history.stages] or [0])

    def add(self, rows: NDArray[np.intp], until: Minutes, *, taken_out: bool = False) -> None:
        """Count the parts of stays at these places of the history, as they were at `until`."""
        for start in range(0, len(rows), _CHUNK):
            self._add(rows[start : start + _CHUNK], until, -1.0 if taken_out else 1.0)

    def _add(self, rows: NDArray[np.intp], until: Minutes, sign: float) -> None:
        past, size = self._history, len(self.stages)
        # The part that follows a repriced one of no time counts for it.
        empty = (past.ended[rows] == _REPRICED) & (past.end[rows] == past.begin[rows])
        rows = rows[~(empty & (past.end[rows] < until))]
        begin, suspended = past.begin[rows].astype(np.int64), past.suspended[rows]
        entered = np.where(suspended, begin, past.entered[rows])
        happened = past.end[rows] < until
        stop = np.where(happened, past.end[rows], until)
        group = np.where(suspended, size, self._place[past.stage[rows]])
        last = (stop - entered) // DAY
        # A part that follows another of the same stay was not at risk before, nor twice that day.
        first = np.where(begin == entered, 0, (begin - entered) // DAY + 1)
        first = np.minimum(first, last + 1)
        day = np.minimum(last, DAYS)
        weight = sign * np.exp2((entered - until) / (DAY * self.half_life))
        at_stop = sign * np.exp2((stop - until) / (DAY * self.half_life))

        width = CELLS + 1
        self.gone += _summed(group * width + np.minimum(first, DAYS), weight, self.gone)
        self.gone -= _summed(group * width + np.minimum(last + 1, CELLS), weight, self.gone)
        days = np.maximum(last + 1 - np.maximum(first, DAYS), 0)
        daily = np.log(2) / self.half_life
        late = np.expm1(-days * daily) / np.expm1(-daily)
        self.late += _summed(group, late * at_stop, self.late)

        outcome = self._outcome(rows, happened, suspended)
        there = outcome >= 0
        code = group[there] * (size + 4) + outcome[there]
        weights = np.where(last < DAYS, weight * self.older[day], at_stop)[there]
        self.ends += _summed(code * CELLS + day[there], weights, self.ends)
        self.sample += sign * _summed(code, np.ones(len(code)), self.sample)

    def _outcome(self, rows: NDArray[np.intp], happened: Ints, suspended: Ints) -> Ints:
        """-1 for what lasts, or goes on at another amount."""
        past, size = self._history, len(self.stages)
        how, to = past.ended[rows], past.to_stage[rows]
        found = np.full(len(rows), -1)
        moved = ((how == _ADVANCED) | (how == _BACK)) & (to >= 0)
        found[moved] = self._place[to[moved]]
        found[how == _WON] = size
        found[(how == _LOST) | (how == _TERMINATED)] = size + 1
        found[how == _SUSPENDED] = size + 2
        found[how == _RESUMED] = size + 3
        found[~happened] = -1
        return found

    def age(self, minutes: Minutes) -> None:
        """Let the time pass up to which stays count: what was counted weighs less."""
        factor = np.exp2(-minutes / (DAY * self.half_life))
        for counted in (self.gone, self.late, self.ends):
            counted *= factor

    def copy(self) -> Self:
        return deepcopy(self, {id(self._history): self._history})


def _summed(code: Ints, weights: Floats, like: Floats) -> Floats:
    """Weights by place in an array of the shape of `like`."""
    found = np.bincount(code, weights=weights, minlength=like.size)
    return found.reshape(like.shape).astype(np.float64)
