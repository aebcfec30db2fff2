"""The learned chances against examples reckoned by hand."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from scipy.special import gammainc

from projections.funnel.counting import DAYS, Tally
from projections.funnel.history import DAY, History
from projections.funnel.learning import SHAPE, DefinedStage, Learned, hazards
from projections.funnel.stays import ENDINGS

NOW = 2000 * DAY
ONE = {"only": DefinedStage(Decimal("0.4"), Decimal(2), None)}
TWO = {
    "first": DefinedStage(Decimal("0.5"), Decimal(2), "second"),
    "second": DefinedStage(Decimal("0.8"), Decimal(1), None),
}
NO_PRIOR, FOR_EVER = Decimal("1e-12"), Decimal("1e12")


def past(*stays: tuple[Any, ...]) -> History:
    """Of (how many, stage, days, how it ended or None, [to stage], [day it began])."""
    stages = sorted({str(stay[1]) for stay in stays} | {"only"})
    rows = []
    for many, stage, days, how, *more in stays:
        to = stages.index(more[0]) if more and more[0] else -1
        first = more[1] if len(more) > 1 else 0
        suspended = how in ("resumed",) or (len(more) > 2 and more[2])
        begun = NOW - 1 - (days - (first if not suspended else 0)) * DAY
        entered = begun if suspended else begun - first * DAY
        end = NOW + 1 if how is None else NOW - 1
        ended = -1 if how is None else ENDINGS.index(how)
        row = (stages.index(stage), suspended, entered, begun, end, ended, to)
        rows += [row] * many
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    none = np.zeros(len(rows))
    return History(
        stages=stages, stage=columns[0], revision=none.astype(np.int32), suspended=columns[1],
        entered=columns[2], begin=columns[3], end=columns[4], ended=columns[5],
        to_stage=columns[6], known_from=none.astype(np.int16), known_to=none.astype(np.int16) + 1,
        deal=none.astype(np.int64), amount=none, won_amount=none,
    )  # fmt: skip


def learned(
    history: History,
    defined: dict[str, DefinedStage],
    weight: Decimal = NO_PRIOR,
    half_life: Decimal = FOR_EVER,
) -> Learned:
    tally = Tally(history, list(defined), half_life)
    tally.add(np.arange(len(history.stage)), NOW)
    return Learned(hazards(tally.counts(), defined, weight))


def test_the_cumulative_incidence_of_aalen_and_johansen() -> None:
    # Days:        1: a quarter won     2: a third lost, a third still there     3: the rest won
    model = learned(
        past((50, "only", 1, "won"), (50, "only", 2, "lost"), (50, "only", 2, None),
             (50, "only", 3, "won")), ONE,
    )  # fmt: skip
    within = model.within([1, 2, 3, 4])[0]
    assert within[0] == pytest.approx([0, 0.25, 0.25, 0.25 + 0.75 * 2 / 3])
    assert within[2] == pytest.approx([0, 2 / 3, 2 / 3, 2 / 3])
    assert within[3] == pytest.approx([1, 1, 1, 1])
    assert model.ever()[0][:4] == pytest.approx([0.75, 0.75, 2 / 3, 1])


def test_a_terminated_deal_is_a_lost_one() -> None:
    model = learned(past((10, "only", 5, "terminated"), (30, "only", 5, "won")), ONE)
    assert model.ever()[0][0] == pytest.approx(0.75)


def test_stages_follow_one_another_and_may_be_skipped() -> None:
    # Half of the first go to the second after 3 days, a quarter win from there at once; the
    # second wins 60 % after 2 days.
    model = learned(
        past((200, "first", 3, "advanced", "second"), (100, "first", 3, "won"),
             (100, "first", 3, "lost"), (120, "second", 2, "won"), (80, "second", 2, "lost")), TWO,
    )  # fmt: skip
    ever = model.ever()
    assert ever[model.stage("first")][0] == pytest.approx(0.25 + 0.5 * 0.6)
    assert ever[model.stage("second")][0] == pytest.approx(0.6)
    within = model.within([3, 4, 5, 6])[model.stage("first")]
    assert within[0] == pytest.approx([0, 0.25, 0.25, 0.55])
    assert within[2] == pytest.approx([0.25, 0.55, 0.55, 0.55])


def test_a_deal_may_move_back() -> None:
    # Of the second half go back after a day, half win: in the end all that reach it win.
    model = learned(
        past((100, "first", 1, "advanced", "second"), (100, "first", 1, "lost"),
             (100, "second", 1, "moved-back", "first"), (100, "second", 1, "won")), TWO,
    )  # fmt: skip
    # a = b / 2, b = 1/2 + a / 2
    ever = model.ever()
    assert ever[model.stage("first")][0] == pytest.approx(1 / 3)
    assert ever[model.stage("second")][0] == pytest.approx(2 / 3)


def test_a_suspended_deal_may_be_resumed() -> None:
    # Half are suspended after 4 days; a quarter of these are resumed after 6, as if new.
    model = learned(
        past((100, "only", 4, "suspended"), (100, "only", 4, "won"),
             (100, "only", 6, "resumed"), (300, "only", 6, "lost", None, 0, True)), ONE,
    )  # fmt: skip
    # a = 1/2 + 1/2 · 1/4 · a
    assert model.ever()[0][0] == pytest.approx(4 / 7)
    assert model.within([5, 14])[0][0] == pytest.approx([0.5, 0.5])
    assert model.within([15])[0][0] == pytest.approx([0.5 + 0.125 * 0.5])


def test_a_change_of_amount_does_not_count_a_stay_twice() -> None:
    whole = learned(past((20, "only", 10, "won"), (20, "only", 10, "lost")), ONE)
    parted = learned(
        past((20, "only", 4, "repriced"), (20, "only", 10, "won", None, 4),
             (20, "only", 10, "lost")), ONE,
    )  # fmt: skip
    assert parted.ever() == pytest.approx(whole.ever())


def test_without_any_stay_the_definition_is_the_prior() -> None:
    model = learned(past((1, "only", 0, None)), TWO, Decimal(10))
    ever = model.ever()
    assert ever[model.stage("first")][:3] == pytest.approx(0.4, rel=1e-3)
    assert ever[model.stage("second")][500] == pytest.approx(0.8)
    # From the last stage, the time to the win is that of a gamma distribution; 0.8 of all win.
    days = [15, 30, 61, 365]
    assert model.within(days)[model.stage("second")][0] == pytest.approx(
        [0.8 * gammainc(SHAPE, SHAPE * day / 30.4375) for day in days]
    )


def test_the_definition_counts_like_so_many_deals() -> None:
    # 30 stays of the same length, all won; the prior says 40 %.
    stays = past((30, "only", 0, "won"))
    at_once = {"only": DefinedStage(Decimal("0.4"), Decimal(0), None)}
    for weight in (1, 10, 90):
        chance = learned(stays, at_once, Decimal(weight)).ever()[0][0]
        assert chance == pytest.approx((30 + weight * 0.4) / (30 + weight))


def test_a_deal_older_than_any_before_is_not_taken_for_a_new_one() -> None:
    # Decided within 20 days, but for 15 that have been there for 300 and more.
    model = learned(
        past((50, "only", 20, "won"), (50, "only", 20, "lost"), (15, "only", 300, None)), ONE,
        Decimal(10),
    )  # fmt: skip
    within = model.within([90])[0][:, 0]
    assert within[0] > 0.35
    assert within[300] < 0.05
    assert within[DAYS] < 0.05


def test_what_deals_did_of_late_counts_more() -> None:
    # A hundred days ago all were won; those of now are lost.
    history = past((30, "only", 5, "won"), (30, "only", 5, "lost"))
    for column in (history.entered, history.begin, history.end):
        column[:30] -= 100 * DAY
    for half_life, chance in ((100, 1 / 3), (50, 1 / 5)):
        model = learned(history, ONE, half_life=Decimal(half_life))
        assert model.ever()[0][0] == pytest.approx(chance)


def test_what_is_taken_out_or_grows_old_counts_as_if_it_had_never_or_always_been() -> None:
    history = past((30, "only", 5, "won"), (20, "only", 9, "lost"), (10, "only", 3, None))
    half_life = Decimal(40)
    rows = np.arange(60)
    there, before = Tally(history, ["only"], half_life), Tally(history, ["only"], half_life)
    there.add(rows, NOW)
    before.add(np.arange(50), NOW)
    before.add(rows[40:50], NOW, taken_out=True)
    before.add(rows[40:], NOW)
    for one, other in ((there.counts(), before.counts()),):
        assert one.sample == other.sample
        assert other.exposed == pytest.approx(one.exposed)
        assert other.lost == pytest.approx(one.lost)
    later = Tally(history, ["only"], half_life)
    later.add(rows[:50], NOW + 77 * DAY)
    aged = Tally(history, ["only"], half_life)
    aged.add(rows[:50], NOW)
    aged.age(77 * DAY)
    assert aged.counts().exposed == pytest.approx(later.counts().exposed)
    assert aged.counts().won == pytest.approx(later.counts().won)


def test_an_amount_changed_at_once_makes_no_second_stay() -> None:
    stays = (20, "only", 0, "won"), (20, "only", 10, "lost")
    repriced = past(*stays, (40, "only", 0, "repriced"))
    plain = past(*stays)
    found, expected = (
        learned(history, ONE, Decimal(10)).ever()[0] for history in (repriced, plain)
    )
    assert found == pytest.approx(expected)


def test_a_deal_of_an_age_at_which_nobody_leaves_is_not_won() -> None:
    """The hazard beyond is so small that 1 less it is 1."""
    found = learned(past((20, "only", 4, "won"), (20, "only", 400, None)), ONE).ever()[0]
    assert found[400] == pytest.approx(0, abs=1e-6)
    assert found[DAYS] == pytest.approx(0, abs=1e-6)
    assert found[0] == pytest.approx(0.5)
