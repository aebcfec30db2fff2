"""Campaigns, and what they cost: tables, fold, queries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, ClassVar
from uuid import UUID

from domain.campaign import Campaign
from domain.values import CampaignPlan
from infra.eventstore.feed import Recorded
from projections.projection import (
    INFINITY,
    NULL,
    Column,
    Fact,
    FactTable,
    Fold,
    PeriodTable,
    Row,
    State,
    joined,
    plain,
    text,
    turned,
)
from projections.reading import Connection, Moment, Page, Source, fetch_one, page_of, truth

# ---- tables ----

PLAN = (
    Column("planned_attendees", "int", "Aim: so many who come."),
    Column("planned_responses", "int", "Aim: so many responses."),
    Column("planned_deals", "int", "Aim: so many deals opened from it."),
    Column("planned_contracts", "int", "Aim: so many of these deals won."),
    Column(
        "planned_revenue", "numeric", "Aim: what the contracts bring, in the budget's currency."
    ),
)

_FACT = (
    Column("kind", "text NOT NULL", "Kind of event: the last part of its topic."),
    Column("version", "int NOT NULL", "Version of the campaign after the event."),
    Column("name", "text", "Name, at the planning."),
    Column("channel", "text", "Channel, at the planning."),
    Column("region", "text", "Region, at the planning."),
    Column("starts_on", "date", "First day."),
    Column("ends_on", "date", "Last day."),
    Column("amount", "numeric", "The budget, at the planning; a cost, where one was booked."),
    Column("currency", "text", "Currency of the amount."),
    Column("external_source", "text", "System that knows the campaign by external_id."),
    Column("external_id", "text", "Id in that system."),
    Column("product", "text", "What it promotes, at the planning."),
    *PLAN,
    Column("reference", "text", "What the cost was booked for."),
    Column("attendees", "int", "How many came, where that was recorded."),
)
KIND, VERSION, NAME, ATTENDEES = 2, 3, 4, 2 + len(_FACT) - 1

CAMPAIGN = (
    Column("name", "text NOT NULL", "Name."),
    Column("channel", "text NOT NULL", "visit, conference, web, letter, phone, ..."),
    Column("region", "text", "Region."),
    Column("starts_on", "date NOT NULL", "First day."),
    Column("ends_on", "date NOT NULL", "Last day."),
    Column("budget", "numeric NOT NULL", "Budget."),
    Column("currency", "text NOT NULL", "Currency of budget and costs."),
    Column("external_source", "text", "System that knows the campaign by external_id."),
    Column("external_id", "text", "Id in that system."),
    Column("product", "text", "What it promotes."),
    *PLAN,
    Column(
        "status",
        "text NOT NULL",
        "planned, submitted, approved, rejected, running, completed or cancelled.",
    ),
    Column("planned_at", "timestamptz NOT NULL", "When it was planned."),
    Column("attendees", "int", "How many came; null: not recorded."),
)
_STATUS = len(CAMPAIGN) - 3

# ---- fold ----

Extract = Callable[[Recorded], tuple[str, ...]]


def _planned(event: Recorded) -> tuple[str, ...]:
    e: Campaign.Created = event.event
    external = e.external_id
    return (
        "planned",
        str(event.version),
        text(e.name),
        text(e.channel),
        text(e.region),
        str(e.starts_on),
        str(e.ends_on),
        str(e.budget.value),
        e.budget.currency,
        text(external.source) if external else NULL,
        text(external.id) if external else NULL,
        text(e.product),
        *_aims(e.plan),
        NULL,
        NULL,
    )


def _aims(plan: CampaignPlan | None) -> tuple[str, ...]:
    if plan is None:
        return (NULL,) * len(PLAN)
    counts = (plan.attendees, plan.responses, plan.deals, plan.contracts)
    return (*map(plain, counts), plain(plan.revenue and plan.revenue.value))


def _cost_booked(event: Recorded) -> tuple[str, ...]:
    e: Campaign.CostBooked = event.event
    return (
        "cost-booked",
        str(event.version),
        *(NULL,) * 5,
        str(e.amount.value),
        e.amount.currency,
        *(NULL,) * (3 + len(PLAN)),
        text(e.reference),
        NULL,
    )


def _attended(event: Recorded) -> tuple[str, ...]:
    e: Campaign.AttendanceRecorded = event.event
    nothing = (NULL,) * (len(_FACT) - 3)
    return ("attendance-recorded", str(event.version), *nothing, str(e.attendees))


def _bare(kind: str) -> Extract:
    return lambda event: (kind, str(event.version), *(NULL,) * (len(_FACT) - 2))


_STATUSES = {
    "submitted": "submitted",
    "approved": "approved",
    "rejected": "rejected",
    "started": "running",
    "completed": "completed",
    "cancelled": "cancelled",
}


class CampaignFold(Fold):
    """Costs are facts only: a sum of them at any date needs no period, and a list of costs that
    comes late rewrites nothing."""

    key = Column("campaign_id", "uuid NOT NULL", "The campaign.")
    facts = FactTable("campaign_fact", "Every event of a campaign, in parts.", _FACT)
    periods = (
        PeriodTable(
            "campaign_period",
            "States of campaigns, by when they were true and known.",
            (),
            CAMPAIGN,
        ),
    )
    start: ClassVar[State] = ((), ())
    extract: ClassVar[Mapping[str, Extract]] = {
        Campaign.Created.TOPIC: _planned,
        Campaign.Submitted.TOPIC: _bare("submitted"),
        Campaign.Approved.TOPIC: _bare("approved"),
        Campaign.Rejected.TOPIC: _bare("rejected"),
        Campaign.Started.TOPIC: _bare("started"),
        Campaign.CostBooked.TOPIC: _cost_booked,
        Campaign.AttendanceRecorded.TOPIC: _attended,
        Campaign.Completed.TOPIC: _bare("completed"),
        Campaign.Cancelled.TOPIC: _bare("cancelled"),
    }

    def step(self, state: State, fact: Fact) -> tuple[State, tuple[Row, ...]]:
        """The state: (the campaign's row, once it is planned), its values."""
        at, kind = fact[0], fact[KIND]
        if not state[0]:
            if kind != "planned":
                return state, ()
            values = (*fact[NAME:-2], "planned", at, NULL)
            return (((0, "", at, INFINITY, joined(*values)),), values), ()
        before = state[1]
        planned_at, attendees = before[_STATUS + 1 :]
        if kind == "attendance-recorded":
            attendees = fact[ATTENDEES]
        status = _STATUSES.get(kind, before[_STATUS])
        values = (*before[:_STATUS], status, planned_at, attendees)
        if values == before:
            return state, ()
        row, settled = turned(state[0][0], at, joined(*values))
        return ((row,), values), settled


# ---- queries ----


@dataclass(frozen=True, slots=True)
class CampaignRow:
    """A campaign at a moment. `cost` is what was booked, in the budget's currency."""

    id: UUID
    name: str
    channel: str
    region: str | None
    status: str
    starts_on: date
    ends_on: date
    budget: Decimal
    currency: str
    cost: Decimal
    external_source: str | None
    external_id: str | None
    product: str | None
    planned_attendees: int | None
    planned_responses: int | None
    planned_deals: int | None
    planned_contracts: int | None
    planned_revenue: Decimal | None
    attendees: int | None
    planned_at: datetime
    version: int


FILTERS = {
    "status": "row.status = %(filter_status)s",
    "channel": "row.channel = %(filter_channel)s",
    "region": "row.region = %(filter_region)s",
    "product": "row.product = %(filter_product)s",
    "name": "row.name = %(filter_name)s",
    "external_source": "row.external_source = %(filter_external_source)s",
    "external_id": "row.external_id = %(filter_external_id)s",
}
COST = """(SELECT coalesce(sum(fact.amount), 0) FROM campaign_fact AS fact
    WHERE fact.campaign_id = row.campaign_id AND fact.kind = 'cost-booked'
    AND (%(latest)s OR fact.occurred_at <= %(as_of)s)
    AND (%(known_at)s::bigint IS NULL OR fact.position <= %(known_at)s))"""
"""What was booked for the campaign `row` up to the moment."""

SORTS = {
    "id": ("row.campaign_id", "uuid"),
    "name": ("row.name", "text"),
    "starts_on": ("row.starts_on", "date"),
    "ends_on": ("row.ends_on", "date"),
    "budget": ("row.budget", "numeric"),
    "cost": (COST, "numeric"),
    "planned_at": ("row.planned_at", "timestamptz"),
}
_LIST = Source("row.campaign_id", FILTERS, SORTS, ("row.name", "row.external_id"))
_SELECT = f"""row.campaign_id AS id, row.name, row.channel, row.region, row.status, row.starts_on,
    row.ends_on, row.budget, row.currency, {COST} AS cost, row.external_source, row.external_id,
    row.product, {", ".join("row." + column.name for column in PLAN)}, row.attendees,
    row.planned_at,
    (SELECT fact.version FROM campaign_fact AS fact WHERE fact.campaign_id = row.campaign_id
     AND (%(known_at)s::bigint IS NULL OR fact.position <= %(known_at)s)
     ORDER BY fact.position DESC LIMIT 1) AS version
    FROM campaign_period AS row"""


def campaign(connection: Connection, campaign_id: UUID, moment: Moment) -> CampaignRow | None:
    """The campaign, or None where it was not known or not planned yet."""
    row = fetch_one(
        connection,
        f"SELECT {_SELECT} WHERE row.campaign_id = %(id)s::uuid AND {truth(moment, 'row')}",
        {**moment.parameters(), "id": str(campaign_id)},
    )
    return None if row is None else CampaignRow(**row)


def campaigns(
    connection: Connection,
    moment: Moment,
    *,
    filters: Mapping[str, Any] | None = None,
    search: str | None = None,
    sort: str = "id",
    descending: bool = False,
    after: tuple[str, UUID] | None = None,
    limit: int = 100,
) -> Page[CampaignRow]:
    """A page of the campaigns there were. Search looks at names and external ids."""
    rows, following = page_of(
        connection, _LIST, _SELECT, truth(moment, "row"), moment.parameters(),
        filters=filters or {}, search=search, sort=sort, descending=descending,
        after=after, limit=limit,
    )  # fmt: skip
    return Page([CampaignRow(**row) for row in rows], following)
