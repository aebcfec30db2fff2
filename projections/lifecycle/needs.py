"""Who is likely to need something again, and since when (R69)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from projections.reading import Connection, Moment, Page, Source, page_of, recorded, truth


@dataclass(frozen=True, slots=True)
class Need:
    """`kind` cycle: the last purchase is `cycle_days` old at `due_at`. `kind` stock: the stock has
    been below `stock_alert_below` since `due_at`, and nothing was bought after it was last
    reported. `due`: at the moment asked for. `alerted_at` and `rule`: of the alert, once a policy
    has raised it."""

    customer_id: UUID
    kind: str
    due_at: datetime
    due: bool
    alerted_at: datetime | None
    rule: str | None
    repeat_type: str | None
    cycle_days: int | None
    last_purchase_at: datetime | None
    stock: Decimal | None
    stock_alert_below: Decimal | None
    stock_at: datetime | None


_NEEDS = Source(
    "row.customer_id",
    {
        "kind": "row.kind = %(filter_kind)s",
        "alerted": "(row.alerted_at IS NOT NULL) = %(filter_alerted)s",
    },
    {"due_at": ("(to_char(row.due_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || row.kind)",
                "text")},
    ("row.kind",),
)  # fmt: skip


def needs(
    connection: Connection,
    moment: Moment,
    *,
    due_before: datetime,
    filters: Mapping[str, Any] | None = None,
    search: str | None = None,
    sort: str = "due_at",
    descending: bool = False,
    after: tuple[str, UUID] | None = None,
    limit: int = 100,
) -> Page[Need]:
    """A page of what is due up to `due_before`, of customers who are not lost. A customer of
    one-off business has no cycle (R76)."""
    rows, following = page_of(
        connection,
        _NEEDS,
        "row.customer_id AS id, row.kind, row.due_at, row.due_at <= %(as_of)s AS due,"
        " row.alerted_at, row.rule, row.repeat_type, row.cycle_days, row.last_purchase_at,"
        f" row.stock, row.stock_alert_below, row.stock_at FROM ({_due(moment)}) AS row",
        "row.due_at <= %(due_before)s",
        {**moment.parameters(), "due_before": due_before},
        filters=filters or {},
        search=search,
        sort=sort,
        descending=descending,
        after=after,
        limit=limit,
    )
    return Page([Need(row.pop("id"), **row) for row in rows], following)


def _due(moment: Moment) -> str:
    return f"""SELECT d.customer_id, need.kind, need.due_at, alert.alerted_at, alert.rule,
            d.repeat_type, d.cycle_days, bought.at AS last_purchase_at, d.stock,
            d.stock_alert_below, d.stock_at
        FROM demand_period AS d
            LEFT JOIN LATERAL (
                SELECT max(p.valid_from) AS at FROM purchase_period AS p
                WHERE p.customer_id = d.customer_id AND {truth(moment, "p")}) AS bought ON true
            CROSS JOIN LATERAL (
                SELECT 'cycle' AS kind, bought.at + d.cycle_days * interval '24 hours' AS due_at
                WHERE d.repeat_type IS DISTINCT FROM 'project'
                UNION ALL
                SELECT 'stock', d.low_since
                WHERE bought.at IS NULL OR bought.at <= d.stock_at) AS need
            LEFT JOIN LATERAL (
                SELECT a.occurred_at AS alerted_at, a.rule FROM demand_fact AS a
                WHERE a.customer_id = d.customer_id AND a.kind = 'demand-alerted'
                AND a.alert_kind = need.kind AND a.due_at >= need.due_at
                AND {recorded(moment, "a")}
                ORDER BY a.position LIMIT 1) AS alert ON true
        WHERE {truth(moment, "d")} AND need.due_at IS NOT NULL
            AND NOT EXISTS (
                SELECT FROM standing_period AS s WHERE s.customer_id = d.customer_id
                AND s.classification = 'type' AND s.value = 'lost' AND {truth(moment, "s")})"""
