"""What happened to the open amount between two moments."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Final
from uuid import UUID

from projections.funnel.pipelines import revision_of
from projections.reading import Connection, Moment, fetch, known

KINDS: Final = (
    "new", "reopened", "raised", "moved_in",
    "lowered", "moved_out", "suspended", "won", "lost", "terminated",
)  # fmt: skip
"""In order; those from `lowered` on take away."""


@dataclass(frozen=True, slots=True)
class Change:
    """`times`: how often it happened; `deals` and `amount`: what it adds to the number of open
    deals (0 for a change of amount) and to the open amount, negative for what it takes away."""

    kind: str
    times: int
    deals: int
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Waterfall:
    """`opening` + all `changes` = `closing`, exactly: deals and amounts. `revision`: of the
    pipeline asked for, at the moment."""

    revision: int | None
    opening: Change
    changes: list[Change]
    closing: Change
    other_currencies: list[str]


def waterfall(
    connection: Connection,
    moment: Moment,
    *,
    start: datetime,
    end: datetime,
    pipeline_id: UUID | None,
    currency: str,
    close_from: date | None = None,
    close_to: date | None = None,
) -> Waterfall | None:
    """The open deals as of `start`, what changed after it up to `end`, and those as of `end`, as
    known at the moment; None for an unknown pipeline.

    Every change counts, also of deals that came and went in between. With a window of expected
    closes [close_from, close_to), only deals expected to close in it are in the sums: they move in
    and out as that day is changed; a missing bound is open, and a deal without the day is outside.
    A resumed deal is `reopened`, with the amount it has then. A deal leaves with its amount asked,
    whatever the contract is over. What a deal was for no time at all does not show, except that
    one that ended as it was opened is new, and won, lost or terminated.
    """
    revision = None if pipeline_id is None else revision_of(connection, pipeline_id, moment)
    if pipeline_id is not None and revision is None:
        return None
    windowed = close_from is not None or close_to is not None
    inside = """coalesce(expected_close >= coalesce(%(close_from)s::date, '-infinity'::date)
        AND expected_close < coalesce(%(close_to)s::date, 'infinity'::date), false)"""
    rows = fetch(
        connection,
        f"""WITH state AS (
                SELECT deal_id, valid_from, valid_to, amount, currency, status,
                    {inside if windowed else "true"} AS inside,
                    status = 'open' AND {inside if windowed else "true"} AS counts
                FROM deal_period WHERE {known(moment)}
                    AND valid_from <= %(end)s AND valid_to > %(start)s
                    AND (%(pipeline_id)s::uuid IS NULL OR pipeline_id = %(pipeline_id)s::uuid)),
            step AS (
                SELECT *, lag(status) OVER deal AS was, lag(counts) OVER deal AS counted,
                    lag(amount) OVER deal AS before
                FROM state WINDOW deal AS (PARTITION BY deal_id ORDER BY valid_from)),
            change AS (
                SELECT currency, CASE WHEN counts THEN amount ELSE 0 END AS plus,
                    CASE WHEN counted THEN before ELSE 0 END AS minus, counts, counted,
                    CASE
                        WHEN valid_from <= %(start)s THEN 'opening'
                        WHEN was IS NULL THEN 'new'
                        WHEN counts AND counted AND amount > before THEN 'raised'
                        WHEN counts AND counted AND amount < before THEN 'lowered'
                        WHEN counts AND counted THEN NULL
                        WHEN counts AND was = 'suspended' THEN 'reopened'
                        WHEN counts THEN 'moved_in'
                        WHEN counted AND status = 'open' THEN 'moved_out'
                        WHEN counted THEN status
                    END AS kind
                FROM step
                UNION ALL  -- ended as it was opened
                SELECT currency, amount, 0, true, false, 'new' FROM step
                WHERE valid_from > %(start)s AND was IS NULL AND inside
                    AND status IN ('won', 'lost', 'terminated')
                UNION ALL
                SELECT currency, 0, amount, false, true, status FROM step
                WHERE valid_from > %(start)s AND was IS NULL AND inside
                    AND status IN ('won', 'lost', 'terminated')
                UNION ALL
                SELECT currency, amount, 0, true, false, 'closing' FROM step
                WHERE counts AND valid_to > %(end)s)
            SELECT currency, kind, sum(plus - minus) AS amount,
                count(*) FILTER (WHERE counts) - count(*) FILTER (WHERE counted) AS deals,
                count(*) AS times
            FROM change WHERE kind IS NOT NULL AND (counts OR counted)
            GROUP BY currency, kind ORDER BY currency""",
        {
            **moment.parameters(),
            "start": start,
            "end": end,
            "pipeline_id": pipeline_id and str(pipeline_id),
            "close_from": close_from,
            "close_to": close_to,
        },
    )
    own = {row["kind"]: row for row in rows if row["currency"] == currency}

    def change(kind: str) -> Change:
        row = own.get(kind)
        if row is None:
            return Change(kind, 0, 0, Decimal(0))
        return Change(kind, row["times"], row["deals"], row["amount"])

    return Waterfall(
        revision=revision,
        opening=change("opening"),
        changes=[change(kind) for kind in KINDS],
        closing=change("closing"),
        other_currencies=sorted({row["currency"] for row in rows} - {currency}),
    )
