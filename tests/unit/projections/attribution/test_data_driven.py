"""Markov and Shapley on paths small enough to reckon by hand, and against slow definitions."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise, permutations
from random import Random
from uuid import UUID

import numpy as np
import pytest

from projections.attribution.fits import fitted, removed
from projections.attribution.markov import blocked, chain_of, removal_effects
from projections.attribution.models import Model
from projections.attribution.paths import Paths, of_sequences
from projections.attribution.shapley import EXACT, shapley
from projections.kept import Kept

G, M, X = UUID(int=7), UUID(int=8), UUID(int=9)

BY_HAND = of_sequences([([G], 2, 1), ([M], 1, 0), ([G, M], 1, 0)])
"""G→win, G→win, M→win, G→M→win, G→nothing."""


def test_markov_removal_effects_and_credit() -> None:
    chance, effects = removal_effects(chain_of(BY_HAND))
    assert chance == pytest.approx(0.8)
    assert effects == pytest.approx([0.75, 0.5])
    fit = fitted(Model.MARKOV, BY_HAND)
    assert {id_: 4 * share for id_, share in fit.shares.items()} == pytest.approx({G: 2.4, M: 1.6})
    assert (fit.paths, fit.wins) == (5, 4)


def test_shapley_values_over_rates() -> None:
    fit = fitted(Model.SHAPLEY, BY_HAND)
    assert {id_: round(4 * share, 4) for id_, share in fit.shares.items()} == {G: 1.1667, M: 2.8333}
    assert (fit.errors, fit.orders) == (None, 0)


def test_self_loops_are_dropped() -> None:
    looped = of_sequences([([G, G, G], 2, 1), ([M, M], 1, 0), ([G, G, M], 1, 0)])
    assert fitted(Model.MARKOV, looped).shares == pytest.approx(
        fitted(Model.MARKOV, BY_HAND).shares
    )


@pytest.mark.parametrize("model", [Model.MARKOV, Model.SHAPLEY])
def test_where_all_effects_are_zero_it_is_linear(model: Model) -> None:
    lost = of_sequences([([G, M], 0, 1), ([G], 0, 1)])
    assert fitted(model, lost).shares == pytest.approx({G: 0.75, M: 0.25})
    assert fitted(model, of_sequences([])).shares == {}


def test_negative_values_become_zero() -> None:
    """X spoils what G would win: v(G) = 1, v(X) = 0, v(GX) = 1/3."""
    spoilt = of_sequences([([G], 1, 0), ([G, X], 0, 2)])
    values, _, _ = shapley(spoilt)
    assert values == pytest.approx([2 / 3, -1 / 3])
    assert fitted(Model.SHAPLEY, spoilt).shares == {G: 1.0, X: 0.0}


def random_paths(seed: int, campaigns: int, paths: int = 200) -> Paths:
    random = Random(seed)
    ids = [UUID(int=number) for number in range(1, campaigns + 1)]
    return of_sequences(
        [
            (
                random.choices(ids, k=random.randint(1, 5)),
                int(won := random.random() < 0.4),
                int(not won),
            )
            for _ in range(paths)
        ]
    )


def sequences(of: Paths) -> list[tuple[list[int], int, int]]:
    parts = np.split(of.touches, of.starts[1:])
    return [
        (part.tolist(), int(won), int(lost))
        for part, won, lost in zip(parts, of.won, of.lost, strict=True)
    ]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_markov_is_the_chain_solved_anew_for_each_removal(seed: int) -> None:
    of = random_paths(seed, 6)
    chance, effects = removal_effects(chain_of(of))
    assert chance == pytest.approx(solved(of, None))
    for place in range(6):
        without = solved(of, place)
        assert effects[place] == pytest.approx(1 - without / chance)
        left, _ = removal_effects(blocked(chain_of(of), place))
        assert left == pytest.approx(without)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_markov_of_many_campaigns_is_that_of_few(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are two ways to solve a chain, by its size."""
    chain = chain_of(random_paths(seed, 300))
    chance, effects = removal_effects(chain)
    monkeypatch.setattr("projections.attribution.markov.DENSE", 0)
    other, others = removal_effects(chain)
    assert other == pytest.approx(chance)
    assert others == pytest.approx(effects)


def test_chains_of_many_campaigns_that_all_follow_on_each_other_are_not_taken_for_sparse(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """2,000 of them took a quarter of a minute."""

    def refused(_: object) -> None:
        pytest.fail("took it for sparse")

    monkeypatch.setattr("scipy.sparse.linalg.splu", refused)
    _, effects = removal_effects(chain_of(random_paths(1, 1_500, paths=5_000)))
    assert len(effects) > 1_400


def solved(of: Paths, removed_place: int | None) -> float:
    """The chance to win by going through the chain step by step until nothing is under way."""
    counts: dict[tuple[object, object], int] = {}
    for touched, won, lost in sequences(of):
        states: list[object] = ["start", *touched]
        for one, next_ in pairwise(states):
            if one != next_:
                counts[one, next_] = counts.get((one, next_), 0) + won + lost
        for end, number in (("win", won), ("nothing", lost)):
            counts[touched[-1], end] = counts.get((touched[-1], end), 0) + number
    totals: dict[object, int] = {}
    for (one, _), number in counts.items():
        totals[one] = totals.get(one, 0) + number
    at: dict[object, float] = {"start": 1.0}
    chance = 0.0
    while sum(at.values()) > 1e-15:
        after: dict[object, float] = {}
        for (one, next_), number in counts.items():
            flow = at.get(one, 0.0) * number / totals[one]
            if next_ == "win":
                chance += flow
            elif next_ not in ("nothing", removed_place):
                after[next_] = after.get(next_, 0.0) + flow
        at = after
    return chance


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_shapley_is_the_mean_gain_over_all_orders(seed: int) -> None:
    of = random_paths(seed, 5, paths=40)
    told = sequences(of)

    def value(members: set[int]) -> Fraction:
        within = [(won, lost) for touched, won, lost in told if set(touched) <= members]
        ended = sum(won + lost for won, lost in within)
        return Fraction(sum(won for won, _ in within), ended) if ended else Fraction(0)

    expected = [Fraction(0)] * 5
    orders = list(permutations(range(5)))
    for order in orders:
        for place, campaign in enumerate(order):
            gain = value(set(order[: place + 1])) - value(set(order[:place]))
            expected[campaign] += gain / len(orders)
    values, errors, _ = shapley(of)
    assert values == pytest.approx([float(one) for one in expected])
    assert errors is None


def test_sampled_values_lie_near_the_exact_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    of = random_paths(4, EXACT)
    exact, _, _ = shapley(of)
    monkeypatch.setattr("projections.attribution.shapley.EXACT", EXACT - 1)
    values, errors, orders = shapley(of)
    assert errors is not None
    assert orders == 2_000
    assert values.sum() == pytest.approx(exact.sum())
    assert (abs(values - exact) < 4 * errors).all()
    assert 0 < errors.max() < 0.01
    again, _, _ = shapley(of)
    assert (again == values).all()


def test_above_twelve_campaigns_the_error_is_stated() -> None:
    fit = fitted(Model.SHAPLEY, random_paths(5, EXACT + 1))
    assert fit.orders == 2_000
    assert fit.errors is not None
    assert all(0 < error < 0.05 for error in fit.errors.values())
    assert sum(fit.shares.values()) == pytest.approx(1)


def test_paths_without_a_campaign() -> None:
    without = BY_HAND.without(G)
    assert without.campaigns == (M,)
    assert (sequences(without), without.count) == ([([0], 1, 0), ([0], 1, 0)], 2)
    assert BY_HAND.without(X) is BY_HAND


def test_the_removal_of_a_campaign_leaves_what_the_others_win() -> None:
    removal = removed(BY_HAND, G)
    assert removal.effect == pytest.approx(0.75)
    assert removal.shares == pytest.approx({M: 1.0})
    assert removed(BY_HAND, X).effect == 0
    alone = removed(of_sequences([([G], 1, 1)]), G)
    assert (alone.effect, alone.shares) == (1.0, {})


def test_what_was_used_least_lately_is_forgotten() -> None:
    made: list[str] = []

    def make(name: str) -> str:
        made.append(name)
        return name

    kept: Kept[str] = Kept(2)
    for name in ("a", "b", "a", "c", "a", "b"):
        assert kept.get(name, lambda name=name: make(name)) == name  # type: ignore[misc]
    assert made == ["a", "b", "c", "b"]
