"""BG/NBD and Gamma-Gamma against what was published on the CDNOW sample."""

from __future__ import annotations

from collections import defaultdict
from datetime import date
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import approx_fprime

from projections.lifecycle.value import buying, spending
from projections.lifecycle.value.buying import Buyers, BuyingModel
from projections.lifecycle.value.spending import Spenders
from tests.cdnow import CALIBRATION_ENDS, sampled_purchases

PUBLISHED = BuyingModel(r=0.243, alpha=4.414, a=0.793, b=2.426, log_likelihood=0.0)

TWO_MAXIMA = [
    *[(0, 0, days) for days in (
        2, 15, 39, 44, 77, 111, 242, 245, 282, 284, 327, 329, 389, 416, 426, 449, 464, 471, 505,
        514,
    )],
    (1, 25, 89), (1, 52, 323), (1, 98, 339), (1, 100, 198), (1, 124, 203), (1, 169, 320),
    (1, 276, 489), (1, 277, 481), (1, 287, 322), (1, 327, 345), (2, 3, 533), (2, 177, 388),
    (2, 254, 446), (2, 414, 420),
]  # fmt: skip
"""(x, t_x, T) of customers, in days."""


def histories() -> list[dict[date, Decimal]]:
    """What each customer of the sample spent, by day."""
    found: dict[str, dict[date, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
    for purchase in sampled_purchases(CALIBRATION_ENDS):
        found[purchase.customer][purchase.on] += purchase.amount
    return list(found.values())


def statistics() -> tuple[Buyers, Spenders]:
    x, t_x, T, mean = [], [], [], []  # noqa: N806
    for days in histories():
        first, *again = sorted(days)
        x.append(len(again))
        t_x.append((max(days) - first).days / 7)
        T.append((CALIBRATION_ENDS - first).days / 7)
        mean.append(float(sum(days[day] for day in again) / len(again)) if again else 0.0)
    bought_again = np.array(x) > 0
    ones = np.ones(len(x))
    return (
        Buyers(np.array(x, float), np.array(t_x), np.array(T), ones),
        Spenders(
            np.array(x, float)[bought_again], np.array(mean)[bought_again], ones[bought_again]
        ),
    )


def test_the_fit_on_cdnow_is_the_published_one() -> None:
    buyers, _ = statistics()
    assert len(buyers.x) == 2357
    model = buying.fit(buyers)
    assert model is not None
    assert (round(model.r, 3), round(model.alpha, 3)) == (0.243, 4.414)
    assert (round(model.a, 3), round(model.b, 3)) == (0.793, 2.426)
    assert model.log_likelihood == pytest.approx(-9582.4, abs=0.05)


def test_the_higher_of_two_maxima_is_found() -> None:
    """There is one at which all buy alike (alpha without bounds, −97.556), and a higher one."""
    x, t_x, T = np.array(TWO_MAXIMA, float).T  # noqa: N806
    model = buying.fit(Buyers(x, t_x / 7, T / 7, np.ones(len(x))))
    assert model is not None
    assert model.log_likelihood == pytest.approx(-97.5075, abs=0.0005)
    assert model.r < 2


def test_the_predictions_are_the_published_ones() -> None:
    history = np.array([2.0]), np.array([30.43]), np.array([38.86])
    for model in (PUBLISHED, buying.fit(statistics()[0])):
        assert model is not None
        assert model.expected(39.0, *history)[0] == pytest.approx(1.226, abs=0.0005)
        assert model.alive(*history)[0] == pytest.approx(0.7266, abs=0.0001)


def test_the_fit_of_spending_is_the_published_one() -> None:
    model = spending.fit(statistics()[1])
    assert model is not None
    assert (model.p, model.q, model.gamma) == pytest.approx((6.25, 3.74, 15.44), abs=0.02)


def test_equal_customers_may_be_counted_together() -> None:
    buyers, _ = statistics()
    rows, counts = np.unique(np.array([buyers.x, buyers.t_x, buyers.T]), axis=1, return_counts=True)
    x, t_x, T = rows  # noqa: N806
    together = buying.fit(Buyers(x, t_x, T, counts.astype(float)))
    one_by_one = buying.fit(buyers)
    assert together is not None
    assert one_by_one is not None
    assert together.log_likelihood == pytest.approx(one_by_one.log_likelihood, abs=1e-6)


POSITIVE = st.floats(0.05, 20.0)


@settings(max_examples=60)
@given(r=POSITIVE, alpha=POSITIVE, a=POSITIVE, b=POSITIVE, x=st.integers(0, 200))
def test_the_gradients_are_those_of_the_likelihoods(
    r: float, alpha: float, a: float, b: float, x: int
) -> None:
    one = np.ones(1)
    buyers = Buyers(x * one, (30.0 if x else 0.0) * one, 40 * one, one)
    logs = np.log([r, alpha, a, b])
    slope = approx_fprime(logs, lambda at: buying._mean_loss(at, buyers, 1.0)[0], 1e-7)
    assert buying._mean_loss(logs, buyers, 1.0)[1] == pytest.approx(slope, rel=1e-3, abs=1e-3)
    spenders = Spenders((x + 1) * one, 20 * one, one)
    logs = np.log([r, a, b])
    slope = approx_fprime(logs, lambda at: spending._mean_loss(at, spenders, 1.0)[0], 1e-7)
    assert spending._mean_loss(logs, spenders, 1.0)[1] == pytest.approx(slope, rel=1e-3, abs=1e-3)


@settings(max_examples=100)
@given(
    r=POSITIVE, alpha=POSITIVE, a=POSITIVE, b=POSITIVE,
    x=st.integers(0, 2000), t_x=st.floats(0.01, 1.0), weeks=st.floats(0.1, 500.0),
)  # fmt: skip
def test_expectations_are_numbers_that_grow_with_time(
    r: float, alpha: float, a: float, b: float, x: int, t_x: float, weeks: float
) -> None:
    model = BuyingModel(r, alpha, a, b, 0.0)
    one = np.ones(1)
    history = (x * one, (100 * t_x if x else 0.0) * one, 100 * one)
    assert 0 <= model.alive(*history)[0] <= 1
    soon, later = model.expected(weeks, *history)[0], model.expected(2 * weeks, *history)[0]
    assert np.isfinite([soon, later]).all()
    assert 0 <= soon <= later * (1 + 1e-3) + 1e-6


@pytest.mark.parametrize("a", [0.5, 1.0, 1.5, 3.0])
@pytest.mark.parametrize("x", [0, 1, 7])
def test_what_is_expected_is_the_mean_over_the_rates_and_the_dropouts(a: float, x: int) -> None:
    """E[Y(t)] by another way: given alive, the rate is gamma(r + x, alpha + T) and the chance to
    drop out beta(a, b + x − …); of those, (1 − e^(−λ p t)) ÷ p purchases are expected."""
    from scipy.stats import beta, gamma

    model = BuyingModel(0.5, 4.0, a, 2.5, 0.0)
    history = np.array([float(x)]), np.array([20.0 if x else 0.0]), np.array([40.0])

    def given_dropout(p: float) -> float:
        rate = gamma(0.5 + x, scale=1 / 44.0)
        # E[1 − e^(−λ p t)] over the gamma, by its Laplace transform
        return float((1 - (1 + p * 30 / 44.0) ** -(0.5 + x)) / p) if rate else 0.0

    mean, _ = quad(lambda p: given_dropout(p) * beta.pdf(p, a, 2.5 + x), 0, 1)
    assert model.expected(30.0, *history)[0] == pytest.approx(
        mean * model.alive(*history)[0], rel=1e-6
    )


@settings(max_examples=60)
@given(a=st.floats(0.1, 20), b=st.floats(0.1, 20), x=st.integers(0, 60), ahead=st.floats(0.01, 5))
def test_both_ways_to_the_mean_agree(a: float, b: float, x: int, ahead: float) -> None:
    model, one = BuyingModel(0.5, 4.0, a, b, 0.0), np.ones(1)
    closed = model._mean_closed(ahead * one, x * one)[0]
    assert model._mean_by_quantiles(ahead * one, x * one)[0] == pytest.approx(closed, rel=2e-3)


def test_the_next_purchase_is_when_one_is_expected() -> None:
    x, t_x, T = np.array([20.0, 0.0]), np.array([50.0, 0.0]), np.array([51.0, 51.0])  # noqa: N806
    weeks = PUBLISHED.weeks_to_next(x, t_x, T, within=104.0)
    assert PUBLISHED.expected(weeks[:1], x[:1], t_x[:1], T[:1])[0] == pytest.approx(1.0)
    assert np.isnan(weeks[1])
