"""What the funnel will bring, and when: by stage, by month, against whom."""

from __future__ import annotations

from calendar import monthrange
from dataclasses import dataclass
from datetime import date
from decimal import ROUND_HALF_EVEN, Decimal
from enum import StrEnum
from uuid import UUID
from zoneinfo import ZoneInfo

from domain.values import minor_units
from projections.funnel.pipelines import stages_in_order
from projections.reading import Connection, Moment, fetch, known, truth


class Timing(StrEnum):
    """How long a deal still takes in the stage it is in: half of the stage's time, or all of it."""

    HALF_ELAPSED = "half_elapsed"
    FULL_DURATION = "full_duration"


class MonthsBy(StrEnum):
    """Months counted from the date of the forecast, or those of the calendar."""

    RELATIVE = "relative"
    CALENDAR = "calendar"


@dataclass(frozen=True, slots=True)
class FunnelStage:
    """The open deals of a stage in the asked currency, and the suspended ones beside them."""

    stage: str
    deals: int
    amount: Decimal
    weighted: Decimal
    suspended: int


@dataclass(frozen=True, slots=True)
class CurrencyFunnel:
    """Open deals in a currency that was not asked for."""

    currency: str
    deals: int
    amount: Decimal
    weighted: Decimal


@dataclass(frozen=True, slots=True)
class Funnel:
    pipeline_id: UUID
    currency: str
    stages: list[FunnelStage]
    other_currencies: list[CurrencyFunnel]


@dataclass(frozen=True, slots=True)
class ForecastMonth:
    """Month `month` (1, 2, …), half-open [start, end); `expected` and its standard deviation."""

    month: int
    start: date
    end: date
    expected: Decimal
    sd: Decimal


@dataclass(frozen=True, slots=True)
class Forecast:
    """`total` and `sd` are over the months shown; what falls later is `beyond`."""

    pipeline_id: UUID
    currency: str
    timing: Timing
    by: MonthsBy
    months: list[ForecastMonth]
    total: Decimal
    sd: Decimal
    beyond: Decimal
    other_currencies: list[CurrencyFunnel]


@dataclass(frozen=True, slots=True)
class WinRate:
    """Deals decided with a competitor in play; `rate` = won ÷ (won + lost)."""

    competitor: str
    won: int
    lost: int
    rate: Decimal


@dataclass(frozen=True, slots=True)
class _Group:
    """Deals of the same stage, revision, currency and status: how many, the sums of their amounts
    and of the squares, their chance to win, and the months left under either timing."""

    stage: str
    currency: str
    status: str
    deals: int
    amount: Decimal
    squares: Decimal
    chance: Decimal
    half: Decimal
    full: Decimal


def _groups(connection: Connection, moment: Moment, pipeline_id: UUID) -> list[_Group]:
    rows = fetch(
        connection,
        f"""WITH stage AS (
                SELECT revision, stage, chance_to_win, duration_months,
                    coalesce(sum(duration_months) OVER (
                        PARTITION BY revision ORDER BY ordinal
                        ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING), 0) AS later
                FROM pipeline_stage_period
                WHERE pipeline_id = %(pipeline_id)s::uuid AND {known(moment)}),
            deals AS (
                SELECT stage, revision, currency, status, count(*) AS deals,
                    sum(amount) AS amount, sum(amount * amount) AS squares
                FROM deal_period
                WHERE pipeline_id = %(pipeline_id)s::uuid
                    AND status IN ('open', 'suspended') AND {truth(moment)}
                GROUP BY 1, 2, 3, 4)
            SELECT deals.stage, currency, status, deals, amount, squares,
                coalesce(chance_to_win, 0) AS chance,
                coalesce(duration_months / 2 + later, 0) AS half,
                coalesce(duration_months + later, 0) AS full
            FROM deals LEFT JOIN stage
                ON stage.revision = deals.revision AND stage.stage = deals.stage""",
        {**moment.parameters(), "pipeline_id": str(pipeline_id)},
    )
    return [_Group(**row) for row in rows]


def funnel(
    connection: Connection, moment: Moment, *, pipeline_id: UUID, currency: str
) -> Funnel | None:
    """Open deals by stage, in the pipeline's order; None for an unknown pipeline.

    Weighted: amount × chance to win from the stage on, of the revision the deal runs under, to
    the currency's minor unit. Stages of other revisions that deals are still in come last.
    """
    stages = stages_in_order(connection, pipeline_id, moment)
    if stages is None:
        return None
    groups = _groups(connection, moment, pipeline_id)
    own = [group for group in groups if group.currency == currency]
    stages = [*stages, *sorted({group.stage for group in own} - set(stages))]
    found = []
    for stage in stages:
        here = [group for group in own if group.stage == stage]
        opened = [group for group in here if group.status == "open"]
        suspended = sum(group.deals for group in here) - sum(group.deals for group in opened)
        found.append(FunnelStage(stage, *_sums(opened, currency), suspended))
    return Funnel(pipeline_id, currency, found, _others(groups, currency))


def _sums(groups: list[_Group], currency: str) -> tuple[int, Decimal, Decimal]:
    amount = sum((group.amount for group in groups), Decimal(0))
    weighted = sum((group.amount * group.chance for group in groups), Decimal(0))
    return (
        sum(group.deals for group in groups),
        _money(amount, currency),
        _money(weighted, currency),
    )


def _others(groups: list[_Group], currency: str) -> list[CurrencyFunnel]:
    opened = [group for group in groups if group.status == "open"]
    currencies = sorted({group.currency for group in opened} - {currency})
    return [
        CurrencyFunnel(other, *_sums([group for group in opened if group.currency == other], other))
        for other in currencies
    ]


def _money(value: Decimal, currency: str) -> Decimal:
    """To the minor unit, halves to the even one."""
    return value.quantize(Decimal(1).scaleb(-minor_units(currency)), ROUND_HALF_EVEN)


def forecast(
    connection: Connection,
    moment: Moment,
    *,
    pipeline_id: UUID,
    currency: str,
    timezone: ZoneInfo,
    timing: Timing = Timing.HALF_ELAPSED,
    months: int = 6,
    by: MonthsBy = MonthsBy.RELATIVE,
) -> Forecast | None:
    """Expected income of the open deals by month; None for an unknown pipeline.

    A deal of amount a and chance p is independent of the others and falls into one month, with
    expectation a·p and variance a²·p·(1 − p). The month is ⌈remaining months⌉, at least 1,
    counted from the day of `as_of` in `timezone`; by the calendar, it is the month in which that
    day lies after the remaining months, a fraction of a month counting 30 days to the unit.
    Suspended deals are left out.
    """
    if stages_in_order(connection, pipeline_id, moment) is None:
        return None
    groups = _groups(connection, moment, pipeline_id)
    today = moment.as_of.astimezone(timezone).date()
    starts = _month_starts(today, months, by)
    expected = [Decimal(0)] * (months + 1)
    variance = [Decimal(0)] * (months + 1)
    for group in groups:
        if group.currency != currency or group.status != "open":
            continue
        left = group.half if timing is Timing.HALF_ELAPSED else group.full
        month = min(_month_of(left, today, by), months + 1) - 1
        expected[month] += group.amount * group.chance
        variance[month] += group.squares * group.chance * (1 - group.chance)
    shown = [
        ForecastMonth(
            i + 1,
            starts[i],
            starts[i + 1],
            _money(expected[i], currency),
            _money(variance[i].sqrt(), currency),
        )
        for i in range(months)
    ]
    return Forecast(
        pipeline_id=pipeline_id,
        currency=currency,
        timing=timing,
        by=by,
        months=shown,
        total=sum((month.expected for month in shown), Decimal(0)),
        sd=_money(sum(variance[:months], Decimal(0)).sqrt(), currency),
        beyond=_money(expected[months], currency),
        other_currencies=_others(groups, currency),
    )


def _month_of(left: Decimal, today: date, by: MonthsBy) -> int:
    """The number of the month, from 1, in which a deal falls that takes `left` more months."""
    if by is MonthsBy.RELATIVE:
        return max(1, int(left.to_integral_value("ROUND_CEILING")))
    whole = int(left)
    days = int((left - whole) * 30)
    day = _later(today, whole).toordinal() + days
    falls = date.fromordinal(min(day, date.max.toordinal()))
    return (falls.year - today.year) * 12 + falls.month - today.month + 1


def _month_starts(today: date, months: int, by: MonthsBy) -> list[date]:
    first = today if by is MonthsBy.RELATIVE else today.replace(day=1)
    return [_later(first, number) for number in range(months + 1)]


def _later(day: date, months: int) -> date:
    """The same day so many months later, or the last one of that month."""
    year, month = divmod(day.year * 12 + day.month - 1 + months, 12)
    if year > date.max.year:
        return date.max
    return date(year, month + 1, min(day.day, monthrange(year, month + 1)[1]))


def win_rates(connection: Connection, moment: Moment) -> list[WinRate]:
    """Win rate by competitor, most deals first; deals without one are under `unknown`."""
    rows = fetch(
        connection,
        f"""SELECT coalesce(competitor, 'unknown') AS competitor,
            count(*) FILTER (WHERE status = 'won') AS won,
            count(*) FILTER (WHERE status = 'lost') AS lost,
            round(count(*) FILTER (WHERE status = 'won') / count(*)::numeric, 6) AS rate
            FROM deal_period WHERE status IN ('won', 'lost') AND {truth(moment)}
            GROUP BY 1 ORDER BY count(*) DESC, 1""",
        moment.parameters(),
    )
    return [WinRate(**row) for row in rows]
