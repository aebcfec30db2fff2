"""The customers: who they are, what they answer to, and how the relationship goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final
from uuid import UUID

from domain.values import ChurnCause, CustomerKind, Level, Money, Severity
from workers.demo.campaigns import Campaign
from workers.demo.currencies import foreign_currencies
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
from workers.demo.purchases import Habit, Trend, stage_purchases
from workers.demo.script import DAYS, Script
from workers.steps import computed_id

CUSTOMERS: Final = 110
PERSONS: Final = 8
"""Of the customers, the last ones."""
OWNERS: Final = 8
FIRST_CUSTOMER: Final = "CUSTOMER-001"
"""Registered at the very beginning: tells a later run when that was."""
_ABROAD: Final = 7
"""Of so many customers one pays in another currency."""


@dataclass(frozen=True, slots=True)
class Story:
    """How a relationship goes, and how it ends."""

    levels: tuple[Level, ...] = ()
    """After the first: set by those who look after the customer, or else left to the rule."""
    churns: bool = False
    comes_back: bool = False
    owes: bool = False
    """Stops paying."""

    @property
    def trend(self) -> Trend:
        """Of the orders: the levels follow from it."""
        return _TRENDS[self.levels[-1]]


_TRENDS: Final = {
    Level.GROWING: Trend.RISING,
    Level.STABLE: Trend.LEVEL,
    Level.DECLINING: Trend.FALLING,
    Level.PROBLEM: Trend.FALLING,
    Level.NO_VALUE: Trend.LOSING,
}
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
        if self._id == FIRST_CUSTOMER:
            self._registered = 0.0
        elif self._story is not None:
            self._registered = self._random.uniform(0.1, 60)
        else:
            self._registered = self._random.uniform(0.1, DAYS * 0.75)
        self._industry = self._random.choice(INDUSTRIES)
        self._region = self._random.choice(REGIONS)
        self._name = self._random_name()
        self._margin = self._random.uniform(0.16, 0.36)
        self._currency = self._random_currency()
        self._judged = self._n // len(STORIES) % 2 == 0
        """Whether its levels are set by judgement."""
        self._turn: float | None = None
        """When things begin to go worse, if that is told."""
        self._gone: tuple[float, float] | None = None
        """From its loss to its return."""

    def stage(self) -> None:
        self._register()
        since = None
        if self._story is not None:
            since = self._win_first() if self._judged and self._n % 2 else self._order_first()
            if since is not None:
                self._relate(since, self._story)
        responses = self._respond()
        courses = self._deal(responses)
        self._respond_more(courses)
        wins = [course.ended for course in courses if course.outcome == "won"]
        if since is None and wins:
            since = min(wins)
            if self._judged and self._random.random() < 0.6:
                self._level(since + self._random.uniform(80, 140), Level.GROWING)
        if since is not None:
            self._buy(since)

    # Who it is

    def _random_currency(self) -> str | None:
        """None: ours."""
        foreign = foreign_currencies(self._script.currency)
        abroad = self._n % _ABROAD == _ABROAD - 1 and self._n < CUSTOMERS - PERSONS
        return foreign[self._n // _ABROAD % len(foreign)] if abroad and foreign else None

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
        interest = self._random.choice((0.5, 1.0, 2.0))
        for campaign in self._campaigns:
            chance = 0.24 if self._is_near(campaign) else 0.06
            if self._random.random() >= interest * campaign.draw * chance:
                continue
            when = self._random.uniform(campaign.starts, campaign.ends) + 0.1
            if when <= self._registered or self._is_gone(when):
                continue
            found.append((when, campaign))
            self._answer(when, campaign)
        return found

    def _respond_more(self, courses: Sequence[Course]) -> None:
        """Who is about to buy goes to see things, too."""
        random = self._script.random("responses", self._n)
        for course in courses:
            for campaign in self._campaigns:
                begin = max(campaign.starts, course.opened) + 0.1
                end = min(campaign.ends, course.ended)
                if begin >= end or not self._is_near(campaign):
                    continue
                if random.random() < 0.35 * campaign.draw:
                    self._answer(random.uniform(begin, end), campaign)

    def _is_near(self, campaign: Campaign) -> bool:
        return campaign.region in (None, self._region)

    def _answer(self, when: float, campaign: Campaign) -> None:
        self._do(
            when,
            "record_response",
            campaign_id=campaign.id,
            channel=campaign.channel,
            kind=RESPONSES[campaign.channel],
        )

    # What it buys

    def _win_first(self) -> float | None:
        """The deal that a story begins with; when it was won."""
        course = self._staged(self._brief(self._registered + self._random.uniform(3, 20), won=True))
        return None if course is None else course.ended

    def _order_first(self) -> float:
        """The order that a story begins with, on trial; when it was placed."""
        when = self._registered + self._random.uniform(2, 12)
        size = self._random.uniform(4, 12)
        self._do(
            when, "place_order",
            order_id="ORDER-TRIAL",
            amount=self._script.money(size, self._currency),
            cost=self._script.cost(size * (1 - self._margin), self._currency),
        )  # fmt: skip
        self._do(
            when + 5.5, "record_delivery", delivery_id="DELIVERY-TRIAL", order_id="ORDER-TRIAL"
        )
        return when

    def _deal(self, responses: Sequence[tuple[float, Campaign]]) -> list[Course]:
        random, briefs = self._random, []
        for when, campaign in responses:
            if random.random() < 0.45:
                opened = when + random.uniform(2, 25)
                touched = campaign.id if random.random() < 0.6 else None
                briefs.append(self._brief(opened, campaign_id=touched, product=campaign.product))
        own = random.choice((1, 2, 2, 3, 4)) if self._n % 7 else 1
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
        product: str | None = None,
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
            margin=self._margin,
            currency=self._currency,
            product=product,
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
        if course.outcome == "won":
            built = self._script.random("delivery", brief.id).uniform(30, 90)
            self._do(
                course.ended + built, "record_delivery",
                delivery_id=f"DELIVERY-{brief.id}",
                order_id=str(course.target),
            )  # fmt: skip
        return course

    def _buy(self, since: float) -> None:
        story = self._story
        if story is None:
            trend = self._random.choice(tuple(_TRENDS.values())[:3])
            if self._n % 13 == 11:
                trend = Trend.LOSING
        else:
            trend = story.trend
        company = self._n < CUSTOMERS - PERSONS
        habit = Habit(
            since=since,
            trend=trend,
            turn=self._turn or since + self._random.uniform(190, 270),
            margin=self._margin,
            currency=self._currency,
            owes=story is not None and story.owes,
            project=company and story is None and self._random.random() < 0.35,
            reports_stock=company and self._n % 8 == 5,
        )
        random = self._script.random("purchases", self._n)
        stage_purchases(self._script, random, habit, self._is_gone, self._do)

    # How the relationship goes

    def _relate(self, since: float, story: Story) -> None:
        random, when = self._random, since
        for level in story.levels:
            when += random.uniform(55, 95)
            if self._judged:
                self._level(when, level)
            if level in (Level.DECLINING, Level.NO_VALUE):
                self._turn = self._turn or when - 50
            if level is Level.DECLINING:
                self._warn(when - 10, Severity.MEDIUM)
                if story.levels[-1] is not Level.NO_VALUE:
                    self._keep(when + random.uniform(4, 9))
            elif level is Level.NO_VALUE:
                self._give_up(when + random.uniform(20, 30))
        if not story.churns:
            return
        self._warn(when + 12, Severity.LOW)
        self._warn(when + 25, Severity.HIGH)
        left = when + random.uniform(40, 60)
        back = left + random.uniform(45, 75) if story.comes_back else float(DAYS)
        self._gone = (left, back)
        self._do(left, "churn", cause=_CAUSES[(self._n + self._n // len(STORIES)) % len(_CAUSES)])
        if story.comes_back:
            self._do(back, "win_back", reason="visit of the managing director")
            self._level(back + random.uniform(60, 90), Level.GROWING)

    def _keep(self, when: float) -> None:
        """A limit, and what is spent within it; in our own currency."""
        random, script = self._random, self._script
        limit = random.choice((10, 15, 20, 30, 40))
        effect = random.choice((Severity.LOW, Severity.MEDIUM, Severity.HIGH))
        self._do(
            when, "plan_retention",
            reason="they have been with us from the beginning",
            worth_keeping=True,
            social_effect=effect,
            limit=script.money(limit),
        )  # fmt: skip
        for n in range(random.randint(1, 3)):
            when += random.uniform(3, 9)
            self._do(
                when, "book_retention_cost",
                amount=script.cost(limit * random.uniform(0.12, 0.33)),
                reference=f"KEEP-{n + 1}",
            )  # fmt: skip

    def _give_up(self, when: float) -> None:
        self._do(
            when, "plan_retention",
            reason="they cost more than they bring",
            worth_keeping=False,
            social_effect=Severity.LOW,
            limit=Money.of("0", self._script.currency),
        )  # fmt: skip

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
