"""Random histories of many customers in one log, each such as the commands would let it come to be
at the time it is recorded; a good part of the facts lie back in time when they are recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any
from uuid import UUID

from domain.customer import Customer
from domain.exchange_rate import ExchangeRate, exchange_rate_id
from domain.opportunity import Opportunity
from domain.pipeline import Pipeline
from domain.values import ChurnCause, Level, Money, RepeatType, Stage
from tests.integration.projections.story import PIPELINE, START, Story, named

CURRENCIES = ("CNY", "CNY", "CNY", "EUR", "JPY")
LATE = 0.35
"""Of the facts so many lie back when they are recorded."""
LOOK_BACK = timedelta(days=90)
DAYS = 500
"""That a log goes on for."""

TENDER = (
    Stage("listed", Decimal("0.25"), Decimal("1.5")),
    Stage("offered", Decimal("0.4"), Decimal("3")),
    Stage("awarded", Decimal("0.95"), Decimal("0.25")),
)
TENDER_REVISED = (
    Stage("listed", Decimal("0.3"), Decimal("1")),
    Stage("qualified", Decimal("0.5"), Decimal("0.5")),
    Stage("offered", Decimal("0.45"), Decimal("2.25")),
    Stage("awarded", Decimal("0.9"), Decimal("0")),
)
QUOTES = {
    ("EUR", "CNY"): ("7.2", "7.5", "8", "7.8123"),
    ("CNY", "EUR"): ("0.128", "0.125", "0.1333"),
    ("CNY", "JPY"): ("20", "21.5", "19.875"),
}
"""Rates between currencies; there is none between EUR and JPY."""
RENEWAL = (Stage("due", Decimal("0.7"), Decimal("1")),)
PIPELINES = (PIPELINE, named("tender"), named("renewal"))


@dataclass
class _Deal:
    id: UUID
    pipeline: UUID
    stages: list[str]
    revision: int
    stage: str
    opened: datetime
    last: datetime
    currency: str
    status: str = "open"


@dataclass
class _Customer:
    id: UUID
    created: datetime
    relations: bool = False
    lost_at: datetime | None = None
    orders: int = 0
    deliveries: int = 0
    deals: list[_Deal] = field(default_factory=list)


def histories(seed: int, customers: int, *, events: int = 22) -> Story:
    """A log with so many customers, and about `events` of each. Times are whole half days, so that
    equal instants are common."""
    return _Teller(Random(seed), customers).told(events * customers)


class _Teller:
    def __init__(self, random: Random, customers: int) -> None:
        self.random = random
        self.story = Story()
        self.wanted = customers
        self.now = START
        self.customers: list[_Customer] = []
        self.campaigns: list[UUID] = []
        self.revisions: dict[UUID, list[list[str]]] = {}

    def told(self, length: int) -> Story:
        self._prepare()
        step = timedelta(days=DAYS) / length
        exact = START
        while len(self.story.events) < length or len(self.customers) < self.wanted:
            exact += step
            half_days = int((exact - START) / timedelta(hours=12))
            self.now = START + timedelta(hours=12) * half_days
            missing = self.wanted - len(self.customers)
            if missing and self.random.random() < 0.12:
                self._register()
            elif self.customers:
                self._act(self.random.choice(self.customers))
            if self.random.random() < 30 / length:
                self._quote()
            if len(self.story.events) >= length // 2:
                self._revise()
        return self.story

    def _prepare(self) -> None:
        self.story.pipeline()
        for pipeline, stages in zip(PIPELINES[1:], (TENDER, RENEWAL), strict=True):
            self.story.tell(
                pipeline, Pipeline.Created, START, name=str(pipeline), stages=stages, approvals=()
            )
            self.revisions[pipeline] = [[stage.name for stage in stages]]
        self.revisions[PIPELINE] = [["prospect", "bid", "negotiation", "contract"]]
        for number in range(6):
            currency = "EUR" if number == 5 else "CNY"
            budget = Money(Decimal(1000), currency)
            self.campaigns.append(self.story.campaign(f"campaign {number}", budget=budget))
            cost = Money(Decimal(self.random.randint(0, 500)), currency)
            self.story.cost(self.campaigns[-1], cost, START)
        for pair in QUOTES:
            self.story.tell(
                exchange_rate_id(*pair), ExchangeRate.Created, START, from_currency=pair[0],
                to_currency=pair[1], originator_topic=ExchangeRate.TOPIC,
            )  # fmt: skip

    def _revise(self) -> None:
        """Once, in the middle: those who are under way keep the revision they run under."""
        tender = PIPELINES[1]
        if len(self.revisions[tender]) > 1:
            return
        self.story.tell(
            tender, Pipeline.Revised, self.now, revision=2, stages=TENDER_REVISED, approvals=()
        )
        self.revisions[tender].append([stage.name for stage in TENDER_REVISED])

    def _quote(self) -> None:
        """A day's rate, which may be one of long ago, or one that is there already."""
        pair = self.random.choice(list(QUOTES))
        at = self._at(START)
        self.story.tell(
            exchange_rate_id(*pair), ExchangeRate.RateRecorded, at, from_currency=pair[0],
            to_currency=pair[1], rate=Decimal(self.random.choice(QUOTES[pair])),
            on=at.date() - timedelta(days=self.random.choice([0, 0, 1, 40])),
        )  # fmt: skip

    def _at(self, first: datetime) -> datetime:
        """Now, or some time back, not before `first`; often the very instant of `first`, or so
        long ago that a touch just does not count any more for what is won now."""
        if first >= self.now or self.random.random() >= LATE:
            return self.now
        if self.random.random() < 0.15:
            return first
        if self.now - LOOK_BACK >= first and self.random.random() < 0.1:
            return self.now - LOOK_BACK
        back = int((self.now - first) / timedelta(hours=12))
        return self.now - timedelta(hours=12) * self.random.randint(0, min(back, 240))

    def _money(self, currency: str) -> Money:
        units = self.random.choice([0, 1, 7, 100_000, 99_999, self.random.randint(0, 10**7)])
        return Money(Decimal(units) if currency == "JPY" else Decimal(units) / 100, currency)

    def _register(self) -> None:
        number = len(self.customers)
        at = self._at(START)
        id_ = self.story.customer(f"customer {number}", at, identified=self.random.random() < 0.7)
        self.customers.append(_Customer(id_, at))

    def _act(self, customer: _Customer) -> None:
        act: Callable[[_Customer], None] = self.random.choices(
            [self._respond, self._order, self._level, self._churn, self._win_back, self._profile,
             self._need, self._open, self._deal, self._deliver],
            [22, 8, 8, 3, 3, 2, 5, 8, 46, 3],
        )[0]  # fmt: skip
        act(customer)

    def _respond(self, customer: _Customer) -> None:
        self.story.tell(
            customer.id,
            Customer.CampaignResponded,
            self._at(customer.created),
            campaign_id=self.random.choice(self.campaigns),
            channel=self.random.choice(["web", "visit", "letter"]),
            kind="reply",
        )

    def _order(self, customer: _Customer) -> None:
        at = self._at(customer.created)
        customer.orders += 1
        amount = self._money(self.random.choice(CURRENCIES))
        self.story.tell(
            customer.id,
            Customer.OrderPlaced,
            at,
            order_id=str(customer.orders),
            amount=amount,
            cost=self._cost(amount),
        )
        self._relate(customer, at)

    def _deliver(self, customer: _Customer) -> None:
        """Also where nothing was ordered: that may be told later."""
        customer.deliveries += 1
        self.story.tell(
            customer.id,
            Customer.Delivered,
            self._at(customer.created),
            delivery_id=str(customer.deliveries),
            order_id=None,
        )

    def _cost(self, amount: Money) -> Money | None:
        if self.random.random() < 0.4:
            return None
        units = round(amount.value * self.random.randint(10, 130))
        cost = Decimal(units) / 100
        return Money(cost // 1 if amount.currency == "JPY" else cost, amount.currency)

    def _need(self, customer: _Customer) -> None:
        self.story.tell(
            customer.id,
            Customer.DemandDescribed,
            self._at(customer.created),
            repeat_type=self.random.choice([None, *RepeatType, RepeatType.PROJECT]),
            cycle_days=None,
            stock_alert_below=None,
        )

    @staticmethod
    def _relate(customer: _Customer, at: datetime) -> None:
        customer.relations = True
        if customer.lost_at is not None and at >= customer.lost_at:
            customer.lost_at = None

    def _level(self, customer: _Customer) -> None:
        if customer.relations and customer.lost_at is None:
            level = self.random.choice([*Level, Level.STABLE, Level.STABLE])
            at = self._at(customer.created)
            self.story.tell(customer.id, Customer.LevelChanged, at, level=level, previous=None)

    def _churn(self, customer: _Customer) -> None:
        if customer.lost_at is None:
            customer.lost_at = self._at(customer.created)
            cause = self.random.choice([cause for cause in ChurnCause if cause != "silence"])
            self.story.tell(customer.id, Customer.Churned, customer.lost_at, cause=cause)

    def _win_back(self, customer: _Customer) -> None:
        if customer.lost_at is not None:
            at = self._at(customer.lost_at)
            self.story.tell(customer.id, Customer.WonBack, at)
            self._relate(customer, at)

    def _profile(self, customer: _Customer) -> None:
        self.story.tell(
            customer.id,
            Customer.ProfileChanged,
            self._at(customer.created),
            identified=self.random.choice([None, True]),
            region=self.random.choice([None, "north"]),
        )

    def _open(self, customer: _Customer) -> None:
        """Also before the customer was registered, as the commands allow."""
        pipeline = self.random.choice(PIPELINES)
        revisions = self.revisions[pipeline]
        stages, currency = revisions[-1], self.random.choice(CURRENCIES)
        at = self._at(customer.created if self.random.random() < 0.9 else START)
        number = len(self.story.events)
        stage = self.random.choice(stages)
        id_ = self.story.deal(
            f"deal {number}",
            customer.id,
            self._money(currency),
            at,
            pipeline_id=pipeline,
            pipeline_revision=len(revisions),
            stage=stage,
            owner=self.random.choice([None, "ann", "bob"]),
            campaign_id=self.random.choice([None, None, *self.campaigns]),
            expected_close=self._close(at),
        )
        customer.deals.append(_Deal(id_, pipeline, stages, len(revisions), stage, at, at, currency))

    def _deal(self, customer: _Customer) -> None:
        if not customer.deals:
            self._open(customer)
            return
        deal = self.random.choice(customer.deals)
        if deal.status not in ("open", "suspended"):
            return
        act: Callable[[_Customer, _Deal], None] = self.random.choices(
            [self._move, self._sign, self._lose, self._amount, self._transfer, self._suspend,
             self._estimate, self._terminate, self._expect],
            [36, 22, 9, 10, 5, 9, 4, 3, 10],
        )[0]  # fmt: skip
        act(customer, deal)

    def _tell(self, deal: _Deal, event_class: type[Any], **fields: Any) -> datetime:
        at = self._at(deal.opened)
        self.story.of_deal(deal.id, event_class, at, **fields)
        return at

    def _move(self, _: _Customer, deal: _Deal) -> None:
        if deal.status != "open":
            return
        if self.random.random() < 0.3:  # moved to the newest revision
            deal.stages = self.revisions[deal.pipeline][-1]
            deal.revision = len(self.revisions[deal.pipeline])
        others = [stage for stage in deal.stages if stage != deal.stage]
        if not others:
            return
        stage = self.random.choice(others)
        known = deal.stage in deal.stages
        back = known and deal.stages.index(stage) < deal.stages.index(deal.stage)
        self._tell(
            deal,
            Opportunity.StageMovedBack if back else Opportunity.StageAdvanced,
            from_stage=deal.stage,
            to_stage=stage,
            pipeline_revision=deal.revision,
            approved_by=None,
        )
        deal.stage = stage

    def _sign(self, customer: _Customer, deal: _Deal) -> None:
        at = self._at(deal.opened)
        amount = self._money(deal.currency)
        back = self.random.choice([0, 0, 0, 1, 20])
        self.story.of_deal(
            deal.id,
            Opportunity.ContractSigned,
            at,
            amount=amount,
            signed_on=max(at.date() - timedelta(days=back), deal.opened.date()),
            cost=self._cost(amount),
        )
        deal.status = "won"
        self._relate(customer, at)

    def _lose(self, _: _Customer, deal: _Deal) -> None:
        self._tell(deal, Opportunity.Lost, cause="price", competitor="Rival")
        deal.status = "lost"

    def _terminate(self, _: _Customer, deal: _Deal) -> None:
        self._tell(deal, Opportunity.Terminated, approved_by="boss")
        deal.status = "terminated"

    def _amount(self, _: _Customer, deal: _Deal) -> None:
        if deal.status != "open":
            return
        amount = self._money(deal.currency)
        self._tell(deal, Opportunity.AmountChanged, previous=amount, amount=amount)

    def _close(self, at: datetime) -> date | None:
        return self.random.choice([None, at.date() + timedelta(self.random.randint(0, 200))])

    def _expect(self, _: _Customer, deal: _Deal) -> None:
        close = self._close(self.now)
        self._tell(deal, Opportunity.ExpectedCloseChanged, previous=None, expected_close=close)

    def _transfer(self, _: _Customer, deal: _Deal) -> None:
        owner = self.random.choice(["ann", "bob", "eve"])
        self._tell(deal, Opportunity.Transferred, from_owner=None, to_owner=owner)

    def _suspend(self, _: _Customer, deal: _Deal) -> None:
        if deal.status == "open":
            self._tell(deal, Opportunity.Suspended, approved_by=None)
            deal.status = "suspended"
        else:
            self._tell(deal, Opportunity.Resumed)
            deal.status = "open"

    def _estimate(self, _: _Customer, deal: _Deal) -> None:
        chance = self.random.choice([Decimal("0.1"), Decimal("0.75")])
        self._tell(deal, Opportunity.ChanceEstimated, previous=None, chance=chance)
