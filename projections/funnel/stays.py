"""Stays of deals in the stages: what they were worth there, how they ended, what came next."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from projections.projection import INFINITY, NULL, Column, PeriodTable, Row, joined
from projections.reading import Connection, Moment, fetch, known

ENDINGS: Final = (
    "advanced", "moved-back", "won", "lost", "terminated", "suspended", "resumed", "repriced",
)  # fmt: skip
"""How a part of a stay ends. The last three begin another part of the same stay."""

_INDEXED: Final = 8
"""One in so many deals is in an index of its own, for questions that a part of them answers."""


def sampled(one_in: int) -> str:
    """SQL for one in so many deals (a power of 2): each part holds those that are smaller.

    By the last octets of their ids, which are random or of a hash; the first tell the time.
    """
    return f"substr(uuid_send(deal_id), 13) < '\\x{2**32 // one_in:08x}'::bytea"


STAYS: Final = PeriodTable(
    "visit_period",
    "Stays of deals in stages, in parts: true while the deal was in the stage, running or"
    " suspended, at this amount.",
    (
        Column("visit", "int NOT NULL", "Number of the stay within the deal, from 1."),
        Column("part", "int NOT NULL", "Number of the part within the stay, from 1."),
    ),
    (
        Column("pipeline_id", "uuid NOT NULL", "The pipeline."),
        Column("revision", "int NOT NULL", "Revision of the pipeline the deal entered it under."),
        Column("stage", "text NOT NULL", "The stage."),
        Column("entered_at", "timestamptz NOT NULL", "When the deal entered the stage."),
        Column("status", "text NOT NULL", "open or suspended."),
        Column("amount", "numeric NOT NULL", "Amount asked."),
        Column("currency", "text NOT NULL", "Currency of the amounts."),
        Column("ended", "text", f"{', '.join(ENDINGS)}; null while it lasts."),
        Column("to_stage", "text", "The stage the deal went to; null if it went to none."),
        Column("won_amount", "numeric", "Amount of the contract, if it was won."),
    ),
    (
        (
            "visit_period_sample",  # the learned forecast of a long history
            "(pipeline_id, deal_id) INCLUDE (stage, status, entered_at, ended, to_stage,"
            f" valid_from, valid_to, known_from, known_to) WHERE {sampled(_INDEXED)}",
        ),
    ),
)
_LASTS: Final = joined(NULL, NULL, NULL)


def begun(visit: int, part: int, at: str, *values: str) -> Row:
    """The part of a stay that begins; `values` are pipeline_id to currency."""
    return (1, f"{visit}\t{part}", at, INFINITY, joined(*values, _LASTS))


def ended(stay: Row, at: str, how: str, *, to_stage: str = NULL, won_amount: str = NULL) -> Row:
    """The part as it is once it ended; one that took no time stays on record as well."""
    values = stay[4][: -len(_LASTS)]
    return (1, stay[1], stay[2], at, values + joined(how, to_stage, won_amount))


@dataclass(frozen=True, slots=True)
class VisitRow:
    """One stay of a deal in a stage. `left_at` and `ended` are None while it lasts.

    `ended`: advanced, moved-back, won, lost, terminated.
    """

    visit: int
    stage: str
    revision: int
    entered_at: datetime
    left_at: datetime | None
    ended: str | None


def visits(connection: Connection, deal_id: UUID, moment: Moment) -> list[VisitRow]:
    """The deal's stage visits up to `as_of`, first to last."""
    rows = fetch(
        connection,
        f"""SELECT DISTINCT ON (visit) visit, stage, revision, entered_at,
            CASE WHEN valid_to <= %(as_of)s THEN valid_to END AS left_at,
            CASE WHEN valid_to <= %(as_of)s THEN ended END AS ended
            FROM visit_period WHERE deal_id = %(id)s::uuid AND valid_from <= %(as_of)s
            AND {known(moment)} ORDER BY visit, part DESC""",
        {**moment.parameters(), "id": str(deal_id)},
    )
    return [VisitRow(**row) for row in rows]
