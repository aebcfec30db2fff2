"""From orders and responses to the commands that record them, each with a key of its own."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, time
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

import numpy as np

from domain.aggregate import LedgerAggregate
from domain.application import CRM
from domain.customer import Customer
from domain.values import ExternalId, Money, stream_id
from workers.importing.fact_mapping import Customers, OrderLayout, ResponseLayout
from workers.importing.facts import Fact, FactReader, Order, Response
from workers.importing.records import LineError, Table
from workers.steps import Step, computed_id

TELL_EVERY: Final = 1_000

F = TypeVar("F", bound=Fact)


@dataclass(slots=True)
class First:
    """Of a customer's lines."""

    at: datetime
    line: int
    name: str | None


@dataclass(slots=True)
class Flight:
    """A campaign as the file's responses show it."""

    name: str | None
    channel: str
    first: datetime
    last: datetime


@dataclass(slots=True)
class FactSurvey:
    """Of the lines that can be taken. Memory: customers, campaigns, and 8 bytes for each line."""

    lines: int = 0
    """Records of the file, those that cannot be taken included."""
    free: int = 0
    """Orders with an amount of 0."""
    customers: dict[str, First] = field(default_factory=dict)
    campaigns: dict[str, Flight] = field(default_factory=dict)
    repeated: frozenset[int] = frozenset()
    """Hashes of the identities that seem to stand in more than one line."""

    def take(self, fact: Fact) -> None:
        first = self.customers.setdefault(fact.customer, First(fact.at, fact.line, fact.name))
        first.at = min(first.at, fact.at)
        first.name = first.name or fact.name
        if isinstance(fact, Response):
            flight = self.campaigns.setdefault(
                fact.campaign, Flight(fact.campaign_name, fact.channel, fact.at, fact.at)
            )
            flight.first, flight.last = min(flight.first, fact.at), max(flight.last, fact.at)
            flight.name = flight.name or fact.campaign_name
        elif isinstance(fact, Order):
            self.free += fact.amount.value == 0


def survey_facts(
    table: Table, reader: FactReader[F], tell: Callable[[int], None]
) -> FactSurvey:  # fmt: skip
    """Reads the whole table once; `tell` hears from time to time how many lines it is at."""
    found = FactSurvey()
    hashes = array("q")
    for record in table.records():
        found.lines += 1
        if found.lines % TELL_EVERY == 0:
            tell(found.lines)
        try:
            fact = reader.fact(record)
        except LineError:
            continue
        hashes.append(hash(fact.identity))
        found.take(fact)
    values, counts = np.unique(np.frombuffer(hashes, dtype=np.int64), return_counts=True)
    found.repeated = frozenset(values[counts > 1].tolist())
    return found


class Numbering:
    """Numbers alike lines 1, 2, …; refuses them where each has an id of its own."""

    def __init__(self, repeated: frozenset[int]) -> None:
        self._repeated = repeated
        self._seen: Counter[tuple[str, ...]] = Counter()
        self._first_lines: dict[tuple[str, ...], int] = {}

    def number(self, fact: Fact) -> int:
        """Raises LineError."""
        identity = fact.identity
        if hash(identity) not in self._repeated:
            return 1
        if not fact.numbered:
            first = self._first_lines.setdefault(identity, fact.line)
            if first != fact.line:
                raise LineError("duplicate-id", f"the id stands in line {first}, too")
        self._seen[identity] += 1
        return self._seen[identity]


@dataclass(slots=True)
class Recorded:
    """What the log has of a customer that an import may have recorded."""

    orders: dict[str, Customer.OrderPlaced] = field(default_factory=dict)
    responses: Counter[tuple[UUID, str, str, datetime]] = field(default_factory=Counter)

    @classmethod
    def of(cls, events: Iterable[LedgerAggregate.Event]) -> Recorded:
        found = cls()
        for event in events:
            match event:
                case Customer.OrderPlaced():
                    found.orders[event.order_id] = event
                case Customer.CampaignResponded():
                    key = (event.campaign_id, event.channel, event.kind, event.timestamp)
                    found.responses[key] += 1
                case _:
                    continue
        return found


class FactPlanner(Generic[F]):
    """Makes the steps for one file."""

    def __init__(
        self, crm: CRM, layout: OrderLayout | ResponseLayout, survey: FactSurvey, file: str
    ) -> None:
        self._crm = crm
        self._source = layout.source
        self._customers: Customers = layout.customers
        self._survey = survey
        self._file = file

    def customer_id(self, customer: str) -> UUID:
        return stream_id("customer", self._external_customer(customer))

    def registration(self, customer: str) -> Step:
        """Of a customer that is not here, as far as the file knows it; one that is here stays as
        it is."""
        external = self._external_customer(customer)
        first = self._survey.customers[customer]
        registered = self._customers.registered
        at = first.at
        if registered != "first":
            at = min(at, datetime.combine(registered, time.min, tzinfo=self._crm.timezone))
        return Step(
            self._crm.register_customer,
            stream_id("customer", external),
            key=self.key("customer", external.source, external.id),
            content=None,
            arguments={
                "kind": self._customers.customer_kind,
                "name": first.name,
                "identified": first.name is not None,
                "source": self._source,
                "external_id": external,
                "occurred_at": at,
            },
            reason=f"import of {self._file}, line {first.line}",
        )

    def step(self, fact: F, number: int) -> Step:
        """Records the fact; `number` is its own among alike lines."""
        raise NotImplementedError

    def differences(self, fact: F, number: int, recorded: Recorded) -> list[str] | None:
        """What the line says otherwise than was recorded; None: it was not recorded."""
        raise NotImplementedError

    def explained(self, fact: F, error: LineError) -> LineError:
        """What is not here is called what the file calls it."""
        if error.problem == "customer-not-found":
            external = self._external_customer(fact.customer)
            return LineError(error.problem, f"there is no customer {_told(external)}")
        return error

    def key(self, *name: str) -> str:
        return str(computed_id("import", *name))

    def _external_customer(self, customer: str) -> ExternalId:
        return ExternalId.of(self._customers.source or self._source, customer)

    def _reason(self, fact: F) -> str:
        return f"import of {self._file}, line {fact.line}"


class OrderPlanner(FactPlanner[Order]):
    def step(self, fact: Order, number: int) -> Step:
        external = self._external_customer(fact.customer)
        order_id = fact.order_id(number)
        arguments: dict[str, Any] = {
            "order_id": order_id,
            "amount": fact.amount,
            "occurred_at": fact.at,
        }
        if fact.cost is not None:
            arguments["cost"] = fact.cost
        return Step(
            self._crm.place_order,
            stream_id("customer", external),
            key=self.key("order", self._source, external.source, external.id, order_id),
            content=[fact.on, str(fact.amount), None if fact.cost is None else str(fact.cost)],
            arguments=arguments,
            reason=self._reason(fact),
        )

    def differences(self, fact: Order, number: int, recorded: Recorded) -> list[str] | None:
        known = recorded.orders.get(fact.order_id(number))
        if known is None:
            return None
        cost: Money | None = getattr(known, "cost", None)
        pairs = (
            ("amount", known.amount, fact.amount),
            ("cost", cost, fact.cost),
            ("placed", known.timestamp.isoformat(), fact.at.isoformat()),
        )
        return [
            f"{name}: {'nothing' if here is None else here} here,"
            f" {'nothing' if there is None else there} in the file"
            for name, here, there in pairs
            if here != there
        ]


class ResponsePlanner(FactPlanner[Response]):
    def __init__(
        self, crm: CRM, layout: ResponseLayout, survey: FactSurvey, file: str, currency: str
    ) -> None:
        """`currency` is that of the budget of campaigns that are planned."""
        super().__init__(crm, layout, survey, file)
        self._campaigns = layout.campaigns
        self._currency = currency

    def campaign(self, campaign: str) -> Step:
        """Plans a campaign that is not here."""
        external = self._external_campaign(campaign)
        flight = self._survey.campaigns[campaign]
        zone = self._crm.timezone
        return Step(
            self._crm.plan_campaign,
            stream_id("campaign", external),
            key=self.key("campaign", external.source, external.id),
            content=None,
            arguments={
                "name": flight.name or campaign,
                "channel": flight.channel,
                "starts_on": flight.first.astimezone(zone).date(),
                "ends_on": flight.last.astimezone(zone).date(),
                "budget": Money.of("0", self._currency),
                "external_id": external,
                "occurred_at": flight.first,
            },
            reason=f"import of {self._file}",
        )

    def step(self, fact: Response, number: int) -> Step:
        customer = self._external_customer(fact.customer)
        campaign = self._external_campaign(fact.campaign)
        return Step(
            self._crm.record_response,
            stream_id("customer", customer),
            key=self.key(
                "response", customer.source, customer.id, campaign.source, campaign.id,
                fact.channel, fact.kind, fact.at.isoformat(), str(number),
            ),
            content=None,
            arguments={
                "campaign_id": stream_id("campaign", campaign),
                "channel": fact.channel,
                "kind": fact.kind,
                "occurred_at": fact.at,
            },
            reason=self._reason(fact),
        )  # fmt: skip

    def differences(self, fact: Response, number: int, recorded: Recorded) -> list[str] | None:
        campaign = stream_id("campaign", self._external_campaign(fact.campaign))
        there = recorded.responses[(campaign, fact.channel, fact.kind, fact.at)]
        return [] if there >= number else None

    def explained(self, fact: Response, error: LineError) -> LineError:
        if error.problem == "campaign-not-found":
            external = self._external_campaign(fact.campaign)
            return LineError(error.problem, f"there is no campaign {_told(external)}")
        return super().explained(fact, error)

    def _external_campaign(self, campaign: str) -> ExternalId:
        return ExternalId.of(self._campaigns.source or self._source, campaign)


def _told(external: ExternalId) -> str:
    return f"{external.id[:40]!r} of {external.source!r}"
