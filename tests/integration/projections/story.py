"""Events told in the order of recording, and a feed of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid5

from domain.campaign import Campaign
from domain.customer import Customer
from domain.member import Member, member_id
from domain.opportunity import Opportunity
from domain.pipeline import DEFAULT_PIPELINE_ID, DEFAULT_PIPELINE_NAME, DEFAULT_STAGES, Pipeline
from domain.values import CustomerKind, Money
from infra.eventstore.feed import Batch, Head, Recorded, partition_of

SPACE = UUID("00000000-0000-4000-8000-000000000000")
START = datetime(2024, 1, 1, 9, tzinfo=UTC)
PIPELINE = DEFAULT_PIPELINE_ID


def named(name: str) -> UUID:
    """The id of the thing with this name."""
    return uuid5(SPACE, name)


def yuan(value: str) -> Money:
    return Money(Decimal(value), "CNY")


class Story:
    """A log in memory."""

    def __init__(self) -> None:
        self.events: list[Recorded] = []
        self.epoch = SPACE
        self._versions: dict[UUID, int] = {}
        self._partition_keys: dict[UUID, UUID] = {}

    def tell(
        self,
        stream: UUID,
        event_class: type[Any],
        at: datetime,
        *,
        partition_key: UUID | None = None,
        **fields: Any,
    ) -> Recorded:
        """Record one more event, `at` being when it was true."""
        version = self._versions[stream] = self._versions.get(stream, 0) + 1
        if issubclass(event_class, (Customer.Created, Opportunity.Created, Campaign.Created)):
            fields["originator_topic"] = event_class.TOPIC.rpartition(".")[0]
        if issubclass(event_class, Pipeline.Created):
            fields["originator_topic"] = "crm.pipeline"
        if issubclass(event_class, Member.Created):
            fields["originator_topic"] = "crm.member"
        event = event_class(
            originator_id=stream, originator_version=version, timestamp=at, **fields
        )
        position = len(self.events) + 1
        key = self._partition_keys.setdefault(stream, partition_key or stream)
        recorded = Recorded(
            position=position,
            stream_id=stream,
            version=version,
            topic=event_class.TOPIC,
            partition_key=key,
            occurred_at=at,
            recorded_at=at,
            actor="tester",
            command_id=str(named(f"command {position}")),
            correlation_id=str(named("story")),
            causation_id=None,
            reason=None,
            traceparent=None,
            event=event,
        )
        self.events.append(recorded)
        return recorded

    def pipeline(self, at: datetime = START) -> None:
        self.tell(
            PIPELINE,
            Pipeline.Created,
            at,
            name=DEFAULT_PIPELINE_NAME,
            stages=DEFAULT_STAGES,
            approvals=(),
        )

    def customer(self, called: str, at: datetime = START, **fields: Any) -> UUID:
        defaults: dict[str, Any] = {
            "kind": CustomerKind.COMPANY,
            "name": called,
            "personal_name": None,
            "identified": True,
            "region": None,
            "industry": None,
            "source": None,
            "external_id": None,
            "attributes": {},
        }
        self.tell(named(called), Customer.Created, at, **{**defaults, **fields})
        return named(called)

    def deal(
        self, name: str, customer: UUID, amount: Money, at: datetime = START, **fields: Any
    ) -> UUID:
        defaults: dict[str, Any] = {
            "customer_id": customer,
            "name": name,
            "amount": amount,
            "pipeline_id": PIPELINE,
            "pipeline_revision": 1,
            "stage": "prospect",
            "expected_close": None,
            "owner": None,
            "campaign_id": None,
            "referred_by": None,
            "external_id": None,
        }
        self.tell(
            named(name),
            Opportunity.Created,
            at,
            partition_key=customer,
            **{**defaults, **fields},
        )
        return named(name)

    def of_deal(self, deal: UUID, event_class: type[Any], at: datetime, **fields: Any) -> None:
        """One more event of a deal that was opened."""
        self.tell(deal, event_class, at, **fields)

    def advance(self, deal: UUID, stage: str, at: datetime, *, back: bool = False) -> None:
        self.of_deal(
            deal,
            Opportunity.StageMovedBack if back else Opportunity.StageAdvanced,
            at,
            from_stage="",
            to_stage=stage,
            pipeline_revision=1,
            approved_by=None,
        )

    def sign(self, deal: UUID, amount: Money, at: datetime, signed_on: date | None = None) -> None:
        self.of_deal(
            deal,
            Opportunity.ContractSigned,
            at,
            amount=amount,
            signed_on=signed_on or at.date(),
        )

    def respond(self, customer: UUID, campaign: UUID, at: datetime) -> int:
        """The position of the response."""
        return self.tell(
            customer,
            Customer.CampaignResponded,
            at,
            campaign_id=campaign,
            channel="web",
            kind="download",
        ).position

    def order(self, customer: UUID, at: datetime) -> None:
        number = str(len(self.events))
        self.tell(customer, Customer.OrderPlaced, at, order_id=number, amount=yuan("1"))

    def campaign(self, name: str, at: datetime = START, **fields: Any) -> UUID:
        defaults: dict[str, Any] = {
            "name": name,
            "channel": "web",
            "region": None,
            "starts_on": at.date(),
            "ends_on": at.date(),
            "budget": yuan("1000.00"),
            "external_id": None,
        }
        self.tell(named(name), Campaign.Created, at, **{**defaults, **fields})
        return named(name)

    def member(self, owner: str, team: str | None, at: datetime = START) -> None:
        """Who is in which team from then on."""
        stream = member_id(owner)
        event_class = Member.TeamChanged if stream in self._versions else Member.Created
        self.tell(stream, event_class, at, owner=owner, team=team)

    def cost(self, campaign: UUID, amount: Money, at: datetime) -> None:
        self.tell(campaign, Campaign.CostBooked, at, amount=amount, reference="invoice")

    def read(self, after: int, limit: int) -> Batch:
        """The story is a feed of itself."""
        through = min(after + limit, len(self.events))
        return Batch(self.events[after:through], through, self.head())

    def by_key(
        self, share: Collection[int], partitions: int, through: int, rows: int
    ) -> Iterator[list[Recorded]]:
        """Key after key, each whole; `rows` at once or more."""
        some: list[Recorded] = []
        told = self.events[:through]
        for key in sorted({event.partition_key for event in told}):
            if partition_of(key, partitions) in share:
                some += [event for event in told if event.partition_key == key]
            if len(some) >= rows:
                yield some
                some = []
        if some:
            yield some

    def head(self) -> Head:
        return Head(len(self.events), self.epoch)
