"""Gamma-Gamma: how much a purchase of a customer is worth.

Fader and Hardie (2013), "The Gamma-Gamma Model of Monetary Value" (brucehardie.com, note 025). A
customer's purchases vary about its own mean, gamma(p, nu), with nu gamma(q, gamma) over customers;
how much is spent does not depend on how often. Fitted to those who bought again: to the mean of
their x purchases after the first, in units of money.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy  # its parts are loaded when they are first used

from projections.lifecycle.value.buying import Floats

STARTS = ((1.0, 1.0), (6.0, 4.0), (2.0, 10.0))
"""(p, q); gamma is set so that the mean is that of the data."""

_LOG_BOUND = 14.0


@dataclass(frozen=True, slots=True)
class Spenders:
    """Sufficient statistics: `n` customers bought x > 0 times again, for `mean` > 0 each time."""

    x: Floats
    mean: Floats
    n: Floats


@dataclass(frozen=True, slots=True)
class SpendingModel:
    """p of the purchase, q and gamma of the customers; and the log-likelihood of the fit."""

    p: float
    q: float
    gamma: float
    log_likelihood: float

    def expected(self, x: Floats, mean: Floats) -> Floats:
        """The mean value of a purchase to come: p (gamma + x·mean) ÷ (p x + q − 1).

        Between the customer's own mean and that of all, the nearer to the former the more it has
        bought. NaN where the model has no mean (p x + q ≤ 1).
        """
        below = self.p * x + self.q - 1
        with np.errstate(divide="ignore", invalid="ignore"):
            found: Floats = np.where(below > 0, self.p * (self.gamma + x * mean) / below, np.nan)
        return found


def fit(spenders: Spenders) -> SpendingModel | None:
    """The parameters of greatest likelihood, from several starts; None where none converges."""
    total = spenders.n.sum()
    scale = float((spenders.mean * spenders.n).sum() / total)
    if scale <= 0:
        return None
    scaled = Spenders(spenders.x, spenders.mean / scale, spenders.n)
    found = [
        scipy.optimize.minimize(
            _mean_loss,
            np.log([p, q, max(q - 1, 0.5) / p]),
            args=(scaled, total),
            jac=True,
            method="L-BFGS-B",
            bounds=[(-_LOG_BOUND, _LOG_BOUND)] * 3,
            options={"ftol": 1e-13, "gtol": 1e-7, "maxiter": 500},
        )
        for p, q in STARTS
    ]
    good = [one for one in found if np.isfinite(one.fun)]
    if not good:
        return None
    best: Any = min(good, key=lambda one: one.fun)
    p, q, gamma = (float(value) for value in np.exp(best.x))
    # The density of the mean in money is that of the scaled mean, divided by the scale.
    likelihood = -float(best.fun) * float(total) - float(total) * float(np.log(scale))
    return SpendingModel(p, q, gamma * scale, likelihood)


def _mean_loss(logs: Floats, spenders: Spenders, total: float) -> tuple[float, Floats]:
    """The negative mean log-likelihood and its gradient, by the logarithms of p, q, gamma: the
    published (1a)."""
    p, q, gamma = np.exp(logs)
    x, mean, n = spenders.x, spenders.mean, spenders.n
    log_mean, log_x, log_sum = np.log(mean), np.log(x), np.log(gamma + x * mean)
    likelihood = (
        scipy.special.gammaln(p * x + q)
        - scipy.special.gammaln(p * x)
        - scipy.special.gammaln(q)
        + q * np.log(gamma)
        + (p * x - 1) * log_mean
        + p * x * log_x
        - (p * x + q) * log_sum
    )
    whole = scipy.special.psi(p * x + q)
    slopes = np.array(
        [
            (n * x * (whole - scipy.special.psi(p * x) + log_mean + log_x - log_sum)).sum() * p,
            (n * (whole - scipy.special.psi(q) + np.log(gamma) - log_sum)).sum() * q,
            (n * (q / gamma - (p * x + q) / (gamma + x * mean))).sum() * gamma,
        ]
    )
    return -float((n * likelihood).sum() / total), -slopes / total
