"""How long customers stay in a value, those who are still there counted correctly."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from projections.lifecycle.classifications import VALUES, Classification
from projections.lifecycle.columns import columns
from projections.reading import Connection, Moment, known


@dataclass(frozen=True, slots=True)
class Duration:
    """Time spent in a value, in days: `periods` = `closed` + `open`.

    `mean_days` and `median_days` are of the closed periods alone, which makes them too short while
    some are open. The Kaplan–Meier figures count an open one as lasting longer than it has so far:
    `survival_median_days` is None where more than half outlast all that was seen, and
    `restricted_mean_days` is the mean time spent within the first `restricted_to_days` days, the
    longest seen.
    """

    value: str
    periods: int
    closed: int
    open: int
    mean_days: Decimal | None
    median_days: Decimal | None
    survival_median_days: Decimal | None
    restricted_mean_days: Decimal | None
    restricted_to_days: Decimal | None


def durations(
    connection: Connection, moment: Moment, *, classification: Classification
) -> list[Duration]:
    """Time spent in each value, up to `as_of`, values in order."""
    values = VALUES[classification]
    stays = columns(
        connection,
        f"""SELECT array_position(%(values)s::text[], value)::int4 AS value,
            (valid_to <= %(as_of)s)::int4 AS closed,
            (extract(epoch FROM least(valid_to, %(as_of)s) - valid_from) / 86400)::float8 AS days
            FROM standing_period WHERE classification = %(classification)s
            AND valid_from <= %(as_of)s AND {known(moment)}""",
        {
            **moment.parameters(),
            "classification": classification.value,
            "values": list(values),
        },
        {"value": "int4", "closed": "int4", "days": "float8"},
    )
    found = []
    for number, value in enumerate(values, 1):
        own = stays["value"] == number
        found.append(_duration(value, stays["days"][own], stays["closed"][own] == 1))
    return found


def _duration(value: str, days: NDArray[Any], closed: NDArray[Any]) -> Duration:
    ended, lasting = days[closed], days[~closed]
    plain: tuple[Decimal | None, Decimal | None] = (None, None)
    survival = plain
    restricted: Decimal | None = None
    if len(ended):
        plain = (_rounded(ended.mean()), _rounded(np.median(ended)))
    if len(days):
        restricted = _rounded(days.max())
        survival = _survival(ended, lasting)
    return Duration(
        value=value,
        periods=len(days),
        closed=len(ended),
        open=len(lasting),
        mean_days=plain[0],
        median_days=plain[1],
        survival_median_days=survival[0],
        restricted_mean_days=survival[1],
        restricted_to_days=restricted,
    )


def _survival(ended: NDArray[Any], lasting: NDArray[Any]) -> tuple[Decimal | None, Decimal | None]:
    """The Kaplan–Meier median, and the area under the curve up to the longest time seen."""
    if not len(ended):
        return None, _rounded(lasting.max())
    # Here, since projectors import this package and have no use for 60 MB of statistics.
    from scipy.stats import CensoredData, ecdf

    curve = ecdf(CensoredData(uncensored=ended, right=lasting)).sf
    times, still_there = curve.quantiles, curve.probabilities
    half = np.flatnonzero(still_there <= 0.5 + 1e-12)
    steps = np.diff(times, prepend=0.0)
    area = (steps * np.concatenate(([1.0], still_there[:-1]))).sum()
    return (_rounded(times[half[0]]) if len(half) else None), _rounded(area)


def _rounded(days: float) -> Decimal:
    return round(Decimal(repr(float(days))), 6)
