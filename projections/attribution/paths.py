"""Paths: by which campaigns' touches deals came to be won or lost, and customers to nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from tempfile import TemporaryFile
from typing import Any, TypeAlias
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from projections.reading import Connection, Moment, fetch, recorded

Ints: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Paths:
    """Sequences of touches; paths without a touch are left out.

    `touches` are places in `campaigns`, sequence after sequence, oldest first; sequence i begins
    at `starts[i]`. `won[i]` paths with that sequence were won, `lost[i]` ended otherwise. One
    sequence may be there several times. Every campaign is in some path.
    """

    campaigns: tuple[UUID, ...]
    touches: Ints
    starts: Ints
    won: Ints
    lost: Ints

    @property
    def count(self) -> int:
        """All paths."""
        return int(self.won.sum() + self.lost.sum())

    @property
    def lengths(self) -> Ints:
        return np.diff(np.append(self.starts, len(self.touches)))

    def without(self, campaign: UUID) -> Paths:
        """As if its touches had not been. Paths that have no other end here."""
        if campaign not in self.campaigns:
            return self
        kept = self.touches != self.campaigns.index(campaign)
        owner = np.repeat(np.arange(len(self.starts)), self.lengths)[kept]
        alive, starts = np.unique(owner, return_index=True)
        used, touches = np.unique(self.touches[kept], return_inverse=True)
        return Paths(
            tuple(self.campaigns[number] for number in used),
            touches.astype(np.int64),
            starts.astype(np.int64),
            self.won[alive],
            self.lost[alive],
        )


def of_sequences(sequences: list[tuple[list[UUID], int, int]]) -> Paths:
    """From (campaigns touched in order, paths won, paths that ended otherwise)."""
    campaigns = sorted({campaign for touched, _, _ in sequences for campaign in touched})
    number = {campaign: place for place, campaign in enumerate(campaigns)}
    counted = [(touched, won, lost) for touched, won, lost in sequences if touched]
    lengths = [len(touched) for touched, _, _ in counted]
    return Paths(
        tuple(campaigns),
        np.array([number[c] for touched, _, _ in counted for c in touched], dtype=np.int64),
        np.cumsum([0, *lengths[:-1]], dtype=np.int64)[: len(lengths)],
        np.array([won for _, won, _ in counted], dtype=np.int64),
        np.array([lost for _, _, lost in counted], dtype=np.int64),
    )


def paths(
    connection: Connection,
    moment: Moment,
    *,
    look_back_days: int,
    start: date | None = None,
    end: date | None = None,
    zone: str = "UTC",
) -> Paths:
    """The paths that ended in [start, end), as at the moment.

    One for each won or lost deal, with its customer's touches in (close − look-back, close]; of a
    win, the day of signature says when it ended. One for each customer that was touched and has no
    deal, which ended in nothing with its last touch. Open and terminated deals are left out.
    """
    happened = recorded(moment)
    parameters = moment.parameters()
    campaigns = [
        row["campaign_id"]
        for row in fetch(
            connection,
            f"""SELECT DISTINCT campaign_id FROM touch_fact
                WHERE campaign_id IS NOT NULL AND {happened} ORDER BY 1""",
            parameters,
        )
    ]
    rows = _numbers(
        connection,
        f"""WITH touch AS MATERIALIZED (
                SELECT customer_id, occurred_at, position, campaign.number::int AS campaign
                FROM touch_fact JOIN unnest(%(campaigns)s::uuid[]) WITH ORDINALITY
                    AS campaign(campaign_id, number) USING (campaign_id) WHERE {happened}),
            ending AS (
                SELECT customer_id, won, ended_at FROM (
                    SELECT DISTINCT ON (deal_id) customer_id, occurred_at AS ended_at,
                        kind = 'contract-signed' AS won,
                        coalesce(signed_on, (occurred_at AT TIME ZONE %(zone)s)::date) AS ended_on
                    FROM touch_fact WHERE kind IN ('contract-signed', 'lost') AND {happened}
                    ORDER BY deal_id, kind, occurred_at, position) AS deal
                WHERE (%(start)s::date IS NULL OR ended_on >= %(start)s)
                AND (%(end)s::date IS NULL OR ended_on < %(end)s)
                UNION ALL
                SELECT customer_id, false, max(occurred_at) FROM touch
                WHERE NOT EXISTS (
                    SELECT FROM touch_fact AS deal WHERE deal.customer_id = touch.customer_id
                    AND deal.kind = 'opened' AND {recorded(moment, "deal")})
                GROUP BY customer_id
                HAVING (%(start)s::date IS NULL
                    OR (max(occurred_at) AT TIME ZONE %(zone)s)::date >= %(start)s)
                AND (%(end)s::date IS NULL
                    OR (max(occurred_at) AT TIME ZONE %(zone)s)::date < %(end)s)),
            numbered AS (
                SELECT row_number() OVER ()::int AS number, ending.* FROM ending)
            SELECT number, won::int, campaign FROM numbered JOIN touch USING (customer_id)
            WHERE occurred_at <= ended_at
            AND occurred_at > ended_at - %(hours)s * interval '1 hour'
            ORDER BY number, occurred_at, position""",
        {
            **parameters,
            "campaigns": [str(campaign) for campaign in campaigns],
            "zone": zone,
            "start": start,
            "end": end,
            "hours": look_back_days * 24,
        },
        3,
    )
    starts = np.flatnonzero(np.diff(rows[:, 0], prepend=-1))
    used, touches = np.unique(rows[:, 2], return_inverse=True)
    won = rows[starts, 1]
    return Paths(
        tuple(campaigns[number - 1] for number in used),
        touches.astype(np.int64),
        starts.astype(np.int64),
        won,
        1 - won,
    )


def _numbers(
    connection: Connection, query: str, parameters: Mapping[str, Any], columns: int
) -> Ints:
    """The rows of a query for whole numbers, as an array: COPY, as rows by the million would fill
    the memory one by one."""
    with connection.cursor() as cursor, TemporaryFile() as file:
        statement = cursor.mogrify(query, parameters).decode()
        cursor.copy_expert(f"COPY ({statement}) TO STDOUT", file)
        file.seek(0)
        return np.fromfile(file, dtype=np.int64, sep=" ").reshape(-1, columns)
