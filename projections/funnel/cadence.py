"""Deals whose next visit is overdue, by the cadence of their stage (R43)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from projections.reading import Connection, Moment, Page, Source, known, page_of, recorded, truth

VISIT: Final = "visit"
"""The kind of activity that keeps the cadence."""


@dataclass(frozen=True, slots=True)
class Overdue:
    """`last_visit_at`: the last visit since the deal entered its stage, if any. `due_at`: a week
    ÷ visits a week after that, or after the entry."""

    opportunity_id: UUID
    customer_id: UUID
    name: str
    owner: str | None
    stage: str
    visits_per_week: int
    entered_at: datetime
    last_visit_at: datetime | None
    due_at: datetime
    days_overdue: Decimal
    amount: Decimal
    currency: str


OVERDUE_SORTS = {
    "due_at": ("due.due_at", "timestamptz"),
    "amount": ("row.amount", "numeric"),
    "name": ("row.name", "text"),
}
_OVERDUE = Source(
    "row.deal_id",
    {
        name: f"row.{name} = %(filter_{name})s"
        for name in ("pipeline_id", "stage", "owner", "customer_id")
    },
    OVERDUE_SORTS,
    ("row.name", "row.external_id"),
)


def overdue(
    connection: Connection,
    moment: Moment,
    *,
    filters: Mapping[str, Any] | None = None,
    search: str | None = None,
    sort: str = "due_at",
    descending: bool = False,
    after: tuple[str, UUID] | None = None,
    limit: int = 100,
) -> Page[Overdue]:
    """A page of the open deals, in stages with a cadence, whose next visit was due before
    `as_of`."""
    rows, following = page_of(
        connection,
        _OVERDUE,
        f"""row.deal_id AS id, row.customer_id, row.name, row.owner, row.stage,
            stage.visits_per_week, row.entered_at, visited.last_visit_at, due.due_at,
            round(extract(epoch FROM %(as_of)s - due.due_at) / 86400, 6) AS days_overdue,
            row.amount, row.currency
            FROM deal_period AS row
            JOIN pipeline_stage_period AS stage ON stage.pipeline_id = row.pipeline_id
                AND stage.revision = row.revision AND stage.stage = row.stage
                AND stage.visits_per_week IS NOT NULL AND {known(moment, "stage")}
            CROSS JOIN LATERAL (
                SELECT max(occurred_at) AS last_visit_at FROM deal_fact AS fact
                WHERE fact.deal_id = row.deal_id AND fact.kind = 'activity-recorded'
                AND fact.note = '{VISIT}' AND fact.occurred_at >= row.entered_at
                AND {recorded(moment, "fact")}) AS visited
            CROSS JOIN LATERAL (
                SELECT coalesce(visited.last_visit_at, row.entered_at)
                    + interval '7 days' / stage.visits_per_week AS due_at) AS due""",
        f"row.status = 'open' AND {truth(moment, 'row')} AND due.due_at < %(as_of)s",
        moment.parameters(),
        filters=filters or {},
        search=search,
        sort=sort,
        descending=descending,
        after=after,
        limit=limit,
    )
    return Page([Overdue(opportunity_id=row.pop("id"), **row) for row in rows], following)
