"""What the open deals will bring, month by month."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Final
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from domain.definitions import ForecastDefinition
from domain.values import minor_units
from projections.funnel.counting import DAYS
from projections.funnel.fits import Fit, Fits, Sample
from projections.funnel.months import MonthsBy, Timing, month_of, month_starts, months_left
from projections.funnel.open_deals import (
    Grouping,
    OpenDeals,
    Pipelines,
    WonDeals,
    open_deals,
    pipelines_known,
    won_deals,
)
from projections.funnel.outlook import CurrencyFunnel
from projections.funnel.pipelines import revision_of
from projections.funnel.rates import Conversion, Rate, conversion
from projections.funnel.spread import DRAWS, LEVELS, Floats, Spread, spread, variance
from projections.reading import Connection, Moment

CATEGORIES: Final = ("commit", "best_case", "pipeline")
_DRAWS_OF_GROUPS: Final = 2_000


@dataclass(frozen=True, slots=True)
class Interval:
    """It lies within with chance `level`; above and below with equal ones."""

    level: float
    low: Decimal
    high: Decimal


@dataclass(frozen=True, slots=True)
class Sums:
    """`expected` and `sd` are exact, median and intervals of the distribution that `spread` finds.

    `commit`, `best_case` and `pipeline` are the parts of `expected` from deals with such a chance
    to win, each to the minor unit; `closed` was signed in the time the sums are over, and is in
    none of them.
    """

    expected: Decimal
    sd: Decimal
    median: Decimal
    intervals: list[Interval]
    closed: Decimal
    commit: Decimal
    best_case: Decimal
    pipeline: Decimal


@dataclass(frozen=True, slots=True)
class ForecastMonth:
    """Month `month` (1, 2, …), half-open [start, end)."""

    month: int
    start: date
    end: date
    sums: Sums


@dataclass(frozen=True, slots=True)
class Category:
    """Open deals by their chance to win, whenever that may be."""

    category: str
    deals: int
    amount: Decimal
    expected: Decimal


@dataclass(frozen=True, slots=True)
class Outlook:
    """`total` is over the months shown; what falls later is `beyond`."""

    months: list[ForecastMonth]
    total: Sums
    beyond: Decimal
    deals: int
    categories: list[Category]


@dataclass(frozen=True, slots=True)
class Forecast:
    """`revision`: of the pipeline asked for, at the moment."""

    pipeline_id: UUID | None
    revision: int | None
    currency: str
    timing: Timing
    by: MonthsBy
    outlook: Outlook
    groups: list[tuple[str | None, Outlook]]
    other_currencies: list[CurrencyFunnel]
    rates: list[Rate]
    samples: list[Sample]


@dataclass(frozen=True, slots=True)
class _Expected:
    """What is to come of the groups of open deals, one element each: amounts in the currency asked
    for (exact, and as floats) and the factor they were converted by, chances to win in each month
    and at all. By definition all deals of a kind have one chance, `defined`, and a group falls into
    one month, `falls` (from 0; what lies beyond comes last); where that is learned, it is -1."""

    deals: OpenDeals
    amounts: list[Decimal]
    floats: Floats
    factors: Floats
    chances: Floats
    by_month: Floats
    defined: list[Decimal]
    falls: NDArray[np.intp]


def forecast(
    connection: Connection,
    moment: Moment,
    *,
    pipeline_id: UUID | None,
    currency: str,
    timezone: ZoneInfo,
    definition: ForecastDefinition | None = None,
    timing: Timing = Timing.HALF_ELAPSED,
    months: int = 6,
    by: MonthsBy = MonthsBy.RELATIVE,
    grouping: Grouping | None = None,
    convert: bool = False,
    fits: Fits | None = None,
) -> Forecast | None:
    """Expected income of the open deals of a pipeline, or of all, by month; None for an unknown
    pipeline.

    A deal of amount a and chance p of a month is independent of the others, with expectation a·p
    and variance a²·p·(1 − p) there. By definition it falls into one month: ⌈remaining months⌉, at
    least 1, counted from the day of `as_of` in `timezone`; by the calendar, that in which the day
    lies after the remaining months, a fraction of a month counting 30 days to the unit. Suspended
    deals are left out. What is learned, is learned from the days before (`Fits`).
    """
    definition = definition or ForecastDefinition()
    fits = fits or Fits()
    pipelines = pipelines_known(connection, moment)
    if pipeline_id is not None and pipeline_id not in pipelines.revisions:
        return None
    today = moment.as_of.astimezone(timezone).date()
    starts = month_starts(today, months, by)
    ages = timing in (Timing.AGED, Timing.LEARNED)
    found = open_deals(connection, moment, pipeline_id=pipeline_id, grouping=grouping, ages=ages)
    converted = (
        conversion(connection, moment, currency, timezone) if convert else Conversion(currency, {})
    )
    won = won_deals(
        connection, moment, pipeline_id=pipeline_id, grouping=grouping, start=starts[0],
        end=starts[-1],
    )  # fmt: skip
    learned: dict[UUID, _Learned] = {}
    if timing is Timing.LEARNED:
        wanted = {one.pipeline_id for one in found.kinds}
        wanted |= {pipeline_id} if pipeline_id else set()
        days = [(end - today).days for end in starts[1:]]
        for one in sorted(wanted):
            fit = fits.fit(connection, moment, one, pipelines, definition, timezone)
            learned[one] = _Learned(fit, fit.within(days))
    own = np.array([converted.factor(one.currency) is not None for one in found.kinds], bool)
    expected = _expect(found, converted, pipelines, learned, timing, months, by, today)
    kept = [one for one in won if converted.factor(one.currency) is not None]
    whole = _outlook(expected, own, kept, converted, starts, definition, DRAWS)
    kinds = [one for one, convertible in zip(found.kinds, own, strict=True) if convertible]
    groups = []
    if grouping is not None:
        names = {one.group for one in kinds} | {one.group for one in kept}
        for name in sorted(names, key=lambda each: (each is None, each or "")):
            part = _outlook(
                expected, own & np.array([one.group == name for one in found.kinds], bool),
                [one for one in kept if one.group == name], converted, starts, definition,
                _DRAWS_OF_GROUPS,
            )  # fmt: skip
            groups.append((name, part))
    used = {one.currency for one in kinds} | {one.currency for one in kept}
    return Forecast(
        pipeline_id=pipeline_id,
        revision=None if pipeline_id is None else revision_of(connection, pipeline_id, moment),
        currency=currency,
        timing=timing,
        by=by,
        outlook=whole,
        groups=groups,
        other_currencies=_others(found, converted, pipelines),
        rates=converted.used(used),
        samples=[one.fit.sample for one in learned.values()],
    )


# ---- chances ----


@dataclass(frozen=True, slots=True)
class _Learned:
    fit: Fit
    within: Floats


def _expect(
    deals: OpenDeals,
    converted: Conversion,
    pipelines: Pipelines,
    learned: dict[UUID, _Learned],
    timing: Timing,
    months: int,
    by: MonthsBy,
    today: date,
) -> _Expected:
    size = len(deals.deals)
    factors, chances = np.zeros(size), np.zeros(size)
    by_month = np.zeros((size, months + 1))
    falls = np.full(size, -1)
    chance_of, amounts = [], []
    for kind, places in zip(deals.kinds, deals.of_kinds(), strict=True):
        factor = converted.factor(kind.currency)
        factors[places] = 0 if factor is None else float(factor)
        amounts += [
            Decimal(0) if factor is None else converted.amount(amount, kind.currency)
            for amount in deals.amounts[places]
        ]
        ages = deals.age_days[places]
        model = learned.get(kind.pipeline_id)
        stage = model.fit.model.stage(kind.stage) if model and model.fit.sample.used else None
        if model is not None and stage is not None:
            chance_of.append(Decimal(0))
            ages = np.minimum(ages, DAYS)
            ever = model.fit.ever[stage, ages]
            within = np.minimum(model.within[stage, ages], ever[:, None])
            chances[places] = ever
            by_month[places, :-1] = np.diff(within, axis=1, prepend=0.0)
            by_month[places, -1] = ever - within[:, -1]
            continue
        defined = pipelines.stage(kind.pipeline_id, kind.revision, kind.stage)
        ages, of_age = np.unique(ages, return_inverse=True)
        months_of_ages = [
            min(month_of(months_left(
                Timing.AGED if timing is Timing.LEARNED else timing,
                defined.duration, defined.later, age,
            ), today, by), months + 1) - 1
            for age in ages.tolist()
        ]  # fmt: skip
        chance_of.append(defined.chance)
        falls[places] = np.array(months_of_ages)[of_age]
        chances[places] = float(defined.chance)
        by_month[np.arange(size)[places], falls[places]] = float(defined.chance)
    floats = np.array(amounts, np.float64)
    return _Expected(deals, amounts, floats, factors, chances, by_month, chance_of, falls)


# ---- sums ----


def _outlook(
    expected: _Expected,
    kinds: NDArray[np.bool_],
    won: Sequence[WonDeals],
    converted: Conversion,
    starts: Sequence[date],
    definition: ForecastDefinition,
    draws: int,
) -> Outlook:
    """Of the deals of some kinds."""
    where = np.flatnonzero(kinds[expected.deals.kind])
    months = len(starts) - 1
    unit = converted.currency
    by_category, categories = _by_category(expected, where, months, definition, unit)
    deals, by_month = expected.deals.deals[where], expected.by_month[where]
    squares = expected.deals.squares[where] * expected.factors[where] ** 2
    amounts = expected.floats[where] / np.maximum(deals, 1)

    def sums(parts: list[Decimal], chances: Floats, since: date, until: date, stream: int) -> Sums:
        found = spread(deals, chances, amounts, stream=stream, draws=draws)
        return Sums(
            expected=_money(sum(parts, Decimal(0)), unit),
            sd=_money(Decimal(variance(squares, chances)).sqrt(), unit),
            median=_money(Decimal(found.median), unit),
            intervals=_intervals(found, unit),
            closed=_closed(won, converted, since, until),
            commit=_money(parts[0], unit),
            best_case=_money(parts[1], unit),
            pipeline=_money(parts[2], unit),
        )

    shown = [
        ForecastMonth(
            month + 1,
            starts[month],
            starts[month + 1],
            sums(
                [by_category[name][month] for name in CATEGORIES],
                by_month[:, month],
                starts[month],
                starts[month + 1],
                month + 1,
            ),
        )
        for month in range(months)
    ]
    whole = sums(
        [sum((by_category[name][month] for month in range(months)), Decimal(0))
         for name in CATEGORIES],
        by_month[:, :-1].sum(axis=1), starts[0], starts[-1], 0,
    )  # fmt: skip
    # Rounded months add up.
    total = replace(whole, expected=sum((month.sums.expected for month in shown), Decimal(0)))
    beyond = sum((by_category[name][months] for name in CATEGORIES), Decimal(0))
    return Outlook(shown, total, _money(beyond, unit), int(deals.sum()), categories)


def _by_category(
    expected: _Expected,
    where: NDArray[np.intp],
    months: int,
    definition: ForecastDefinition,
    unit: str,
) -> tuple[dict[str, list[Decimal]], list[Category]]:
    """Expected income by category and month, the last one being what lies beyond."""
    kinds, falls = expected.deals.kind[where], expected.falls[where]
    limits = [definition.best_case_chance, definition.commit_chance]
    category = len(limits) - np.searchsorted(
        np.array([_least(limit) for limit in limits]), expected.chances[where], "right"
    )
    of_kind = [sum(chance < limit for limit in limits) for chance in expected.defined]
    category[falls >= 0] = np.array(of_kind, int)[kinds[falls >= 0]]
    alike: defaultdict[tuple[int, int, int], Decimal] = defaultdict(Decimal)
    for key, place in zip(
        zip(category.tolist(), kinds.tolist(), falls.tolist(), strict=True), where.tolist(),
        strict=True,
    ):  # fmt: skip
        alike[key] += expected.amounts[place]
    sums = [[Decimal(0)] * (months + 1) for _ in CATEGORIES]
    amounts = [Decimal(0)] * len(CATEGORIES)
    for (number, kind, month), amount in alike.items():
        amounts[number] += amount
        if month >= 0:
            sums[number][month] += amount * expected.defined[kind]
    learned = expected.floats[where, None] * expected.by_month[where]
    learned[falls >= 0] = 0
    for number, of in enumerate(sums):
        about = learned[category == number].sum(axis=0).tolist()
        sums[number] = [one + Decimal(more) for one, more in zip(of, about, strict=True)]
    deals = np.bincount(category, expected.deals.deals[where], len(CATEGORIES)).astype(int)
    return dict(zip(CATEGORIES, sums, strict=True)), [
        Category(
            name, int(deals[number]), _money(amounts[number], unit),
            _money(sum(sums[number], Decimal(0)), unit),
        )
        for number, name in enumerate(CATEGORIES)
    ]  # fmt: skip


def _least(chance: Decimal) -> float:
    """The least chance that is not below this one."""
    found = float(chance)
    return found if Decimal(found) >= chance else float(np.nextafter(found, np.inf))


def _intervals(found: Spread, unit: str) -> list[Interval]:
    return [
        Interval(level, _money(Decimal(low), unit), _money(Decimal(high), unit))
        for level, (low, high) in zip(LEVELS, found.intervals, strict=True)
    ]


def _closed(won: Sequence[WonDeals], converted: Conversion, since: date, until: date) -> Decimal:
    found = sum(
        (
            converted.amount(one.amount, one.currency)
            for one in won
            if since <= one.signed_on < until
        ),
        Decimal(0),
    )
    return _money(found, converted.currency)


def _others(found: OpenDeals, converted: Conversion, pipelines: Pipelines) -> list[CurrencyFunnel]:
    others: dict[str, CurrencyFunnel] = {}
    for kind, places in zip(found.kinds, found.of_kinds(), strict=True):
        if converted.factor(kind.currency) is not None:
            continue
        chance = pipelines.stage(kind.pipeline_id, kind.revision, kind.stage).chance
        before = others.get(kind.currency, CurrencyFunnel(kind.currency, 0, Decimal(0), Decimal(0)))
        amount = sum(found.amounts[places], Decimal(0))
        others[kind.currency] = CurrencyFunnel(
            kind.currency,
            before.deals + int(found.deals[places].sum()),
            before.amount + amount,
            before.weighted + amount * chance,
        )
    return [others[currency] for currency in sorted(others)]


def _money(value: Decimal, currency: str) -> Decimal:
    """To the minor unit, halves to the even one."""
    return value.quantize(Decimal(1).scaleb(-minor_units(currency)), ROUND_HALF_EVEN)
