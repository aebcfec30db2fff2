"""BG/NBD: how often customers buy, and whether they still do.

Fader, Hardie and Lee (2005), "Counting Your Customers the Easy Way: An Alternative to the
Pareto/NBD Model", Marketing Science 24(2). While alive a customer buys at random at its own rate,
gamma(r, alpha) over customers; after each purchase it drops out with its own chance, beta(a, b).

Of a customer the model wants x, the number of purchases after the first; t_x, the time from the
first to the last; T, the time from the first until now. Times are in weeks, save where said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import scipy  # its parts are loaded when they are first used
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]

STARTS = ((0.3, 0.5, 3.0), (1.0, 1.0, 1.0), (0.1, 0.2, 5.0), (3.0, 1.0, 5.0))
"""(r, a, b); alpha is such that the mean rate of purchase, r ÷ alpha, is that of the histories. The
likelihood may have two maxima: of buyers that are all alike (large r) and of a few who buy (small
r)."""

_LOG_BOUNDS = ((-12.0, 12.0), (-12.0, 12.0), (-7.0, 7.0), (-7.0, 7.0))
"""Of r, alpha, a, b. Larger a and b say the same: that all customers drop out alike."""
_MANY, _COARSE_WEEKS = 20_000, 8.0
_NUDGE = 1e-7
"""Added where a formula has a removable singularity."""
_NODES = 48
_LARGE = 150.0
"""From here on the gamma functions within ₂F₁ overflow."""


@dataclass(frozen=True, slots=True)
class Buyers:
    """Sufficient statistics: `n` customers have the same x, t_x and T. Equally long columns."""

    x: Floats
    t_x: Floats
    T: Floats
    n: Floats


@dataclass(frozen=True, slots=True)
class BuyingModel:
    """r and alpha of the rate, a and b of dropping out; and the log-likelihood of the fit."""

    r: float
    alpha: float
    a: float
    b: float
    log_likelihood: float

    def alive(self, x: Floats, t_x: Floats, T: Floats) -> Floats:  # noqa: N803  (its name in the field)
        """The chance that the customer has not dropped out; 1 after the first purchase only."""
        found: Floats = scipy.special.expit(-self._log_odds_of_dropout(x, t_x, T))
        return found

    def expected(self, weeks: float | Floats, x: Floats, t_x: Floats, T: Floats) -> Floats:  # noqa: N803
        """E[Y(t)]: purchases expected within the next `weeks`.

        It is the chance to be alive times the mean, over the dropout chance p ~ beta(a, b + x), of
        f(p) = (1 − (1 + p·t ÷ (alpha + T))^−(r + x)) ÷ p. The published (10) has this mean as a
        ₂F₁, which stands here after Euler's transformation: so x is in the third argument alone.
        """
        weeks = np.broadcast_to(np.asarray(weeks, float), x.shape)
        ahead = weeks / (self.alpha + T)
        mean = self._mean_closed(ahead, x)
        odd = ~np.isfinite(mean) | (self.a + self.b + x > _LARGE)
        if odd.any():
            mean[odd] = self._mean_by_quantiles(ahead[odd], x[odd])
        found: Floats = np.clip(mean, 0.0, (self.r + x) * ahead) * self.alive(x, t_x, T)
        return found

    def _mean_closed(self, ahead: Floats, x: Floats) -> Floats:
        a = self.a if abs(self.a - 1) >= _NUDGE else 1 + 2 * _NUDGE
        c = a + self.b + x - 1
        c = np.where(np.abs(c) < _NUDGE, 2 * _NUDGE, c)
        z = ahead / (1 + ahead)
        with np.errstate(all="ignore"):  # what is no number is found by the other way
            mean: Floats = (
                c
                / (a - 1)
                * (1 - (1 - z) ** (a - 1) * scipy.special.hyp2f1(c - self.r - x, a - 1, c, z))
            )
        return mean

    def _mean_by_quantiles(self, ahead: Floats, x: Floats) -> Floats:
        """The mean of f over the quantiles of p, by Gauss and Legendre; for arguments that the
        library's ₂F₁ overflows at."""
        nodes, weights = np.polynomial.legendre.leggauss(_NODES)
        different, which = np.unique(x, return_inverse=True)
        p = np.maximum(
            scipy.special.betaincinv(self.a, self.b + different[:, None], (nodes + 1) / 2), 1e-12
        )
        found: Floats = np.zeros(len(x))
        for node, weight in enumerate(weights / 2):
            chance = p[which, node]
            found -= weight * np.expm1(-(self.r + x) * np.log1p(chance * ahead)) / chance
        return found

    def weeks_to_next(self, x: Floats, t_x: Floats, T: Floats, within: float) -> Floats:  # noqa: N803
        """The time in which one purchase is expected: E[Y(t)] = 1; NaN if not `within` so long."""
        low, high = np.zeros_like(x), np.full_like(x, within)
        reached = self.expected(high, x, t_x, T) >= 1
        for _ in range(40):  # within 10⁻⁹ of any time that matters
            middle = (low + high) / 2
            enough = self.expected(middle, x, t_x, T) >= 1
            high, low = np.where(enough, middle, high), np.where(enough, low, middle)
        return np.where(reached, high, np.nan)

    def _log_odds_of_dropout(self, x: Floats, t_x: Floats, T: Floats) -> Floats:  # noqa: N803
        again = np.maximum(x, 1)
        odds = (
            np.log(self.a)
            - np.log(self.b + again - 1)
            + (self.r + x) * (np.log(self.alpha + T) - np.log(self.alpha + t_x))
        )
        return np.where(x > 0, odds, -np.inf)


def fit(buyers: Buyers) -> BuyingModel | None:
    """The parameters of greatest likelihood, from several starts; None where none converges.

    The search is in logarithms, by the exact gradient. Of very many histories the best start is
    found on coarser ones.
    """
    mean_weeks = float((buyers.T * buyers.n).sum() / buyers.n.sum())
    if mean_weeks <= 0:
        return None
    rate = max(float((buyers.x * buyers.n).sum() / buyers.n.sum()), 0.01) / mean_weeks
    low, high = np.transpose(_LOG_BOUNDS)
    starts = [np.clip(np.log([r, r / rate, a, b]), low, high) for r, a, b in STARTS]
    if len(buyers.x) > _MANY:
        found = _best(_coarser(buyers, _COARSE_WEEKS), starts)
        starts = [] if found is None else [found.x]
    best = _best(buyers, starts)
    if best is None:
        return None
    r, alpha, a, b = (float(value) for value in np.exp(best.x))
    return BuyingModel(r, alpha, a, b, log_likelihood=-float(best.fun) * float(buyers.n.sum()))


def _best(buyers: Buyers, starts: Sequence[Floats]) -> Any:
    found = [
        scipy.optimize.minimize(
            _mean_loss,
            start,
            args=(buyers, buyers.n.sum()),
            jac=True,
            method="L-BFGS-B",
            bounds=_LOG_BOUNDS,
            options={"ftol": 1e-13, "gtol": 1e-7, "maxiter": 500},
        )
        for start in starts
    ]
    good = [one for one in found if np.isfinite(one.fun)]
    return min(good, key=lambda one: one.fun) if good else None


def _coarser(buyers: Buyers, weeks: float) -> Buyers:
    """Times in multiples of so many weeks."""
    rows = np.stack([buyers.x, np.rint(buyers.t_x / weeks), np.rint(buyers.T / weeks)])
    different, which = np.unique(rows, axis=1, return_inverse=True)
    n: Floats = np.bincount(which.ravel(), weights=buyers.n).astype(np.float64)
    return Buyers(different[0], different[1] * weeks, different[2] * weeks, n)


def _mean_loss(logs: Floats, buyers: Buyers, total: float) -> tuple[float, Floats]:
    """The negative mean log-likelihood and its gradient, by the logarithms of r, alpha, a, b.

    The published (6): ln L = ln A₁ + ln A₂ + ln(A₃ + [x > 0] A₄), the sum taken in logarithms.
    """
    r, alpha, a, b = np.exp(logs)
    x, t_x, T, n = buyers.x, buyers.t_x, buyers.T, buyers.n  # noqa: N806
    again = np.maximum(x, 1)
    log_T, log_t_x = np.log(alpha + T), np.log(alpha + t_x)  # noqa: N806
    ended = -(r + x) * log_T
    dropped = np.where(x > 0, np.log(a) - np.log(b + again - 1) - (r + x) * log_t_x, -np.inf)
    either = np.logaddexp(ended, dropped)
    likelihood = (
        scipy.special.gammaln(r + x)
        - scipy.special.gammaln(r)
        + r * np.log(alpha)
        + scipy.special.gammaln(a + b)
        + scipy.special.gammaln(b + x)
        - scipy.special.gammaln(b)
        - scipy.special.gammaln(a + b + x)
        + either
    )
    lives, dead = np.exp(ended - either), np.exp(dropped - either)
    both = scipy.special.psi(a + b) - scipy.special.psi(a + b + x)
    slopes = np.array(
        [
            (
                n
                * (
                    scipy.special.psi(r + x)
                    - scipy.special.psi(r)
                    + np.log(alpha)
                    - lives * log_T
                    - dead * log_t_x
                )
            ).sum()
            * r,
            (n * (r / alpha - (r + x) * (lives / (alpha + T) + dead / (alpha + t_x)))).sum()
            * alpha,
            (n * (both + dead / a)).sum() * a,
            (
                n
                * (both + scipy.special.psi(b + x) - scipy.special.psi(b) - dead / (b + again - 1))
            ).sum()
            * b,
        ]
    )
    return -float((n * likelihood).sum() / total), -slopes / total
