"""What the open deals will bring, month by month."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Final
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy as np

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
    """Groups of open deals and what is to come of each: their chances to win in each month and at
    all. `exact`: the month (from 0; what lies beyond comes last) and the chance by definition."""

    deals: list[OpenDeals]
    amounts: list[Decimal]
    factors: Floats
    chances: Floats
    by_month: Floats
    exact: list[tuple[int, Decimal] | None]


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
        wanted = {one.pipeline_id for one in found} | ({pipeline_id} if pipeline_id else set())
        days = [(end - today).days for end in starts[1:]]
        for one in sorted(wanted):
            fit = fits.fit(connection, moment, one, pipelines, definition, timezone)
            learned[one] = _Learned(fit, fit.within(days))
    own = [one for one in found if converted.factor(one.currency) is not None]
    expected = _expect(own, converted, pipelines, learned, timing, months, by, today)
    kept = [one for one in won if converted.factor(one.currency) is not None]
    whole = _outlook(expected, None, kept, converted, starts, definition, DRAWS)
    groups = []
    if grouping is not None:
        names = {one.group for one in own} | {one.group for one in kept}
        for name in sorted(names, key=lambda each: (each is None, each or "")):
            places = [place for place, one in enumerate(own) if one.group == name]
            part = _outlook(
                expected, places, [one for one in kept if one.group == name], converted, starts,
                definition, _DRAWS_OF_GROUPS,
            )  # fmt: skip
            groups.append((name, part))
    used = {one.currency for one in own} | {one.currency for one in kept}
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
    deals: list[OpenDeals],
    converted: Conversion,
    pipelines: Pipelines,
    learned: dict[UUID, _Learned],
    timing: Timing,
    months: int,
    by: MonthsBy,
    today: date,
) -> _Expected:
    chances = np.zeros(len(deals))
    by_month = np.zeros((len(deals), months + 1))
    exact: list[tuple[int, Decimal] | None] = []
    amounts, factors = [], []
    for place, one in enumerate(deals):
        factor = converted.factor(one.currency) or Decimal(0)
        amounts.append(converted.amount(one.amount, one.currency))
        factors.append(float(factor))
        model = learned.get(one.pipeline_id)
        stage = model.fit.model.stage(one.stage) if model and model.fit.sample.used else None
        if model is not None and stage is not None:
            age = min(one.age_days, DAYS)
            chances[place] = model.fit.ever[stage, age]
            within = np.minimum(model.within[stage, age], chances[place])
            by_month[place, :-1] = np.diff(within, prepend=0.0)
            by_month[place, -1] = chances[place] - within[-1]
            exact.append(None)
            continue
        defined = pipelines.stage(one.pipeline_id, one.revision, one.stage)
        left = months_left(
            Timing.AGED if timing is Timing.LEARNED else timing,
            defined.duration, defined.later, one.age_days,
        )  # fmt: skip
        month = min(month_of(left, today, by), months + 1) - 1
        chances[place] = by_month[place, month] = float(defined.chance)
        exact.append((month, defined.chance))
    return _Expected(deals, amounts, np.array(factors), chances, by_month, exact)


# ---- sums ----


def _outlook(
    expected: _Expected,
    places: list[int] | None,
    won: Sequence[WonDeals],
    converted: Conversion,
    starts: Sequence[date],
    definition: ForecastDefinition,
    draws: int,
) -> Outlook:
    chosen = range(len(expected.deals)) if places is None else places
    where = np.fromiter(chosen, np.intp)
    months = len(starts) - 1
    unit = converted.currency
    by_category, categories = _by_category(expected, chosen, months, definition, unit)
    deals = np.array([expected.deals[place].deals for place in chosen], np.int64)
    factors, by_month = expected.factors[where], expected.by_month[where]
    squares = np.array([expected.deals[place].squares for place in chosen]) * factors**2
    amounts = np.array([float(expected.amounts[place]) for place in chosen]) / np.maximum(deals, 1)

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
    chosen: Iterable[int],
    months: int,
    definition: ForecastDefinition,
    unit: str,
) -> tuple[dict[str, list[Decimal]], list[Category]]:
    """Expected income by category and month, the last one being what lies beyond."""
    exact = {name: [Decimal(0)] * (months + 1) for name in CATEGORIES}
    about = {name: np.zeros(months + 1) for name in CATEGORIES}
    deals = dict.fromkeys(CATEGORIES, 0)
    amounts = dict.fromkeys(CATEGORIES, Decimal(0))
    for place in chosen:
        amount, by_definition = expected.amounts[place], expected.exact[place]
        if by_definition is not None:
            month, chance = by_definition
            name = _category(chance, definition)
            exact[name][month] += amount * chance
        else:
            name = _category(Decimal(float(expected.chances[place])), definition)
            about[name] += float(amount) * expected.by_month[place]
        deals[name] += expected.deals[place].deals
        amounts[name] += amount
    sums = {
        name: [
            one + Decimal(float(more)) for one, more in zip(exact[name], about[name], strict=True)
        ]
        for name in CATEGORIES
    }
    return sums, [
        Category(
            name, deals[name], _money(amounts[name], unit),
            _money(sum(sums[name], Decimal(0)), unit),
        )
        for name in CATEGORIES
    ]  # fmt: skip


def _category(chance: Decimal, definition: ForecastDefinition) -> str:
    if chance >= definition.commit_chance:
        return "commit"
    return "best_case" if chance >= definition.best_case_chance else "pipeline"


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


def _others(
    found: list[OpenDeals], converted: Conversion, pipelines: Pipelines
) -> list[CurrencyFunnel]:
    others: dict[str, CurrencyFunnel] = {}
    for one in found:
        if converted.factor(one.currency) is not None:
            continue
        chance = pipelines.stage(one.pipeline_id, one.revision, one.stage).chance
        before = others.get(one.currency, CurrencyFunnel(one.currency, 0, Decimal(0), Decimal(0)))
        others[one.currency] = CurrencyFunnel(
            one.currency,
            before.deals + one.deals,
            before.amount + one.amount,
            before.weighted + one.amount * chance,
        )
    return [others[currency] for currency in sorted(others)]


def _money(value: Decimal, currency: str) -> Decimal:
    """To the minor unit, halves to the even one."""
    return value.quantize(Decimal(1).scaleb(-minor_units(currency)), ROUND_HALF_EVEN)
