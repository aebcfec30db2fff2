"""The customers: who they are, what they answer to, buy and owe, and how the relationship goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final
from uuid import UUID

from domain.values import ChurnCause, CustomerKind, Level, Severity
from workers.demo.campaigns import Campaign
from workers.demo.deals import Brief, Course, course_of
from workers.demo.names import (
    DEPARTMENTS,
    FAMILY,
    FIRST,
    GIVEN,
    INDUSTRIES,
    LEVELS,
    REGIONS,
    RESPONSES,
    ROLES,
    SECOND,
    SIGNALS,
    SOURCES,
)
from workers.demo.script import DAYS, Script
from workers.steps import computed_id

CUSTOMERS: Final = 110
PERSONS: Final = 8
"""Of the customers, the last ones."""
OWNERS: Final = 8
FIRST_CUSTOMER: Final = "CUSTOMER-001"
"""Registered at the very beginning: tells a later run when that was."""


@dataclass(frozen=True, slots=True)
class Story:
    """How a relationship goes: the levels after the first, and how it ends."""

    levels: tuple[Level, ...] = ()
    churns: bool = False
    comes_back: bool = False
    owes: bool = False
    """Stops paying."""


_UP: Final = (Level.GROWING, Level.STABLE)
STORIES: Final[tuple[Story | None, ...]] = (
    None, None, None, None,  # nothing forced: most customers
    Story((Level.GROWING,)),
    Story(_UP),
    None,
    Story((*_UP, Level.DECLINING)),
    None,
    Story((*_UP, Level.DECLINING, Level.PROBLEM), owes=True),
    Story(_UP),
    None,
    Story((*_UP, Level.DECLINING, Level.NO_VALUE)),
    Story(_UP, churns=True),
    None,
    Story((*_UP, Level.DECLINING), churns=True),
    None,
    Story((*_UP, Level.DECLINING), churns=True, comes_back=True),
    None, None,
)  # fmt: skip
_CAUSES: Final = (
    ChurnCause.PRICE,
    ChurnCause.SERVICE,
    ChurnCause.COMPETITOR,
    ChurnCause.CLOSURE,
    ChurnCause.PRODUCT,
)


def stage_customers(script: Script, campaigns: Sequence[Campaign]) -> None:
    """All customers with all that happens to them."""
    for n in range(CUSTOMERS):
        _Life(script, n, campaigns).stage()


class _Life:
    """One customer. Times are days since the company's first."""

    def __init__(self, script: Script, n: int, campaigns: Sequence[Campaign]) -> None:
        self._script = script
        self._n = n
        self._campaigns = campaigns
        self._random: Random = script.random("customer", n)
        self._id = f"CUSTOMER-{n + 1:03}"
        self._target: UUID = script.stream("customer", self._id)
        self._story = STORIES[n % len(STORIES)] if n < CUSTOMERS - PERSONS else None
        self._owner = script.person(f"rep {n % OWNERS + 1}")
        self._successor = script.person(f"rep {(n + 3) % OWNERS + 1}")
        self._deals = 0
        self._orders = 0
        if self._id == FIRST_CUSTOMER:
            self._registered = 0.0
        elif self._story is not None:
            self._registered = self._random.uniform(0.1, 60)
        else:
            self._registered = self._random.uniform(0.1, DAYS * 0.75)
        self._industry = self._random.choice(INDUSTRIES)
        self._region = self._random.choice(REGIONS)
        self._name = self._random_name()
        self._gone: tuple[float, float] | None = None
        """From its loss to its return."""

    def stage(self) -> None:
        self._register()
        since = None
        if self._story is not None:
            since = self._win_first()
            if since is not None:
                self._relate(since, self._story)
        responses = self._respond()
        courses = self._deal(responses)
        wins = [course.ended for course in courses if course.outcome == "won"]
        if since is None and wins:
            since = min(wins)
            if self._random.random() < 0.6:
                self._level(since + self._random.uniform(80, 140), Level.GROWING)
        if since is not None:
            self._buy(since)

    # Who it is

    def _random_name(self) -> str:
        first = FIRST[self._n % len(FIRST)]
        if self._n >= CUSTOMERS - PERSONS:
            return f"{self._random.choice(GIVEN)} {self._random.choice(FAMILY)}"
        branch = SECOND[self._industry]
        return (
            f"{first} {branch}"
            if self._n < len(FIRST)
            else f"{first} {branch} {self._region.title()}"
        )

    def _register(self) -> None:
        random, person = self._random, self._n >= CUSTOMERS - PERSONS
        attributes: dict[str, str | int | float | bool] = {} if person else {
            "employees": random.choice((40, 90, 180, 400, 900, 2500)),
            "standardised": random.random() < 0.4,
        }  # fmt: skip
        self._do(
            self._registered,
            "register_customer",
            kind=CustomerKind.PERSON if person else CustomerKind.COMPANY,
            name=self._name,
            region=self._region,
            industry=None if person else self._industry,
            source=random.choice(SOURCES),
            external_id=self._script.external(self._id),
            attributes=attributes,
        )
        for n in range(0 if person else random.choice((0, 1, 1, 2))):
            self._add_contact(n)
        if random.random() < 0.15:
            changed = {"employees": random.choice((60, 120, 300, 1200))}
            self._do(self._registered + 200, "change_profile", attributes=changed)

    def _add_contact(self, n: int) -> None:
        random = self._random
        given, family = random.choice(GIVEN), random.choice(FAMILY)
        self._do(
            self._registered + 1 + n + random.random() / 2,
            "add_contact",
            contact_id=computed_id("demo", self._script.seed, "contact", self._n, n),
            name=f"{given} {family}",
            department=random.choice(DEPARTMENTS),
            level=random.choice(LEVELS),
            role=random.choice(ROLES),
            email=f"{given}.{family}@customer-{self._n + 1}.example".lower(),
        )

    # What it answers to

    def _respond(self) -> list[tuple[float, Campaign]]:
        found = []
        for campaign in self._campaigns:
            near = campaign.region in (None, self._region)
            if self._random.random() >= (0.22 if near else 0.06):
                continue
            when = self._random.uniform(campaign.starts, campaign.ends) + 0.1
            if when <= self._registered or self._is_gone(when):
                continue
            found.append((when, campaign))
            self._do(
                when,
                "record_response",
                campaign_id=campaign.id,
                channel=campaign.channel,
                kind=RESPONSES[campaign.channel],
            )
        return found

    # What it buys

    def _win_first(self) -> float | None:
        """The deal that a story begins with; when it was won."""
        course = self._staged(self._brief(self._registered + self._random.uniform(3, 20), won=True))
        return None if course is None else course.ended

    def _deal(self, responses: Sequence[tuple[float, Campaign]]) -> list[Course]:
        random, briefs = self._random, []
        for when, campaign in responses:
            if random.random() < 0.45:
                opened = when + random.uniform(2, 25)
                touched = campaign.id if random.random() < 0.4 else None
                briefs.append(self._brief(opened, campaign_id=touched))
        own = random.choice((0, 1, 1, 2, 3)) if self._n % 7 else 0
        for _ in range(own):
            opened = random.uniform(self._registered + 2, DAYS)
            referred = "a customer" if random.random() < 0.2 else None
            briefs.append(self._brief(opened, referred_by=referred))
        courses = [self._staged(brief) for brief in briefs]
        return [course for course in courses if course is not None]

    def _brief(
        self,
        opened: float,
        *,
        campaign_id: UUID | None = None,
        referred_by: str | None = None,
        won: bool = False,
    ) -> Brief:
        self._deals += 1
        return Brief(
            id=f"DEAL-{self._n + 1:03}-{self._deals}",
            customer_id=self._target,
            customer_name=self._name if self._n < CUSTOMERS - PERSONS else "a private customer",
            owner=self._owner,
            successor=self._successor,
            opened=opened,
            campaign_id=campaign_id,
            referred_by=referred_by,
            won=won,
        )

    def _staged(self, brief: Brief) -> Course | None:
        """None of a deal that would run while the customer is gone: it is not begun."""
        course = course_of(self._script, brief)
        if self._gone is not None and course.ended > self._gone[0] and brief.opened < self._gone[1]:
            return None
        course.stage(self._script)
        return course

    def _buy(self, since: float) -> None:
        """Orders about every ten weeks, each paid in its time or later."""
        random, when, size = self._random, since, _size_of_order(self._random)
        growth = random.choice((0.92, 1.0, 1.0, 1.08))
        while (when := when + random.uniform(45, 100)) < DAYS:
            if self._is_gone(when):
                continue
            self._orders += 1
            amount = self._script.money(size)
            size *= growth
            self._do(when, "place_order", order_id=f"ORDER-{self._orders:02}", amount=amount)
            reference = f"INVOICE-{self._orders:02}"
            owes = self._story is not None and self._story.owes and when > since + 250
            if owes or random.random() < 0.12:
                self._do(
                    when + 35, "record_payment", kind="overdue", amount=amount, reference=reference
                )
            if not owes:
                paid = when + random.uniform(15, 30) + (30 if random.random() < 0.3 else 0)
                self._do(paid, "record_payment", kind="settled", amount=amount, reference=reference)

    # How the relationship goes

    def _relate(self, since: float, story: Story) -> None:
        random, when = self._random, since
        for level in story.levels:
            when += random.uniform(55, 95)
            self._level(when, level)
            if level is Level.DECLINING:
                self._warn(when - 10, Severity.MEDIUM)
        if not story.churns:
            return
        self._warn(when + 12, Severity.LOW)
        self._warn(when + 25, Severity.HIGH)
        left = when + random.uniform(40, 60)
        back = left + random.uniform(45, 75) if story.comes_back else float(DAYS)
        self._gone = (left, back)
        self._do(left, "churn", cause=_CAUSES[self._n // 4 % len(_CAUSES)])
        if story.comes_back:
            self._do(back, "win_back", reason="visit of the managing director")
            self._level(back + random.uniform(60, 90), Level.GROWING)

    def _level(self, when: float, level: Level) -> None:
        self._do(when, "change_level", level=level)

    def _warn(self, when: float, severity: Severity) -> None:
        kind = self._random.choice(SIGNALS)
        detail = "told by their purchasing" if severity is Severity.HIGH else None
        self._do(when, "raise_churn_signal", kind=kind, severity=severity, detail=detail)

    def _is_gone(self, when: float) -> bool:
        return self._gone is not None and self._gone[0] <= when < self._gone[1]

    def _do(
        self, when: float, method: str, *, reason: str | None = None, **arguments: object
    ) -> None:
        self._script.add(when, self._owner, method, self._target, reason=reason, **arguments)


def _size_of_order(random: Random) -> float:
    """Of a first order, in thousands."""
    return min(random.lognormvariate(2.6, 0.6), 200)
