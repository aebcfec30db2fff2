"""What is in the funnel, by stage, and how deals were won against whom."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import ROUND_HALF_EVEN, Decimal
from uuid import UUID

from domain.values import minor_units
from projections.funnel.deals import DealFold
from projections.funnel.pipelines import revision_of, stages_in_order
from projections.funnel.rates import Conversion, Rate
from projections.reading import Connection, Moment, fetch, known, truth
from projections.summaries import net

_DEALS = DealFold.periods[0]


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
    """`revision`: of the pipeline, at the moment."""

    pipeline_id: UUID
    revision: int
    currency: str
    stages: list[FunnelStage]
    other_currencies: list[CurrencyFunnel]
    rates: list[Rate]


@dataclass(frozen=True, slots=True)
class WinRate:
    """Deals decided with a competitor in play; `rate` = won ÷ (won + lost)."""

    competitor: str
    won: int
    lost: int
    rate: Decimal


@dataclass(frozen=True, slots=True)
class _Group:
    """Deals of the same stage, revision, currency and status: how many, the sum of their amounts,
    and their chance to win."""

    stage: str
    currency: str
    status: str
    deals: int
    amount: Decimal
    chance: Decimal


def _groups(connection: Connection, moment: Moment, pipeline_id: UUID) -> list[_Group]:
    where = "pipeline_id = %(pipeline_id)s::uuid"
    deals = net(connection, moment, DealFold, _DEALS, where)
    rows = fetch(
        connection,
        f"""WITH stage AS (
                SELECT revision, stage, chance_to_win
                FROM pipeline_stage_period
                WHERE pipeline_id = %(pipeline_id)s::uuid AND {known(moment)}),
            deals AS ({deals})
            SELECT deals.stage, currency, status, rows AS deals, amount,
                coalesce(chance_to_win, 0) AS chance
            FROM deals LEFT JOIN stage
                ON stage.revision = deals.revision AND stage.stage = deals.stage""",
        {**moment.parameters(), "pipeline_id": str(pipeline_id)},
    )
    return [_Group(**row) for row in rows]


def funnel(
    connection: Connection,
    moment: Moment,
    *,
    pipeline_id: UUID,
    currency: str,
    converted: Conversion | None = None,
) -> Funnel | None:
    """Open deals by stage, in the pipeline's order; None for an unknown pipeline.

    Weighted: amount × chance to win from the stage on, of the revision the deal runs under, to
    the currency's minor unit. Stages of other revisions that deals are still in come last. With a
    conversion into `currency`, amounts in others are in the sums where there is a rate.
    """
    revision = revision_of(connection, pipeline_id, moment)
    if revision is None:
        return None
    stages = stages_in_order(connection, pipeline_id, moment, revision)
    groups = _groups(connection, moment, pipeline_id)
    converted = converted or Conversion(currency, {})
    others = [group for group in groups if converted.factor(group.currency) is None]
    own = [group for group in groups if converted.factor(group.currency) is not None]
    rates = converted.used(group.currency for group in own)
    own = [replace(group, amount=converted.amount(group.amount, group.currency)) for group in own]
    stages = [*stages, *sorted({group.stage for group in own} - set(stages))]
    found = []
    for stage in stages:
        here = [group for group in own if group.stage == stage]
        opened = [group for group in here if group.status == "open"]
        suspended = sum(group.deals for group in here) - sum(group.deals for group in opened)
        found.append(FunnelStage(stage, *_sums(opened, currency), suspended))
    return Funnel(pipeline_id, revision, currency, found, _others(others), rates)


def _sums(groups: list[_Group], currency: str) -> tuple[int, Decimal, Decimal]:
    amount = sum((group.amount for group in groups), Decimal(0))
    weighted = sum((group.amount * group.chance for group in groups), Decimal(0))
    return (
        sum(group.deals for group in groups),
        _money(amount, currency),
        _money(weighted, currency),
    )


def _others(groups: list[_Group]) -> list[CurrencyFunnel]:
    opened = [group for group in groups if group.status == "open"]
    currencies = sorted({group.currency for group in opened})
    return [
        CurrencyFunnel(other, *_sums([group for group in opened if group.currency == other], other))
        for other in currencies
    ]


def _money(value: Decimal, currency: str) -> Decimal:
    """To the minor unit, halves to the even one."""
    return value.quantize(Decimal(1).scaleb(-minor_units(currency)), ROUND_HALF_EVEN)


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
