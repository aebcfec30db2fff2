"""Persons of our own house and their teams: tables, fold, the list."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from domain.member import Member
from infra.eventstore.feed import Recorded
from projections.projection import (
    INFINITY,
    Column,
    Fact,
    FactTable,
    Fold,
    PeriodTable,
    Row,
    State,
    joined,
    text,
    turned,
)
from projections.reading import Connection, Moment, Page, Source, page_of, truth

# ---- tables and fold ----

_MEMBER = (
    Column("owner", "text NOT NULL", "Id of the person, as deals have it."),
    Column("team", "text", "Its team; null: in none."),
)


def _told(recorded: Recorded) -> tuple[str, ...]:
    e: Member.Created | Member.TeamChanged = recorded.event
    return (text(e.owner), text(e.team))


class MemberFold(Fold):
    """In one team, or none, from the first that is told of somebody on."""

    key = Column("member_id", "uuid NOT NULL", "The person; computed from its id as owner.")
    facts = FactTable("member_fact", "Moves of persons of our house between teams.", _MEMBER)
    periods = (
        PeriodTable(
            "member_period",
            "Teams of the persons of our house, by when they were true and known.",
            (),
            _MEMBER,
        ),
    )
    start: ClassVar[State] = ((),)
    extract: ClassVar[Mapping[str, Callable[[Recorded], tuple[str, ...]]]] = {
        Member.Created.TOPIC: _told,
        Member.TeamChanged.TOPIC: _told,
    }

    def step(self, state: State, fact: Fact) -> tuple[State, tuple[Row, ...]]:
        at, _, owner, team = fact
        values = joined(owner, team)
        if not state[0]:
            return (((0, "", at, INFINITY, values),),), ()
        (row,) = state[0]
        if row[4] == values:
            return state, ()
        row, settled = turned(row, at, values)
        return ((row,),), settled


# ---- queries ----


@dataclass(frozen=True, slots=True)
class MemberRow:
    """In `team` since `since`; None: in none."""

    owner: str
    team: str | None
    since: datetime


MEMBER_SORTS = {"owner": ("row.owner", "text"), "team": ("coalesce(row.team, '')", "text")}
_MEMBERS = Source(
    "row.member_id",
    {"owner": "row.owner = %(filter_owner)s", "team": "row.team = %(filter_team)s"},
    MEMBER_SORTS,
    ("row.owner", "row.team"),
)


def members(
    connection: Connection,
    moment: Moment,
    *,
    filters: Mapping[str, Any] | None = None,
    search: str | None = None,
    sort: str = "owner",
    descending: bool = False,
    after: tuple[str, UUID] | None = None,
    limit: int = 100,
) -> Page[MemberRow]:
    """A page of those whose team, or that they have none, was told. Search looks at both."""
    rows, following = page_of(
        connection,
        _MEMBERS,
        "row.member_id AS id, row.owner, row.team, row.valid_from AS since"
        " FROM member_period AS row",
        truth(moment, "row"),
        moment.parameters(),
        filters=filters or {},
        search=search,
        sort=sort,
        descending=descending,
        after=after,
        limit=limit,
    )
    for row in rows:
        del row["id"]
    return Page([MemberRow(**row) for row in rows], following)
