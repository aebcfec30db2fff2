"""What customers abroad pay in, and what that is worth."""

from __future__ import annotations

from typing import Final

FOREIGN: Final = ("EUR", "USD")
_DOLLARS: Final = {
    "CHF": 1.13,
    "CNY": 0.139,
    "EUR": 1.08,
    "GBP": 1.27,
    "JPY": 0.0067,
    "USD": 1.0,
}
"""About what one is worth at the beginning."""


def foreign_currencies(own: str) -> tuple[str, ...]:
    """Those of customers abroad; none where we do not know what our own is worth."""
    return tuple(code for code in FOREIGN if code != own) if own in _DOLLARS else ()


def worth(currency: str, own: str) -> float:
    """About what one unit of `currency` is worth in `own` at the beginning; both are known."""
    return _DOLLARS[currency] / _DOLLARS[own]
