"""What past campaigns teach: effect by period, rankings, and whom to invite (R38, R39)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import StrEnum
from typing import TypeVar

from domain.definitions import AttributionDefinition
from projections.attribution.performance import CampaignPerformance, output_over_input
from projections.attribution.results import return_on, size_band

K = TypeVar("K", bound=Hashable)


class Period(StrEnum):
    MONTH = "month"
    QUARTER = "quarter"
    YEAR = "year"


class Trait(StrEnum):
    """What campaigns are told apart by; `method` is the channel, `month` that of the start."""

    PRODUCT = "product"
    REGION = "region"
    METHOD = "method"
    SIZE_BAND = "size_band"
    MONTH = "month"


BEST = (Trait.REGION, Trait.METHOD, Trait.SIZE_BAND)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What campaigns brought together. Money of those whose budget is in the currency asked."""

    campaigns: int
    deals: int
    contracts: int
    cost: Decimal
    credit: Decimal

    @property
    def return_(self) -> Decimal | None:
        """(credit − cost) ÷ cost; None without cost."""
        return return_on(self.credit, self.cost)

    @property
    def output_over_input(self) -> Decimal | None:
        """credit ÷ cost; None without cost."""
        return output_over_input(self.credit, self.cost)

    @property
    def deals_per_campaign(self) -> Decimal:
        return round(Decimal(self.deals) / self.campaigns, 6)

    @property
    def contracts_per_campaign(self) -> Decimal:
        return round(Decimal(self.contracts) / self.campaigns, 6)


@dataclass(frozen=True, slots=True)
class Ranked:
    """Campaigns of one kind; rank 1 has the best return. `value` None: not known."""

    rank: int
    value: str | None
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class PeriodEffect:
    """Campaigns that started in [start, end); the best of each of BEST, None where nothing cost
    anything."""

    start: date
    end: date
    outcome: Outcome
    best: dict[Trait, str | None]


def effect_by_period(
    campaigns: Iterable[CampaignPerformance],
    *,
    period: Period,
    currency: str,
    definition: AttributionDefinition,
) -> list[PeriodEffect]:
    """The campaigns that took place, by the period they started in, in order; periods without any
    are left out."""
    found = []
    for (start, end), own in sorted(
        _grouped(_held(campaigns), lambda one: bounds(one.starts_on, period)).items()
    ):
        best = {}
        for trait in BEST:
            first = ranking(own, by=trait, currency=currency, definition=definition)[0]
            best[trait] = first.value if first.outcome.return_ is not None else None
        found.append(PeriodEffect(start, end, _outcome(own, currency), best))
    return found


def ranking(
    campaigns: Iterable[CampaignPerformance],
    *,
    by: Trait,
    currency: str,
    definition: AttributionDefinition,
) -> list[Ranked]:
    """The campaigns that took place, by trait: best return first, what cost nothing last; equals
    by credit, then by value."""
    groups = _grouped(_held(campaigns), lambda one: trait_of(one, by, definition))
    outcomes = [(value, _outcome(own, currency)) for value, own in groups.items()]
    outcomes.sort(
        key=lambda row: (
            row[1].return_ is None,
            -(row[1].return_ or Decimal(0)),
            -row[1].credit,
            row[0] or "",
        )
    )
    return [Ranked(rank, value, outcome) for rank, (value, outcome) in enumerate(outcomes, 1)]


def trait_of(
    campaign: CampaignPerformance, trait: Trait, definition: AttributionDefinition
) -> str | None:
    """The campaign's value; None: not known. A size is of those who came, else of those planned."""
    match trait:
        case Trait.PRODUCT:
            return campaign.product
        case Trait.REGION:
            return campaign.region
        case Trait.METHOD:
            return campaign.channel
        case Trait.MONTH:
            return f"{campaign.starts_on.month:02d}"
        case Trait.SIZE_BAND:
            came = campaign.attendees
            return size_band(campaign.plan.attendees if came is None else came, definition)


def bounds(day: date, period: Period) -> tuple[date, date]:
    """First day of the period that the day lies in, and of the next."""
    months = {Period.MONTH: 1, Period.QUARTER: 3, Period.YEAR: 12}[period]
    first = (day.month - 1) // months * months
    return date(day.year, first + 1, 1), date(
        day.year + (first + months) // 12, (first + months) % 12 + 1, 1
    )


def _held(campaigns: Iterable[CampaignPerformance]) -> list[CampaignPerformance]:
    return [one for one in campaigns if one.status in ("running", "completed")]


def _grouped(
    campaigns: Iterable[CampaignPerformance], key: Callable[[CampaignPerformance], K]
) -> dict[K, list[CampaignPerformance]]:
    groups: dict[K, list[CampaignPerformance]] = {}
    for campaign in campaigns:
        groups.setdefault(key(campaign), []).append(campaign)
    return groups


def _outcome(campaigns: Sequence[CampaignPerformance], currency: str) -> Outcome:
    own = [one for one in campaigns if one.currency == currency]
    return Outcome(
        campaigns=len(campaigns),
        deals=sum(one.deals for one in campaigns),
        contracts=sum(one.contracts for one in campaigns),
        cost=sum((one.cost for one in own), Decimal(0)),
        credit=sum((one.credit for one in own), Decimal(0)),
    )
