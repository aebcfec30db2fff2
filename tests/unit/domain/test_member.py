"""Who is in which team, told in any order of time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from uuid import UUID

from domain.errors import InvalidText
from domain.member import Member, Move, member_id
from tests.given_when_then import ID, NOW, START, Fact, fact, given

JOINED = fact(Member.Created, owner="ann", team="north")
LATER = START + timedelta(days=30)
BETWEEN = START + timedelta(days=10)


def registering(owner: str = "ann", team: str | None = "north") -> Callable[[None], Member]:
    return lambda _: Member.register(ID, owner=owner, team=team, at=START)


def changed(team: str | None, at: datetime | None = None) -> Fact:
    return fact(Member.TeamChanged, at, owner="ann", team=team)


def assigning(team: str | None, at: datetime = NOW) -> Callable[[Member], None]:
    return lambda member: member.assign(team=team, at=at)


def test_a_person_has_one_stream() -> None:
    assert member_id("ann") == UUID("447eb0e7-3200-5740-8d1c-0d5a190dd360")
    assert member_id("ann") != member_id("Ann")


def test_begins_in_a_team_or_in_none() -> None:
    given().when(registering()).then(JOINED)
    given().when(registering(team=None)).then(fact(Member.Created, owner="ann", team=None))
    given().when(registering(team=" ")).then(fact(Member.Created, team=None))
    given().when(registering(owner=" ")).refused(InvalidText)
    given().when(registering(team="x" * 201)).refused(InvalidText)


def test_moves_and_leaves() -> None:
    given(JOINED).when(assigning("south")).then(changed("south", NOW))
    given(JOINED).when(assigning(None)).then(changed(None, NOW))
    given(JOINED, changed("south", LATER)).when(assigning("north")).then(changed("north", NOW))
    given(JOINED).when(assigning("x" * 201)).refused(InvalidText)


def test_what_is_known_is_not_told_again() -> None:
    given(JOINED).when(assigning("north")).then()
    given(JOINED, changed(None, LATER)).when(assigning("")).then()
    given(JOINED, changed("south", LATER)).when(assigning("north", BETWEEN)).then()


def test_a_move_told_late_counts_until_the_next_one() -> None:
    member = (
        given(JOINED, changed("south", LATER))
        .when(assigning("south", BETWEEN))
        .then(changed("south", BETWEEN))
    )
    assert member.moves == (
        Move(START, "north"),
        Move(BETWEEN, "south"),
        Move(LATER, "south"),
    )
    member = (
        given(JOINED, changed("south", LATER))
        .when(assigning("west", BETWEEN))
        .then(changed("west", BETWEEN))
    )
    day = timedelta(days=1)
    times = (START - day, START, BETWEEN - day, BETWEEN, LATER - day, LATER, NOW)
    found = [member.team_at(at) for at in times]
    assert found == [None, "north", "north", "west", "west", "south", "south"]


def test_of_one_instant_the_last_told_decides() -> None:
    corrected = given(JOINED).when(assigning("south", START)).then(changed("south", START))
    assert corrected.team_at(START) == "south"
