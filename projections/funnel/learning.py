"""Chances to win and times to the win, learned from how deals went through the stages.

Each stage has competing outcomes: the deal goes to another stage (forward, back, past others), is
won, is lost or terminated, is suspended. Time in the stage is counted in whole days. On each day
the hazard of outcome c is estimated by

    h_c(day) = (d_c + w · f(day) · p_c) / (n + w · S(day))

`n`: stays that lasted that long, `d_c`: those of them that ended that way on that day; each counts
2^(−t / half-life), t being how long ago that day was: what deals did of late tells more. The rest
is the pipeline's definition, which counts like `w` deals (`prior_weight`): S(day) of them last that
long and f(day) leave on the day, in a time of the gamma distribution with the stage's usual time as
its mean and SHAPE; for the next stage (from the last, to be won) with the defined chance, else
lost. That is the mean of a beta process whose prior weighs like w deals (Hjort 1990; Susarla and
Van Ryzin 1976); without prior and ageing it is the estimator of Aalen and Johansen. A stay that
still lasts counts as one that lasted that long, no more (Kaplan and Meier). Where stays get few,
the defined hazards count as many times as deals left in the days before for each that should have,
so that a deal older than any is not taken for a new one.

Of a suspended deal nothing is defined: w deals of which half are resumed, after a month on
average. One that is resumed goes on as if it had just entered its stage.
A change of amount that is back-dated into a suspension begins another one.

From these hazards follow the chance of a deal to be won within so many days, by its stage and its
days there: a step is taken for each day, over all stages and ages at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, TypeAlias

import numpy as np
import scipy  # its parts are loaded when they are first used
from numpy.typing import NDArray

from projections.funnel.counting import DAYS, NOTHING, Counts
from projections.funnel.months import DAYS_A_MONTH

SHAPE: Final = 4.0
"""By definition, the times of half of the stays lie within a third of the usual time."""
THIN: Final = 10
"""From the first day on that fewer stays lasted, or from DAYS on, hazards are a multiple of the
defined ones: as many deals left on these days, and so many days before them as it takes for THIN
deals to leave by definition, for each that should have."""

NEVER: Final = 1e-6
"""A deal older than DAYS that leaves its stage with less than this chance a day stays for ever."""

Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class DefinedStage:
    """A stage by definition; `next_stage` is None for the last one, from which deals are won."""

    chance_to_next: Decimal
    duration_months: Decimal
    next_stage: str | None


@dataclass(frozen=True, slots=True)
class Hazards:
    """Per state and day in it: the chances to leave it that day, for another state, or won.

    States are the stages, then each stage suspended. What is left of 1, beside `stays`, is lost.
    """

    stages: list[str]
    moves: Floats
    """State, day, state."""
    won: Floats
    stays: Floats


def hazards(counted: Counts, defined: Mapping[str, DefinedStage], prior_weight: Decimal) -> Hazards:
    """A stage that has no definition any more is defined to be left for nothing within a month."""
    size, cells = len(counted.stages), DAYS + 1
    weight = float(prior_weight)
    moves = np.zeros((2 * size, cells, 2 * size))
    won, lost = np.zeros((2 * size, cells)), np.zeros((2 * size, cells))
    for place, stage in enumerate(counted.stages):
        one = defined.get(stage, DefinedStage(Decimal(0), Decimal(1), None))
        days = float(one.duration_months * DAYS_A_MONTH)
        share = Share(weight, days, counted.exposed[place])
        chance = float(one.chance_to_next)
        forward = None if one.next_stage is None else counted.stages.index(one.next_stage)
        for to in range(size):
            prior = chance if to == forward else 0.0
            moves[place, :, to] = share.of(counted.moved[place, to], prior)
        won[place] = share.of(counted.won[place], chance if forward is None else 0.0)
        lost[place] = share.of(counted.lost[place], 1 - chance)
        moves[place, :, size + place] = share.of(counted.paused[place], 0.0)
    share = Share(weight, float(DAYS_A_MONTH), counted.suspension_exposed)
    resumed, given_up = share.of(counted.resumed, 0.5), share.of(counted.given_up, 0.5)
    for place in range(size):
        moves[size + place, :, place] = resumed
        lost[size + place] = given_up
    leaves = moves.sum(axis=2) + won + lost
    excess = np.maximum(leaves, 1.0)  # a stay that was resumed and ended on the same day
    moves /= excess[:, :, None]
    won /= excess
    return Hazards(counted.stages, moves, won, 1 - leaves / excess)


class Share:
    """What was seen and what is defined, weighed for each day.

    By definition the stay takes a time of the gamma distribution with mean `days` and SHAPE.
    """

    def __init__(self, weight: float, days: float, exposed: Floats) -> None:
        left, self._hazard = _defined(days)
        expected = exposed * self._hazard
        thin = exposed[:-1] < THIN
        self._tail = int(np.argmax(thin)) if thin.any() else DAYS
        enough = np.cumsum(expected[::-1])[::-1] >= THIN
        self._window = min(self._tail, max(int(enough.sum()) - 1, 0))
        self._leaving = weight * (left[:-1] - left[1:])
        self._whole = exposed + weight * left[:-1]
        self._late_prior = weight * left[self._window]
        self._late_whole = expected[self._window :].sum() + self._late_prior

    def of(self, seen: Floats, chance: float) -> Floats:
        """The hazard of an outcome; where nothing weighs anything, the one by definition."""
        found = self._hazard * chance
        np.divide(
            seen + self._leaving * chance, self._whole, out=found, where=self._whole > NOTHING
        )
        late = chance
        if self._late_whole > NOTHING:
            late = (seen[self._window :].sum() + self._late_prior * chance) / self._late_whole
        found[self._tail :] = self._hazard[self._tail :] * late
        return found


def _defined(days: float) -> tuple[Floats, Floats]:
    """The part of the stays that last so many days (to DAYS + 1), and the hazards of these."""
    if days == 0:
        return np.concatenate((np.ones(1), np.zeros(DAYS + 1))), np.ones(DAYS + 1)
    left = np.asarray(scipy.special.gammaincc(SHAPE, np.arange(DAYS + 2.0) * SHAPE / days))
    hazard = np.full(DAYS + 1, -float(np.expm1(-SHAPE / days)))  # where next to none are left
    np.divide(left[:-1] - left[1:], left[:-1], out=hazard, where=left[:-1] > NOTHING)
    return left, hazard


class Learned:
    """Chances by stage and whole days in the stage."""

    def __init__(self, found: Hazards) -> None:
        self._hazards = found
        self._size = len(found.stages)
        self._same_day = np.eye(2 * self._size) - found.moves[:, 0, :]

    def stage(self, name: str) -> int | None:
        """The place of a stage; None for one that nothing is known about."""
        stages = self._hazards.stages
        return stages.index(name) if name in stages else None

    def within(self, days: Sequence[int]) -> Floats:
        """The chance to be won within so many days, today included: stage, age (up to DAYS),
        place in `days`, which rise. 0 days are none."""
        h = self._hazards
        states, cells = h.won.shape
        found = np.zeros((self._size, cells, len(days)))
        reached = np.zeros((states, cells))
        wanted = {day: place for place, day in enumerate(days)}
        for day in range(1, days[-1] + 1 if days else 0):
            later = np.empty_like(reached)
            later[:, :-1], later[:, -1] = reached[:, 1:], reached[:, -1]
            stayed = h.won + h.stays * later
            fresh = np.linalg.solve(self._same_day, stayed[:, 0])
            reached = stayed + h.moves @ fresh
            if day in wanted:
                found[:, :, wanted[day]] = reached[: self._size]
        return np.clip(found, 0.0, 1.0)

    def ever(self) -> Floats:
        """The chance to be won at all: stage, age (up to DAYS)."""
        h = self._hazards
        states, cells = h.won.shape
        leaves = 1 - h.stays[:, -1]
        leaves[leaves < NEVER] = np.inf
        into = h.moves[:, -1, :] / leaves[:, None]
        won = h.won[:, -1] / leaves
        chains = [(won, into)]
        for cell in range(cells - 2, -1, -1):
            stays = h.stays[:, cell]
            won = h.won[:, cell] + stays * won
            into = h.moves[:, cell, :] + stays[:, None] * into
            chains.append((won, into))
        fresh = np.linalg.lstsq(np.eye(states) - into, won)[0]
        found = np.stack([won + into @ fresh for won, into in reversed(chains)], axis=1)
        return np.clip(found[: self._size], 0.0, 1.0)
