"""A customer: who it is, what it answered and bought, and where the relationship stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Self
from uuid import UUID

from domain.aggregate import LedgerAggregate
from domain.errors import (
    AlreadyIdentified,
    AlreadyLost,
    CauseReserved,
    ContactDiffers,
    InvalidAttributes,
    NameMissing,
    NotInRelationship,
    NotLost,
    OrderDiffers,
    PaymentDiffers,
    TooManyContacts,
)
from domain.values import (
    ATTRIBUTES,
    TEXT_LENGTH,
    AttributeValue,
    ChurnCause,
    CustomerKind,
    CustomerType,
    ExternalId,
    Level,
    Money,
    PaymentKind,
    Personal,
    Severity,
    Silence,
    checked_attributes,
    checked_channel,
    optional_text,
    text,
)

CONTACTS: Final = 1_000
EMAIL_LENGTH: Final = 254


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

    kind: CustomerKind = field(init=False)
    name: str | None = field(init=False, default=None)
    personal_name: Personal | None = field(init=False, default=None)
    identified: bool = field(init=False)
    region: str | None = field(init=False, default=None)
    industry: str | None = field(init=False, default=None)
    source: str | None = field(init=False, default=None)
    external_id: ExternalId | None = field(init=False, default=None)
    attributes: dict[str, AttributeValue] = field(init=False, default_factory=dict)
    contacts: tuple[Contact, ...] = field(init=False, default=())
    orders: dict[str, Money] = field(init=False, default_factory=dict)
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

    class Event(LedgerAggregate.Event):
        pass

    class Created(Event, LedgerAggregate.Created):
        """Of a company `name` is set, of a person `personal_name`; R29: neither need be known."""

        TOPIC = "crm.customer.registered"
        kind: CustomerKind
        name: str | None
        personal_name: Personal | None
        identified: bool
        region: str | None
        industry: str | None
        source: str | None
        external_id: ExternalId | None
        attributes: dict[str, AttributeValue]

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

    class ProfileChanged(Event):
        """None: unchanged. "": cleared. `attributes` holds the new and changed ones."""

        TOPIC = "crm.customer.profile-changed"
        name: str | None = None
        personal_name: Personal | None = None
        identified: bool | None = None
        region: str | None = None
        industry: str | None = None
        source: str | None = None
        attributes: dict[str, AttributeValue] = field(default_factory=dict)
        removed_attributes: tuple[str, ...] = ()

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
        order_id: str
        amount: Money

        def apply(self, aggregate: Customer) -> None:
            aggregate.orders[self.order_id] = self.amount
            aggregate._relate(self.timestamp)

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
            aggregate._relate(self.timestamp)

    class LevelChanged(Event):
        TOPIC = "crm.customer.level-changed"
        level: Level
        previous: Level | None

        def apply(self, aggregate: Customer) -> None:
            if aggregate._is_latest(self.timestamp, aggregate.level_on):
                aggregate.level = self.level
                aggregate.level_on = self.timestamp

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
            attributes=checked_attributes(attributes),
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
        known = next((c for c in self.contacts if c.contact_id == contact_id), None)
        if known == contact:
            return
        if known is not None:
            raise ContactDiffers("the contact was added with other content")
        if len(self.contacts) >= CONTACTS:
            raise TooManyContacts(f"a customer has at most {CONTACTS:,} contacts")
        self.trigger_event(self.ContactAdded, timestamp=at, **vars(contact))

    def respond(self, *, campaign_id: UUID, channel: str, kind: str, at: datetime) -> None:
        """Each response is a fact of its own, however alike."""
        self.trigger_event(
            self.CampaignResponded,
            timestamp=at,
            campaign_id=campaign_id,
            channel=checked_channel(channel),
            kind=text(kind, "kind"),
        )

    def place_order(self, *, order_id: str, amount: Money, at: datetime) -> None:
        known = self.orders.get(text(order_id, "order_id"))
        if known == amount:
            return
        if known is not None:
            raise OrderDiffers("the order was placed with another amount")
        self.trigger_event(self.OrderPlaced, timestamp=at, order_id=order_id, amount=amount)

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

    def _relate(self, at: datetime) -> None:
        if not self._is_latest(at, self.type_on):
            return
        if self.type is not CustomerType.RELATIONSHIP:
            self.type = CustomerType.RELATIONSHIP
            self.level = Level.NEW
            self.level_on = at
        self.type_on = at

    @staticmethod
    def _is_latest(at: datetime, known: datetime | None) -> bool:
        return known is None or at >= known

    def _changed_name(self, name: str | None) -> dict[str, Any]:
        if name is None:
            return {}
        name = text(name, "name")
        if self.kind is CustomerKind.PERSON:
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
        changed = {k: v for k, v in checked_attributes(values).items() if not self._holds(k, v)}
        gone = tuple(sorted({k for k in removed if k in self.attributes and k not in values}))
        if len(self.attributes.keys() | changed.keys()) - len(gone) > ATTRIBUTES:
            raise InvalidAttributes(f"more than {ATTRIBUTES} attributes")
        return ({"attributes": changed} if changed else {}) | (
            {"removed_attributes": gone} if gone else {}
        )

    def _holds(self, key: str, value: AttributeValue) -> bool:
        held = self.attributes.get(key)
        return held == value and type(held) is type(value)  # True == 1 == 1.0
