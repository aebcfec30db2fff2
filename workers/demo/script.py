"""What happens in the demo company: commands with their times, put in order at the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from random import Random
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from domain.values import ExternalId, Money, stream_id
from workers.demo.currencies import worth
from workers.steps import computed_id

DAYS: Final = 730
"""From the company's first day to the one that the demo ends before."""


@dataclass(frozen=True, slots=True)
class Line:
    """A command: a method of the application by name, given by `actor`."""

    at: datetime
    actor: str
    method: str
    target: UUID
    arguments: Mapping[str, Any]
    reason: str | None = None
    causation_id: UUID | None = None
    """The event that gave rise to it, where one did."""


class Script:
    """Collects lines. Times are days since the first one, as 12.5, and mapped to office hours."""

    def __init__(self, seed: int, until: date, zone: ZoneInfo, currency: str) -> None:
        self.seed = seed
        self.source = f"demo-{seed}"
        self.begin = until - timedelta(days=DAYS)
        self.zone = zone
        self.currency = currency
        self._lines: list[Line] = []

    def random(self, *name: str | int) -> Random:
        """Chance of its own for each part, so that one part does not change the others."""
        return Random(f"{self.seed}/{'/'.join(map(str, name))}")  # noqa: S311 - a story, no secret

    def external(self, id_: str) -> ExternalId:
        return ExternalId(self.source, id_)

    def stream(self, kind: str, id_: str) -> UUID:
        """The id of what goes by that external id."""
        return stream_id(kind, self.external(id_))

    def person(self, name: str) -> str:
        """The id of somebody in our own house."""
        return str(computed_id("demo", self.seed, "person", name))

    def money(self, thousands: float, currency: str | None = None) -> Money:
        """A round amount: whole thousands of our currency, at least one.

        In another currency about what they are worth in it, in whole hundreds.
        """
        return self._round(thousands, 1000, currency)

    def cost(self, thousands: float, currency: str | None = None) -> Money:
        """Ten times finer than `money`, so that margins are what they are to be."""
        return self._round(thousands, 100, currency)

    def _round(self, thousands: float, step: int, currency: str | None) -> Money:
        value = thousands * 1000
        if currency is not None and currency != self.currency:
            value /= worth(currency, self.currency)
            step //= 10
        return Money.of(str(max(1, round(value / step)) * step), currency or self.currency)

    def day(self, when: float) -> date:
        """The calendar day; a weekend's is the Monday after."""
        return self.at(when).astimezone(self.zone).date()

    def at(self, when: float) -> datetime:
        """The instant, later for a later `when`: 8 to 18 o'clock on working days.

        What falls on a weekend happens early on Monday; 0 is the very beginning of the first day.
        """
        number = int(when // 1)
        part = when - number
        day = self.begin + timedelta(days=number)
        weekend = day.weekday() - 5
        if when == 0:
            hours = 0.0
        elif weekend >= 0:
            day += timedelta(days=2 - weekend)
            hours = 7 + (weekend + part) / 2
        else:
            hours = 8 + 10 * part
        midnight = datetime.combine(day, time.min, tzinfo=self.zone)
        return midnight + timedelta(seconds=round(hours * 3600))

    def add(
        self,
        when: float,
        actor: str,
        method: str,
        target: UUID,
        /,
        reason: str | None = None,
        **arguments: Any,
    ) -> None:
        """What is added later happens later, where both have the same time."""
        self._lines.append(Line(self.at(when), actor, method, target, arguments, reason))

    @property
    def end(self) -> datetime:
        """Midnight, as the day begins that the demo ends before."""
        return datetime.combine(self.begin + timedelta(days=DAYS), time.min, tzinfo=self.zone)

    def lines(self) -> list[Line]:
        """Those before the end, in order of time."""
        end = self.end
        return sorted((line for line in self._lines if line.at < end), key=lambda line: line.at)
