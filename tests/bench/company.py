"""A long, believable log for folding: written by COPY, since filling it is not what is measured."""

from __future__ import annotations

import io
import itertools
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from domain.campaign import Campaign
from domain.customer import Customer
from domain.opportunity import Opportunity
from domain.pipeline import DEFAULT_PIPELINE_ID, DEFAULT_STAGES, Pipeline
from domain.values import CustomerKind, Money
from infra.eventstore.transcoder import event_codec
from infra.postgres import connect

_START = datetime(2024, 1, 1, tzinfo=UTC)
_Fact = tuple[datetime, UUID, UUID, Any, dict[str, Any]]
"""When, stream, partition key, event class, fields."""

_COLUMNS = """position, stream_id, version, topic, class_version, partition_key, occurred_at,
    recorded_at, actor, command_id, correlation_id, causation_id, reason, state"""


class _Company:
    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._campaigns: list[UUID] = []

    def id(self) -> UUID:
        return UUID(int=self._random.getrandbits(128), version=4)

    def _money(self) -> Money:
        return Money(Decimal(self._random.randint(1_000, 900_000)), "CNY")

    def _later(self, at: datetime, days: float) -> datetime:
        return at + timedelta(days=self._random.uniform(0.1, days))

    def campaigns(self, count: int) -> Iterator[_Fact]:
        for number in range(count):
            campaign, at = self.id(), self._later(_START, 600)
            self._campaigns.append(campaign)
            fields = {
                "name": f"Campaign {number}", "channel": "web", "region": "north",
                "starts_on": at.date(), "ends_on": at.date(), "budget": self._money(),
            }  # fmt: skip
            yield at, campaign, campaign, Campaign.Created, fields
            for day, event in enumerate((Campaign.Submitted, Campaign.Started), 1):
                yield at + timedelta(hours=day), campaign, campaign, event, {}
            for day in range(15):
                cost = {"amount": self._money(), "reference": f"invoice {day}"}
                yield at + timedelta(days=day + 1), campaign, campaign, Campaign.CostBooked, cost

    def customer(self, number: int) -> Iterator[_Fact]:
        customer, at = self.id(), self._later(_START, 500)
        fields: dict[str, Any] = {
            "kind": CustomerKind.COMPANY, "name": f"Company {number}", "identified": True,
            "region": self._random.choice(["north", "south", "east"]), "industry": "retail",
            "attributes": {"size": self._random.randint(1, 9)},
        }  # fmt: skip
        yield at, customer, customer, Customer.Created, fields
        for _ in range(self._random.choice([0, 2, 3, 6])):
            campaign = self._random.choice(self._campaigns)
            response = {"campaign_id": campaign, "channel": "web", "kind": "click"}
            yield self._later(at, 200), customer, customer, Customer.CampaignResponded, response
        for order in range(self._random.choice([0, 0, 1, 2])):
            placed = {"order_id": f"{number}-{order}", "amount": self._money()}
            yield self._later(at, 300), customer, customer, Customer.OrderPlaced, placed
        for _ in range(self._random.choice([1, 1, 2, 3])):
            yield from self._deal(customer, self._later(at, 150))

    def _deal(self, customer: UUID, at: datetime) -> Iterator[_Fact]:
        deal, amount = self.id(), self._money()
        touched = self._random.random() < 0.4
        opened = {
            "customer_id": customer, "name": "Pumps", "amount": amount,
            "pipeline_id": DEFAULT_PIPELINE_ID, "pipeline_revision": 1, "stage": "prospect",
            "expected_close": (at + timedelta(days=90)).date(),
            "owner": f"rep-{self._random.randint(1, 40)}",
            "campaign_id": self._random.choice(self._campaigns) if touched else None,
        }  # fmt: skip
        yield at, deal, customer, Opportunity.Created, opened
        names = [stage.name for stage in DEFAULT_STAGES]
        for here, there in itertools.pairwise(names):
            if self._random.random() < 0.2:
                break
            at = self._later(at, 60)
            moved = {"from_stage": here, "to_stage": there, "pipeline_revision": 1}
            yield at, deal, customer, Opportunity.StageAdvanced, moved
            if self._random.random() < 0.3:
                at = self._later(at, 2)
                changed = {"previous": amount, "amount": self._money()}
                yield at, deal, customer, Opportunity.AmountChanged, changed
        at = self._later(at, 30)
        outcome = self._random.random()
        if outcome < 0.45:
            signed = {"amount": amount, "signed_on": at.date()}
            yield at, deal, customer, Opportunity.ContractSigned, signed
        elif outcome < 0.8:
            lost = {"cause": "price", "competitor": "Globex"}
            yield at, deal, customer, Opportunity.Lost, lost


def fill(admin_url: str, events: int, seed: int = 7) -> int:
    """Put about so many events into an empty log, in order of time; gives how many."""
    company = _Company(seed)
    facts: list[_Fact] = list(company.campaigns(max(5, events // 2500)))
    pipeline = {"name": "project sale", "stages": DEFAULT_STAGES, "approvals": ()}
    facts.append((_START, DEFAULT_PIPELINE_ID, DEFAULT_PIPELINE_ID, Pipeline.Created, pipeline))
    number = 0
    while len(facts) < events:
        number += 1
        facts += company.customer(number)
    facts.sort(key=lambda fact: fact[0])
    versions: dict[UUID, int] = {}
    lines = io.StringIO()
    command = company.id()
    for position, (at, stream, key, event, fields) in enumerate(facts, 1):
        version = versions[stream] = versions.get(stream, 0) + 1
        codec = event_codec(event)
        state = codec.encode({**dict.fromkeys(codec.names), **fields}).hex()
        columns = (
            position, stream, version, event.TOPIC, 1, key, at, at, "bench", command, command,
            r"\N", r"\N", rf"\\x{state}",
        )  # fmt: skip
        lines.write("\t".join(map(str, columns)) + "\n")
    lines.seek(0)
    connection = connect(admin_url)
    with connection, connection.cursor() as cursor:
        cursor.copy_expert(f"COPY log.events ({_COLUMNS}) FROM STDIN", lines)
        cursor.execute(
            "UPDATE log.head SET position = %s, recorded_at = %s", (len(facts), facts[-1][0])
        )
    connection.close()
    return len(facts)
