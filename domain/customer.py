"""A customer: who it is, what it answered and bought, and where the relationship stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final, Self
from uuid import UUID

from domain import personal_attributes
from domain.aggregate import LedgerAggregate
from domain.errors import (
    AlreadyIdentified,
    AlreadyLost,
    CauseReserved,
    ContactDiffers,
    ContactNotFound,
    CostDiffers,
    CurrencyDiffers,
    DeliveryDiffers,
    InvalidAttributes,
    InvalidCycle,
    InvalidLimit,
    InvalidQuantity,
    NameMissing,
    NotAPerson,
    NotInRelationship,
    NotLost,
    OrderDiffers,
    PaymentDiffers,
    RetentionLimitExceeded,
    RetentionNotPlanned,
    SubjectErased,
    TooManyContacts,
)
from domain.values import (
    ATTRIBUTES,
    TEXT_LENGTH,
    AlertKind,
    AttributeValue,
    ChurnCause,
    CustomerKind,
    CustomerType,
    ExternalId,
    Level,
    LevelEvidence,
    Money,
    PaymentKind,
    Personal,
    RepeatType,
    Severity,
    Silence,
    checked_attributes,
    checked_channel,
    optional_text,
    quantity,
    text,
)

CONTACTS: Final = 1_000
EMAIL_LENGTH: Final = 254
LONGEST_CYCLE: Final = 3_650
"""In days."""
_ERASED: Final = "the person's data have been erased: nothing new is written"


@dataclass(frozen=True)
class Demand:
    """When the customer may need something again (R69, R76); None: not known."""

    repeat_type: RepeatType | None = None
    cycle_days: int | None = None
    """From one purchase to the next."""
    stock_alert_below: Decimal | None = None
    """In the unit that the customer's stock is reported in."""


@dataclass(frozen=True)
class Retention:
    """What was decided on keeping the customer (R66)."""

    worth_keeping: bool
    social_effect: Severity | None
    """Of losing it."""
    limit: Money
    """Of all that is spent on keeping it."""


@dataclass(frozen=True)
class Contact:
    contact_id: UUID
    name: Personal
    department: str | None
    level: str | None
    role: str | None
    email: Personal | None
    phone: Personal | None


class Customer(LedgerAggregate):
    """Types (R65): prospect → responder → relationship → lost, and back by an order or win-back.

    The type is the one set by the latest effective fact, so that an order recorded late does not
    bring back a customer who was lost since.
    """

    TOPIC = "crm.customer"
    class_version = 3

    kind: CustomerKind = field(init=False)
    name: str | None = field(init=False, default=None)
    personal_name: Personal | None = field(init=False, default=None)
    identified: bool = field(init=False)
    region: str | None = field(init=False, default=None)
    industry: str | None = field(init=False, default=None)
    source: str | None = field(init=False, default=None)
    external_id: ExternalId | None = field(init=False, default=None)
    attributes: dict[str, AttributeValue] = field(init=False, default_factory=dict)
    """Of a company; of a person only those of events of version 1."""
    personal_attributes: tuple[Personal, ...] = field(init=False, default=())
    """Of a person: the changes, in the order in which they were recorded."""
    erased: bool = field(init=False, default=False)
    erased_contacts: set[UUID] = field(init=False, default_factory=set)
    contacts: tuple[Contact, ...] = field(init=False, default=())
    orders: dict[str, Money] = field(init=False, default_factory=dict)
    order_costs: dict[str, Money] = field(init=False, default_factory=dict)
    """Of the orders whose cost is known."""
    deliveries: dict[str, str | None] = field(init=False, default_factory=dict)
    """What each was for, if that was told."""
    overdue: dict[str, Money] = field(init=False, default_factory=dict)
    settled: dict[str, Money] = field(init=False, default_factory=dict)
    type: CustomerType = field(init=False, default=CustomerType.PROSPECT)
    level: Level | None = field(init=False, default=None)
    type_on: datetime | None = field(init=False, default=None)
    """Effective time of the latest order, start, loss or win-back."""
    level_on: datetime | None = field(init=False, default=None)
    churned_on: datetime | None = field(init=False, default=None)
    churn_cause: ChurnCause | None = field(init=False, default=None)
    won_back: bool = field(init=False, default=False)
    purchased_on: datetime | None = field(init=False, default=None)
    """Effective time of the latest purchase that this stream knows of."""
    demand: Demand = field(init=False, default=Demand())
    demand_on: datetime | None = field(init=False, default=None)
    stock: Decimal | None = field(init=False, default=None)
    stock_on: datetime | None = field(init=False, default=None)
    alerts: set[str] = field(init=False, default_factory=set)
    """<kind>:<event id> of what has been alerted."""
    retention: Retention | None = field(init=False, default=None)
    retention_on: datetime | None = field(init=False, default=None)
    retention_costs: dict[str, Money] = field(init=False, default_factory=dict)

    class Event(LedgerAggregate.Event):
        pass

    class Created(Event, LedgerAggregate.Created):
        """Of a company `name` is set, of a person `personal_name`; R29: neither need be known."""

        TOPIC = "crm.customer.registered"
        class_version = 2
        kind: CustomerKind
        name: str | None
        personal_name: Personal | None
        identified: bool
        region: str | None
        industry: str | None
        source: str | None
        external_id: ExternalId | None
        attributes: dict[str, AttributeValue]
        """Of a company; of a person only in version 1."""
        personal_attributes: Personal | None = None
        """Of a person: a JSON object, as `attributes` would be."""

        def apply(self, aggregate: Customer) -> None:
            aggregate.kind = self.kind
            aggregate.name = self.name
            aggregate.personal_name = self.personal_name
            aggregate.identified = self.identified
            aggregate.region = self.region
            aggregate.industry = self.industry
            aggregate.source = self.source
            aggregate.external_id = self.external_id
            aggregate.attributes = dict(self.attributes)
            if self.personal_attributes is not None:
                aggregate.personal_attributes = (self.personal_attributes,)

        @staticmethod
        def upcast_v1_v2(state: dict[str, Any]) -> None:
            """In version 1 a person's attributes were in the clear, and so they stay."""

    class ProfileChanged(Event):
        """None: unchanged. "": cleared. `attributes` holds the new and changed ones."""

        TOPIC = "crm.customer.profile-changed"
        class_version = 2
        name: str | None = None
        personal_name: Personal | None = None
        identified: bool | None = None
        region: str | None = None
        industry: str | None = None
        source: str | None = None
        attributes: dict[str, AttributeValue] = field(default_factory=dict)
        removed_attributes: tuple[str, ...] = ()
        personal_attributes: Personal | None = None
        """Of a person, instead of both: a JSON object of what is new, null for what is removed."""

        def apply(self, aggregate: Customer) -> None:
            if self.name is not None:
                aggregate.name = self.name or None
            if self.personal_name is not None:
                aggregate.personal_name = self.personal_name
            if self.identified is not None:
                aggregate.identified = self.identified
            if self.region is not None:
                aggregate.region = self.region or None
            if self.industry is not None:
                aggregate.industry = self.industry or None
            if self.source is not None:
                aggregate.source = self.source or None
            for key in self.removed_attributes:
                aggregate.attributes.pop(key, None)
            aggregate.attributes.update(self.attributes)
            if self.personal_attributes is not None:
                aggregate.personal_attributes += (self.personal_attributes,)

        @staticmethod
        def upcast_v1_v2(state: dict[str, Any]) -> None:
            """In version 1 a person's attributes were in the clear, and so they stay."""

    class ContactAdded(Event):
        TOPIC = "crm.customer.contact-added"
        contact_id: UUID
        name: Personal
        department: str | None
        level: str | None
        role: str | None
        email: Personal | None
        phone: Personal | None

        def apply(self, aggregate: Customer) -> None:
            contact = Contact(
                self.contact_id,
                self.name,
                self.department,
                self.level,
                self.role,
                self.email,
                self.phone,
            )
            aggregate.contacts = (*aggregate.contacts, contact)

    class ContactErased(Event):
        """The contact's key is destroyed: what was sealed with it cannot be opened any more."""

        TOPIC = "crm.customer.contact-erased"
        contact_id: UUID

        def apply(self, aggregate: Customer) -> None:
            aggregate.erased_contacts.add(self.contact_id)
            aggregate.contacts = tuple(
                _forgotten(contact) if contact.contact_id == self.contact_id else contact
                for contact in aggregate.contacts
            )

    class Erased(Event):
        """The key of the person who is the customer is destroyed. The relationship goes on."""

        TOPIC = "crm.customer.erased"

        def apply(self, aggregate: Customer) -> None:
            aggregate.erased = True
            aggregate.personal_name = _unread(aggregate.personal_name)
            aggregate.external_id = None
            aggregate.attributes = {}
            aggregate.personal_attributes = ()

    class CampaignResponded(Event):
        """A touch: what two-way promotion (R77) brings back."""

        TOPIC = "crm.customer.campaign-responded"
        campaign_id: UUID
        channel: str
        kind: str

        def apply(self, aggregate: Customer) -> None:
            if aggregate.type is CustomerType.PROSPECT:
                aggregate.type = CustomerType.RESPONDER

    class OrderPlaced(Event):
        TOPIC = "crm.customer.order-placed"
        class_version = 2
        order_id: str
        amount: Money
        cost: Money | None = None
        """Ours, in the currency of the amount."""

        def apply(self, aggregate: Customer) -> None:
            aggregate.orders[self.order_id] = self.amount
            if self.cost is not None:
                aggregate.order_costs[self.order_id] = self.cost
            aggregate._purchase(self.timestamp)

        @staticmethod
        def upcast_v1_v2(state: dict[str, Any]) -> None:
            """Version 1 knew no costs."""

    class Delivered(Event):
        """What the customer bought came to it; the first one makes a user of it (R29)."""

        TOPIC = "crm.customer.delivered"
        delivery_id: str
        order_id: str | None
        """Of the order, or of the deal whose contract it fulfils, as it was told."""

        def apply(self, aggregate: Customer) -> None:
            aggregate.deliveries[self.delivery_id] = self.order_id

    class PaymentOverdue(Event):
        TOPIC = "crm.customer.payment-overdue"
        reference: str
        amount: Money

        def apply(self, aggregate: Customer) -> None:
            aggregate.overdue[self.reference] = self.amount

    class PaymentSettled(Event):
        TOPIC = "crm.customer.payment-settled"
        reference: str
        amount: Money

        def apply(self, aggregate: Customer) -> None:
            aggregate.settled[self.reference] = self.amount

    class ChurnSignalRaised(Event):
        TOPIC = "crm.customer.churn-signal-raised"
        kind: str
        severity: Severity
        detail: Personal | None

    class RelationshipStarted(Event):
        """The first won deal of a customer without orders, or the first after a loss."""

        TOPIC = "crm.customer.relationship-started"
        opportunity_id: UUID

        def apply(self, aggregate: Customer) -> None:
            aggregate._purchase(self.timestamp)

    class LevelChanged(Event):
        """By somebody's judgement, or by a rule, and then with its evidence."""

        TOPIC = "crm.customer.level-changed"
        class_version = 2
        level: Level
        previous: Level | None
        evidence: LevelEvidence | None = None

        def apply(self, aggregate: Customer) -> None:
            if aggregate._is_latest(self.timestamp, aggregate.level_on):
                aggregate.level = self.level
                aggregate.level_on = self.timestamp

        @staticmethod
        def upcast_v1_v2(state: dict[str, Any]) -> None:
            """In version 1 every level was told by somebody."""

    class Churned(Event):
        """Lost actively, because somebody said so, or passively, by a silence."""

        TOPIC = "crm.customer.churned"
        class_version = 2
        cause: ChurnCause
        silence: Silence | None = None
        """Of a passive loss what it rests on."""

        def apply(self, aggregate: Customer) -> None:
            aggregate.churned_on = self.timestamp
            aggregate.churn_cause = self.cause
            if aggregate._is_latest(self.timestamp, aggregate.type_on):
                aggregate.type = CustomerType.LOST
                aggregate.type_on = self.timestamp
                aggregate.level = None
                aggregate.won_back = False

        @staticmethod
        def upcast_v1_v2(state: dict[str, Any]) -> None:
            """Version 2 has passive losses, whose cause a reader of version 1 does not know."""

    class WonBack(Event):
        TOPIC = "crm.customer.won-back"

        def apply(self, aggregate: Customer) -> None:
            aggregate._relate(self.timestamp)
            aggregate.won_back = True

    class DemandDescribed(Event):
        """The whole of it: what is absent is not known."""

        TOPIC = "crm.customer.demand-described"
        repeat_type: RepeatType | None
        cycle_days: int | None
        """From one purchase to the next."""
        stock_alert_below: Decimal | None
        """In the unit that the customer's stock is reported in."""

        def apply(self, aggregate: Customer) -> None:
            if aggregate._is_latest(self.timestamp, aggregate.demand_on):
                aggregate.demand = Demand(self.repeat_type, self.cycle_days, self.stock_alert_below)
                aggregate.demand_on = self.timestamp

    class StockReported(Event):
        """What the customer has left of what it buys from us."""

        TOPIC = "crm.customer.stock-reported"
        level: Decimal

        def apply(self, aggregate: Customer) -> None:
            if aggregate._is_latest(self.timestamp, aggregate.stock_on):
                aggregate.stock = self.level
                aggregate.stock_on = self.timestamp

    class DemandAlerted(Event):
        """By a rule: the customer is likely to need something again (R69)."""

        TOPIC = "crm.customer.demand-alerted"
        kind: AlertKind
        rule: str
        """The policy, with its version and configuration."""
        due_at: datetime
        event_id: UUID
        """Of the event that it rests on."""

        def apply(self, aggregate: Customer) -> None:
            aggregate.alerts.add(_alert(self.kind, self.event_id))

    class RetentionPlanned(Event):
        """What may be done to keep the customer, and whether it is worth it (R66)."""

        TOPIC = "crm.customer.retention-planned"
        worth_keeping: bool
        social_effect: Severity | None
        """Of losing it."""
        limit: Money
        """Of all that is spent on keeping it; 0 where it is not worth keeping."""

        def apply(self, aggregate: Customer) -> None:
            if aggregate._is_latest(self.timestamp, aggregate.retention_on):
                aggregate.retention = Retention(self.worth_keeping, self.social_effect, self.limit)
                aggregate.retention_on = self.timestamp

    class RetentionSpent(Event):
        TOPIC = "crm.customer.retention-spent"
        amount: Money
        reference: str

        def apply(self, aggregate: Customer) -> None:
            aggregate.retention_costs[self.reference] = self.amount

    @classmethod
    def register(
        cls,
        customer_id: UUID,
        *,
        kind: CustomerKind,
        name: str | None,
        identified: bool,
        region: str | None,
        industry: str | None,
        source: str | None,
        external_id: ExternalId | None,
        attributes: Mapping[str, AttributeValue],
        at: datetime,
    ) -> Self:
        """A customer still to be identified (R29) may do without a name."""
        if identified or name is not None:
            name = text(name, "name")
        person = kind is CustomerKind.PERSON
        attributes = checked_attributes(attributes)
        return cls._create(
            cls.Created,
            id=customer_id,
            timestamp=at,
            kind=kind,
            name=None if person else name,
            personal_name=Personal(customer_id, name) if person and name is not None else None,
            identified=identified,
            region=optional_text(region, "region"),
            industry=optional_text(industry, "industry"),
            source=optional_text(source, "source"),
            external_id=external_id,
            attributes={} if person else attributes,
            personal_attributes=(
                personal_attributes.change(customer_id, attributes) if person else None
            ),
        )

    def change_profile(
        self,
        *,
        name: str | None,
        identified: bool | None,
        region: str | None,
        industry: str | None,
        source: str | None,
        attributes: Mapping[str, AttributeValue],
        removed_attributes: Sequence[str],
        at: datetime,
    ) -> None:
        """None leaves as it is; blank clears (a name can't be cleared)."""
        changes: dict[str, Any] = {
            **self._changed_name(name),
            **self._changed_text("region", region),
            **self._changed_text("industry", industry),
            **self._changed_text("source", source),
            **self._changed_attributes(attributes, removed_attributes),
        }
        if identified is False and self.identified:
            raise AlreadyIdentified("an identified customer stays identified")
        if identified and not self.identified:
            if name is None and self.name is None and self.personal_name is None:
                raise NameMissing("to be identified a customer needs a name")
            changes["identified"] = True
        if changes:
            self.trigger_event(self.ProfileChanged, timestamp=at, **changes)

    def add_contact(
        self,
        *,
        contact_id: UUID,
        name: str,
        department: str | None,
        level: str | None,
        role: str | None,
        email: str | None,
        phone: str | None,
        at: datetime,
    ) -> None:
        email = optional_text(email, "email", EMAIL_LENGTH)
        phone = optional_text(phone, "phone")
        contact = Contact(
            contact_id,
            Personal(contact_id, text(name, "name")),
            optional_text(department, "department"),
            optional_text(level, "level"),
            optional_text(role, "role"),
            Personal(contact_id, email) if email is not None else None,
            Personal(contact_id, phone) if phone is not None else None,
        )
        if contact_id in self.erased_contacts:
            raise SubjectErased(_ERASED)
        known = next((c for c in self.contacts if c.contact_id == contact_id), None)
        if known == contact:
            return
        if known is not None:
            raise ContactDiffers("the contact was added with other content")
        if len(self.contacts) >= CONTACTS:
            raise TooManyContacts(f"a customer has at most {CONTACTS:,} contacts")
        self.trigger_event(self.ContactAdded, timestamp=at, **vars(contact))

    def erase_contact(self, *, contact_id: UUID, at: datetime) -> None:
        """Records that the contact's key has been destroyed."""
        self.check_contact(contact_id)
        if contact_id not in self.erased_contacts:
            self.trigger_event(self.ContactErased, timestamp=at, contact_id=contact_id)

    def check_contact(self, contact_id: UUID) -> None:
        """Raises ContactNotFound."""
        if all(contact.contact_id != contact_id for contact in self.contacts):
            raise ContactNotFound(f"the customer has no contact {contact_id}")

    def erase(self, *, at: datetime) -> None:
        """Records that the key of the person who is the customer has been destroyed."""
        self.check_person()
        if not self.erased:
            self.trigger_event(self.Erased, timestamp=at)

    def check_person(self) -> None:
        """Raises NotAPerson."""
        if self.kind is not CustomerKind.PERSON:
            raise NotAPerson("the customer is a company; its contacts can be erased")

    def respond(self, *, campaign_id: UUID, channel: str, kind: str, at: datetime) -> None:
        """Each response is a fact of its own, however alike."""
        self.trigger_event(
            self.CampaignResponded,
            timestamp=at,
            campaign_id=campaign_id,
            channel=checked_channel(channel),
            kind=text(kind, "kind"),
        )

    def place_order(
        self, *, order_id: str, amount: Money, cost: Money | None, at: datetime
    ) -> None:
        """`cost` is ours, in the currency of the amount."""
        known = self.orders.get(text(order_id, "order_id"))
        if known is not None:
            if (known, self.order_costs.get(order_id)) == (amount, cost):
                return
            raise OrderDiffers("the order was placed with another amount or cost")
        if cost is not None and cost.currency != amount.currency:
            raise CurrencyDiffers(f"the order is in {amount.currency}")
        self.trigger_event(
            self.OrderPlaced, timestamp=at, order_id=order_id, amount=amount, cost=cost
        )

    def deliver(self, *, delivery_id: str, order_id: str | None, at: datetime) -> None:
        """`order_id` need not be known here: orders may be told later, contracts never are."""
        order_id = optional_text(order_id, "order_id")
        if text(delivery_id, "delivery_id") in self.deliveries:
            if self.deliveries[delivery_id] == order_id:
                return
            raise DeliveryDiffers("the delivery was recorded as one of another order")
        self.trigger_event(self.Delivered, timestamp=at, delivery_id=delivery_id, order_id=order_id)

    def record_payment(
        self, *, kind: PaymentKind, reference: str, amount: Money, at: datetime
    ) -> None:
        overdue = kind is PaymentKind.OVERDUE
        known = (self.overdue if overdue else self.settled).get(text(reference, "reference"))
        if known == amount:
            return
        if known is not None:
            raise PaymentDiffers(f"the payment was recorded as {kind} with another amount")
        event_class = self.PaymentOverdue if overdue else self.PaymentSettled
        self.trigger_event(event_class, timestamp=at, reference=reference, amount=amount)

    def raise_churn_signal(
        self, *, kind: str, severity: Severity, detail: str | None, at: datetime
    ) -> None:
        """Each signal is a fact of its own, however alike."""
        detail = optional_text(detail, "detail", TEXT_LENGTH)
        if detail is not None:
            self._check_there()
        self.trigger_event(
            self.ChurnSignalRaised,
            timestamp=at,
            kind=text(kind, "kind"),
            severity=severity,
            detail=Personal(self.id, detail) if detail is not None else None,
        )

    def start_relationship(self, *, opportunity_id: UUID, at: datetime) -> None:
        """By a won deal. Nothing inside a relationship, nor by a win older than the loss."""
        if self.type is CustomerType.RELATIONSHIP or not self._is_latest(at, self.type_on):
            return
        self.trigger_event(self.RelationshipStarted, timestamp=at, opportunity_id=opportunity_id)

    def change_level(self, *, level: Level, at: datetime) -> None:
        if self.type is not CustomerType.RELATIONSHIP:
            raise NotInRelationship("levels exist inside a relationship only")
        if level is self.level:
            return
        self.trigger_event(self.LevelChanged, timestamp=at, level=level, previous=self.level)

    def change_level_by_rule(self, *, level: Level, evidence: LevelEvidence, at: datetime) -> None:
        """Nothing outside a relationship, nor where a level was set later than `at`."""
        if self.type is not CustomerType.RELATIONSHIP or level is self.level:
            return
        if not self._is_latest(at, self.level_on):
            return
        self.trigger_event(
            self.LevelChanged, timestamp=at, level=level, previous=self.level, evidence=evidence
        )

    def churn(self, *, cause: ChurnCause, at: datetime) -> None:
        """Actively."""
        if cause is ChurnCause.SILENCE:
            raise CauseReserved("silence is found by a policy, not told")
        superseded = at == self.churned_on and not self._is_latest(at, self.type_on)
        if cause is self.churn_cause and (self.type is CustomerType.LOST or superseded):
            return
        if self.type is CustomerType.LOST:
            raise AlreadyLost(f"the customer was lost before, by {self.churn_cause}")
        self.trigger_event(self.Churned, timestamp=at, cause=cause)

    def churn_silent(self, *, silence: Silence, at: datetime) -> None:
        """Passively. Nothing if there was a purchase, a loss or a win-back after `silence.since`.

        Contracts inside a relationship are not known to this stream: `silence` answers for them.
        """
        if self.type_on is None or self.type_on > silence.since:
            return
        self.trigger_event(self.Churned, timestamp=at, cause=ChurnCause.SILENCE, silence=silence)

    def win_back(self, *, at: datetime) -> None:
        """To relationship, level new."""
        if self.won_back and self.type is CustomerType.RELATIONSHIP:
            return
        if self.type is not CustomerType.LOST or not self._is_latest(at, self.type_on):
            raise NotLost("only a lost customer can be won back")
        self.trigger_event(self.WonBack, timestamp=at)

    def describe_demand(
        self,
        *,
        repeat_type: RepeatType | None,
        cycle_days: int | None,
        stock_alert_below: Decimal | None,
        at: datetime,
    ) -> None:
        """The whole of it: None is not known. One-off business has no cycle (R76)."""
        if cycle_days is not None:
            if not 1 <= cycle_days <= LONGEST_CYCLE:
                raise InvalidCycle(f"cycle_days is between 1 and {LONGEST_CYCLE:,}")
            if repeat_type is RepeatType.PROJECT:
                raise InvalidCycle("one-off business has no cycle")
        if stock_alert_below is not None:
            stock_alert_below = quantity(stock_alert_below, "stock_alert_below")
            if not stock_alert_below:
                raise InvalidQuantity("no stock is below a stock_alert_below of 0")
        described = Demand(repeat_type, cycle_days, stock_alert_below)
        if described != self.demand:
            self.trigger_event(self.DemandDescribed, timestamp=at, **vars(described))

    def report_stock(self, *, level: Decimal, at: datetime) -> None:
        """Each report is a fact of its own, save the same one of the same instant."""
        level = quantity(level, "level")
        if (level, at) != (self.stock, self.stock_on):
            self.trigger_event(self.StockReported, timestamp=at, level=level)

    def alert_demand(
        self, *, kind: AlertKind, rule: str, due_at: datetime, event_id: UUID, at: datetime
    ) -> None:
        """Once per kind and event; nothing of a lost customer, nor if it has become wrong since.

        A cycle counts from the latest purchase, a stock from the latest report. Contracts inside a
        relationship are not known to this stream: `event_id` answers for them.
        """
        rule = text(rule, "rule")
        if _alert(kind, event_id) in self.alerts or self.type is CustomerType.LOST:
            return
        if self._is_due(kind, due_at):
            self.trigger_event(
                self.DemandAlerted,
                timestamp=at,
                kind=kind,
                rule=rule,
                due_at=due_at,
                event_id=event_id,
            )

    def plan_retention(
        self,
        *,
        worth_keeping: bool,
        social_effect: Severity | None,
        limit: Money,
        at: datetime,
    ) -> None:
        """`limit` is of all that is spent, before this plan, too, and stays in one currency."""
        if not worth_keeping and limit.value:
            raise InvalidLimit("nothing is spent on a customer who is not worth keeping")
        planned = Retention(worth_keeping, social_effect, limit)
        if planned == self.retention:
            return
        if any(spent.currency != limit.currency for spent in self.retention_costs.values()):
            raise CurrencyDiffers("what was spent so far is in another currency")
        self.trigger_event(self.RetentionPlanned, timestamp=at, **vars(planned))

    def book_retention_cost(self, *, amount: Money, reference: str, at: datetime) -> None:
        """In the limit's currency, and within it; once per reference."""
        known = self.retention_costs.get(text(reference, "reference"))
        if known == amount:
            return
        if known is not None:
            raise CostDiffers("the cost was booked with another amount")
        if self.retention is None:
            raise RetentionNotPlanned("no limit was set for keeping the customer")
        limit = self.retention.limit
        if amount.currency != limit.currency:
            raise CurrencyDiffers(f"the limit is in {limit.currency}")
        if (
            sum((spent.value for spent in self.retention_costs.values()), amount.value)
            > limit.value
        ):
            raise RetentionLimitExceeded(f"more than the limit of {limit} would be spent")
        self.trigger_event(self.RetentionSpent, timestamp=at, amount=amount, reference=reference)

    @staticmethod
    def upcast_v1_v2(state: dict[str, Any]) -> None:
        """Snapshots of version 1 did not tell purchases from losses and win-backs."""
        if "type_on" in state:
            state["purchased_on"] = state["type_on"]

    @staticmethod
    def upcast_v2_v3(state: dict[str, Any]) -> None:
        """Snapshots of version 2 knew of no erasure and of no sealed attributes."""

    def _is_due(self, kind: AlertKind, due_at: datetime) -> bool:
        demand = self.demand
        if kind is AlertKind.CYCLE:
            if demand.cycle_days is None:
                return False
            since = due_at - timedelta(days=demand.cycle_days)
            return self.purchased_on is None or self.purchased_on <= since
        if self.stock is None or demand.stock_alert_below is None:
            return False
        latest = all(self._is_latest(due_at, known) for known in (self.stock_on, self.purchased_on))
        return latest and self.stock < demand.stock_alert_below

    def _purchase(self, at: datetime) -> None:
        if self._is_latest(at, self.purchased_on):
            self.purchased_on = at
        self._relate(at)

    def _relate(self, at: datetime) -> None:
        if not self._is_latest(at, self.type_on):
            return
        if self.type is not CustomerType.RELATIONSHIP:
            self.type = CustomerType.RELATIONSHIP
            self.level = Level.NEW
            self.level_on = at
        self.type_on = at

    def _changed_name(self, name: str | None) -> dict[str, Any]:
        if name is None:
            return {}
        name = text(name, "name")
        if self.kind is CustomerKind.PERSON:
            self._check_there()
            personal = Personal(self.id, name)
            return {} if personal == self.personal_name else {"personal_name": personal}
        return {} if name == self.name else {"name": name}

    def _changed_text(self, field: str, value: str | None) -> dict[str, Any]:
        if value is None:
            return {}
        value = optional_text(value, field)
        return {} if value == getattr(self, field) else {field: value or ""}

    def _changed_attributes(
        self, values: Mapping[str, AttributeValue], removed: Sequence[str]
    ) -> dict[str, Any]:
        if not values and not removed:
            return {}
        values, person = checked_attributes(values), self.kind is CustomerKind.PERSON
        if person and values:
            self._check_there()
        held = self.attributes
        if person:
            held = personal_attributes.held(held, self.personal_attributes)
        changed = {k: v for k, v in values.items() if not _holds(held, k, v)}
        gone = tuple(sorted({k for k in removed if k in held and k not in values}))
        if len(held.keys() | changed.keys()) - len(gone) > ATTRIBUTES:
            raise InvalidAttributes(f"more than {ATTRIBUTES} attributes")
        if person:
            sealed = personal_attributes.change(self.id, changed, gone)
            return {} if sealed is None else {"personal_attributes": sealed}
        return ({"attributes": changed} if changed else {}) | (
            {"removed_attributes": gone} if gone else {}
        )

    def _check_there(self) -> None:
        if self.erased:
            raise SubjectErased(_ERASED)


def _holds(attributes: Mapping[str, AttributeValue], key: str, value: AttributeValue) -> bool:
    held = attributes.get(key)
    return held == value and type(held) is type(value)  # True == 1 == 1.0


def _unread(personal: Personal | None) -> Personal | None:
    """The same text, not to be read any more: not even out of memory."""
    return None if personal is None else Personal(personal.subject, None, personal.sealed)


def _forgotten(contact: Contact) -> Contact:
    return replace(
        contact,
        name=Personal(contact.contact_id, None, contact.name.sealed),
        email=_unread(contact.email),
        phone=_unread(contact.phone),
    )


def _alert(kind: AlertKind, event_id: UUID) -> str:
    return f"{kind}:{event_id}"
