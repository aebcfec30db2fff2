"""Persons of our own house, and which team each was in when."""

from __future__ import annotations

from bisect import bisect
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self
from uuid import UUID

from domain.aggregate import LedgerAggregate
from domain.values import ExternalId, optional_text, stream_id, text


@dataclass(frozen=True, slots=True)
class Move:
    """Into a team, or out of any, at that time."""

    at: datetime
    team: str | None


class Member(LedgerAggregate):
    """Somebody who owns deals; in at most one team at a time."""

    TOPIC = "crm.member"

    owner: str = field(init=False)
    moves: tuple[Move, ...] = field(init=False, default=())
    """In order of time; of one instant the last one decides."""

    class Event(LedgerAggregate.Event):
        pass

    class Created(Event, LedgerAggregate.Created):
        """The first that is told of somebody."""

        TOPIC = "crm.member.registered"
        owner: str
        """Id of the person, as deals have it."""
        team: str | None
        """From here on; without one: in none."""

        def apply(self, aggregate: Member) -> None:
            aggregate.owner = self.owner
            aggregate._move(self.timestamp, self.team)

    class TeamChanged(Event):
        TOPIC = "crm.member.team-changed"
        owner: str
        """Id of the person, as deals have it."""
        team: str | None
        """From here on; without one: in none."""

        def apply(self, aggregate: Member) -> None:
            aggregate._move(self.timestamp, self.team)

    @classmethod
    def register(cls, member_id: UUID, *, owner: str, team: str | None, at: datetime) -> Self:
        """`member_id` is the person's `member_id`."""
        return cls._create(
            cls.Created,
            id=member_id,
            timestamp=at,
            owner=text(owner, "owner"),
            team=optional_text(team, "team"),
        )

    def assign(self, *, team: str | None, at: datetime) -> None:
        """In `team` from `at` on, until the next move known; nothing if that is known already."""
        team = optional_text(team, "team")
        if team != self.team_at(at):
            self.trigger_event(self.TeamChanged, timestamp=at, owner=self.owner, team=team)

    def team_at(self, at: datetime) -> str | None:
        """As known so far; None before the first move."""
        place = bisect(self.moves, at, key=lambda move: move.at)
        return self.moves[place - 1].team if place else None

    def _move(self, at: datetime, team: str | None) -> None:
        place = bisect(self.moves, at, key=lambda move: move.at)
        self.moves = (*self.moves[:place], Move(at, team), *self.moves[place:])


def member_id(owner: str) -> UUID:
    """The stream of the person with this id: the same for ever."""
    return stream_id("member", member_name(owner))


def member_name(owner: str) -> ExternalId:
    """What the person's stream is known by."""
    return ExternalId("crm-ledger", owner)
