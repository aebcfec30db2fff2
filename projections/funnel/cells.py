"""Stays counted where they are stored: what `Tally` makes of a history, without reading it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from projections.funnel.counting import DAYS, Cells, Counts
from projections.funnel.stays import sampled
from projections.reading import Connection, Moment, fetch, known

LARGE: Final = 500_000
"""Positions of the log up to which all deals are learned from; of twice as many, half of them."""
_ONE: Final = 10**12
"""Weights are added as whole numbers of such parts, so that their order makes no difference."""

_OUTCOMES: Final = {"won": 0, "lost": 1, "terminated": 1, "suspended": 2, "resumed": 3}


def one_in(position: int) -> int:
    """The part of the deals that is learned from, of a log up to this position: a power of 2."""
    share = 1
    while position > LARGE * share:
        share *= 2
    return share


def counts(
    connection: Connection,
    pipeline_id: UUID,
    *,
    until: datetime,
    known_at: int,
    stages: Sequence[str],
    half_life_days: Decimal,
    one_in: int = 1,
) -> Counts:
    """Of what was true before `until`, as known at the position `known_at`.

    `stages` come first, then those that only the stays name. With `one_in` (a power of 2), of
    one in so many deals: `sampled`.
    """
    moment = Moment(until, known_at)
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL work_mem = '64MB'")  # groups are few, which is not foreseen
    rows = fetch(
        connection,
        f"""WITH part AS (
                SELECT stage, status = 'suspended' AS suspended,
                    CASE WHEN valid_to < %(as_of)s THEN ended END AS how,
                    CASE WHEN valid_to < %(as_of)s THEN to_stage END AS to_stage,
                    {_minute("CASE status WHEN 'suspended' THEN valid_from ELSE entered_at END")}
                        AS entered,
                    {_minute("valid_from")} AS begun,
                    {_minute("least(valid_to, %(as_of)s)")} AS stopped
                FROM visit_period
                WHERE pipeline_id = %(pipeline_id)s::uuid AND valid_from < %(as_of)s
                    AND {known(moment)} AND {"true" if one_in == 1 else sampled(one_in)}
                OFFSET 0),  -- what is reckoned once is not reckoned again
            day AS (
                SELECT stage, suspended, how, to_stage, (stopped - entered) / 1440 AS last,
                    -- a part that follows another was not at risk before, nor twice that day
                    CASE WHEN begun = entered THEN 0 ELSE (begun - entered) / 1440 + 1 END AS first,
                    exp(greatest((entered - %(until)s) * %(rate)s::float8, -600)) AS as_entered,
                    exp(greatest((stopped - %(until)s) * %(rate)s::float8, -600)) AS as_stopped
                FROM part
                -- the part that follows one of no time counts for it
                WHERE how IS DISTINCT FROM 'repriced' OR stopped > begun OFFSET 0)
            SELECT stage, suspended, how, to_stage, least(first, last + 1, {DAYS}) AS first,
                least(last, {DAYS}) AS last, count(*) AS parts,
                sum((as_entered * {_ONE})::bigint) AS as_entered,
                sum((as_stopped * {_ONE})::bigint) AS as_stopped,
                sum(CASE WHEN last < {DAYS} THEN 0 ELSE as_stopped * {_ONE}
                    * (1 - exp((greatest(first, {DAYS}) - last - 1) * %(daily)s::float8))
                    / (1 - exp(-%(daily)s::float8)) END::bigint) AS late
            FROM day GROUP BY 1, 2, 3, 4, 5, 6""",
        {
            **moment.parameters(),
            "pipeline_id": str(pipeline_id),
            "until": int(until.timestamp()) // 60,
            "rate": math.log(2) / float(half_life_days) / 1440,
            "daily": math.log(2) / float(half_life_days),
        },
    )
    names = {row["stage"] for row in rows} | {row["to_stage"] for row in rows} - {None}
    cells = Cells([*stages, *sorted(names - set(stages))], half_life_days)
    place = {stage: number for number, stage in enumerate(cells.stages)}
    for row in rows:
        _count(cells, place, row)
    return cells.counts()


def _minute(time: str) -> str:
    return f"floor(date_part('epoch', {time}) / 60)::int"


def _count(cells: Cells, place: dict[str, int], row: dict[str, Any]) -> None:
    size = len(place)
    group = size if row["suspended"] else place[row["stage"]]
    first, last = row["first"], row["last"]
    entered, stopped = float(row["as_entered"]) / _ONE, float(row["as_stopped"]) / _ONE
    cells.gone[group, first] += entered
    cells.gone[group, last + 1] -= entered
    cells.late[group] += float(row["late"]) / _ONE
    if row["how"] in ("advanced", "moved-back") and row["to_stage"] is not None:
        outcome = place[row["to_stage"]]
    elif row["how"] in _OUTCOMES:
        outcome = size + _OUTCOMES[row["how"]]
    else:
        return  # it lasts, or goes on at another amount
    weight = entered * cells.older[last] if last < DAYS else stopped
    cells.ends[group, outcome, last] += weight
    cells.sample[group, outcome] += row["parts"]
