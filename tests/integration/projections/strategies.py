"""Random stories: a few customers, deals and campaigns, facts in any order of time."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from random import Random
from typing import Any
from uuid import UUID

from domain.campaign import Campaign
from domain.customer import Customer
from domain.opportunity import Opportunity
from domain.values import ChurnCause, ExternalId, Level, Money, Personal
from tests.integration.projections.story import START, Story, named

NASTY = ["plain", "tab\there", "back\\slash", "new\nline", "\\N", "", "'quote\"", "名字", "a\\tb"]


def random_story(seed: int, length: int, *, customers: int = 4, late: float = 0.4) -> Story:
    """`length` events or a few more; `late` of them lie before others of their key in time.

    Days are whole, so that equal instants are common.
    """
    return _Teller(seed, late).told(length, customers)


class _Teller:
    def __init__(self, seed: int, late: float) -> None:
        self.random = Random(seed)
        self.story = Story()
        self.late = late
        self.today = 0
        self.customers: list[UUID] = []
        self.deals: list[UUID] = []
        self.campaigns: list[UUID] = []
        self.currencies: dict[UUID, str] = {}

    def told(self, length: int, customers: int) -> Story:
        self.story.pipeline()
        for number in range(2):
            self.campaigns.append(self.story.campaign(f"campaign {number}", self.at()))
        while len(self.story.events) < length:
            if len(self.customers) < customers and self.random.random() < 0.3:
                self._register()
            elif self.customers:
                self.random.choice([self._customer, self._customer, self._deal, self._campaign])()
                if self.random.random() < 0.03:
                    self._member()
        return self.story

    def at(self) -> Any:
        self.today += self.random.choice([0, 0, 1, 5, 30])
        back = self.random.randint(0, 120) if self.random.random() < self.late else 0
        return START + timedelta(days=max(self.today - back, 0))

    def _pick(self, choices: list[tuple[type[Any], dict[str, Any]]]) -> Any:
        return self.random.choice(choices)

    def _text(self) -> str:
        return self.random.choice(NASTY)

    def _money(self, currency: str) -> Money:
        cents = self.random.randint(0, 100_000)
        return Money(Decimal(cents) if currency == "JPY" else Decimal(cents) / 100, currency)

    def _register(self) -> None:
        number = len(self.customers)
        self.customers.append(
            self.story.customer(
                f"customer {number}",
                self.at(),
                name=self._text(),
                identified=self.random.random() < 0.6,
                external_id=ExternalId("old", self._text()) if number % 2 else None,
                attributes={"text": self._text(), "number": 1.5, "flag": True},
            )
        )

    def _customer(self) -> None:
        customer, pick = self.random.choice(self.customers), self.random.random()
        if pick < 0.35:
            self.story.respond(customer, self.random.choice(self.campaigns), self.at())
        elif pick < 0.43:
            self.story.order(customer, self.at())
        elif pick < 0.45:
            number, order = str(len(self.story.events)), self.random.choice([None, self._text()])
            self._tell(customer, Customer.Delivered, delivery_id=number, order_id=order)
        elif pick < 0.55:
            self._tell(customer, Customer.Churned, cause=self.random.choice(list(ChurnCause)))
        elif pick < 0.65:
            self._tell(customer, Customer.WonBack)
        elif pick < 0.8:
            level = self.random.choice(list(Level))
            self._tell(customer, Customer.LevelChanged, level=level, previous=None)
        elif pick < 0.95:
            self._tell(
                customer,
                Customer.ProfileChanged,
                name=self.random.choice([None, self._text()]),
                identified=self.random.choice([None, True]),
                region=self.random.choice([None, "", self._text()]),
                attributes=self.random.choice([{}, {"text": self._text()}]),
                removed_attributes=self.random.choice([(), ("number",)]),
            )
        else:
            self._tell(
                customer,
                Customer.ContactAdded,
                contact_id=named(f"contact {len(self.story.events)}"),
                name=Personal(customer, None, "1.token"),
                department=self._text(),
                level=None,
                role=None,
                email=None,
                phone=Personal(customer, None, "1.token2"),
            )

    def _tell(self, stream: UUID, event_class: type[Any], **fields: Any) -> None:
        self.story.tell(stream, event_class, self.at(), **fields)

    def _deal(self) -> None:
        if not self.deals or self.random.random() < 0.2:
            currency = self.random.choice(["CNY", "CNY", "CNY", "JPY"])
            deal = self.story.deal(
                f"deal {len(self.deals)}",
                self.random.choice(self.customers),
                self._money(currency),
                self.at(),
                owner=self._text(),
                campaign_id=self.random.choice([None, *self.campaigns]),
            )
            self.deals.append(deal)
            self.currencies[deal] = currency
            return
        deal, pick = self.random.choice(self.deals), self.random.random()
        currency = self.currencies[deal]
        if pick < 0.35:
            stage = self.random.choice(["prospect", "bid", "negotiation"])
            self.story.advance(deal, stage, self.at(), back=self.random.random() < 0.3)
        elif pick < 0.5:
            self.story.sign(deal, self._money(currency), self.at())
        else:
            event_class, fields = self._pick(
                [
                    (
                        Opportunity.AmountChanged,
                        {"previous": self._money(currency), "amount": self._money(currency)},
                    ),
                    (Opportunity.Transferred, {"from_owner": None, "to_owner": self._text()}),
                    (Opportunity.Suspended, {"approved_by": None}),
                    (Opportunity.Resumed, {}),
                    (Opportunity.Terminated, {"approved_by": "boss"}),
                    (Opportunity.Lost, {"cause": self._text(), "competitor": self._text()}),
                    (Opportunity.ChanceEstimated, {"previous": None, "chance": Decimal("0.25")}),
                    (Opportunity.ActivityRecorded, {"kind": "visit", "result": self._text()}),
                    (
                        Opportunity.ExpenseBooked,
                        {"purpose": "fair", "amount": self._money(currency)},
                    ),
                    (
                        Opportunity.Reviewed,
                        {
                            "summary": Personal(deal, None, "1.x"),
                            "competitor": self.random.choice([None, self._text()]),
                        },
                    ),
                    (Opportunity.Closed, {}),
                    (Opportunity.Archived, {}),
                ]
            )
            self.story.of_deal(deal, event_class, self.at(), **fields)

    def _member(self) -> None:
        owner = self.random.choice(NASTY)
        self.story.member(owner, self.random.choice([None, "north", self._text()]), self.at())

    def _campaign(self) -> None:
        campaign = self.random.choice(self.campaigns)
        event_class, fields = self._pick(
            [
                (Campaign.Submitted, {}),
                (Campaign.Approved, {"approved_by": "boss"}),
                (Campaign.Started, {}),
                (Campaign.CostBooked, {"amount": Money(Decimal("10.00"), "CNY"), "reference": "x"}),
                (Campaign.Completed, {}),
            ]
        )
        self._tell(campaign, event_class, **fields)
