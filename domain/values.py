"""Values: immutable, equal by content, shared by events, state and read models.

Constructors store what they are given, so that a fact once recorded stays readable; what comes
from outside goes through the checking functions (`Money.of`, `text`, `probability`, ...), each of
which raises its own subclass of `Invalid`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Context, Decimal, Inexact, InvalidOperation
from enum import StrEnum
from fractions import Fraction
from typing import Final
from uuid import UUID, uuid5

from domain.currencies import MINOR_UNITS
from domain.errors import (
    CurrencyDiffers,
    InvalidAttributes,
    InvalidChannel,
    InvalidCount,
    InvalidDate,
    InvalidMoney,
    InvalidProbability,
    InvalidQuantity,
    InvalidText,
)

NAMESPACE: Final = UUID("5b0a8c9e-3d7f-5c1b-9a56-7f0e2d4c6b18")
"""Of every id that is computed from a name instead of drawn."""

NAME_LENGTH: Final = 200
TEXT_LENGTH: Final = 10_000
MONEY_LIMIT: Final = Decimal(10) ** 15
ATTRIBUTES: Final = 100
ATTRIBUTE_KEY_LENGTH: Final = 100
ATTRIBUTE_TEXT_LENGTH: Final = 1_000
INT_LIMIT: Final = 2**63
COUNT_LIMIT: Final = 10**9
QUANTITY_LIMIT: Final = Decimal(10) ** 15
DECIMALS: Final = 12
"""Of numbers other than amounts."""
CHANNELS: Final = ("visit", "conference", "web", "letter", "phone")
"""The known ones; any other slug is a channel, too."""

AttributeValue = str | int | float | bool

_EXACT = Context(prec=60, traps=[Inexact, InvalidOperation])
_NUMBER = re.compile(r"-?[0-9]{1,30}(\.[0-9]{1,30})?", re.ASCII)
_SLUG = re.compile(r"[a-z0-9]+([-_][a-z0-9]+)*", re.ASCII)
_YEARS = range(1900, 3000)


class CustomerKind(StrEnum):
    COMPANY = "company"
    PERSON = "person"


class CustomerType(StrEnum):
    """R65 四类型."""

    PROSPECT = "prospect"
    RESPONDER = "responder"
    RELATIONSHIP = "relationship"
    LOST = "lost"


class Level(StrEnum):
    """R64 六层次: only inside a relationship."""

    NEW = "new"
    GROWING = "growing"
    STABLE = "stable"
    DECLINING = "declining"
    PROBLEM = "problem"
    NO_VALUE = "no-value"


class ChurnCause(StrEnum):
    """R66: why a customer was lost. All but silence, which a policy finds, are told by somebody."""

    PRODUCT = "product"
    SERVICE = "service"
    PRICE = "price"
    COMPETITOR = "competitor"
    CLOSURE = "closure"
    RELATIONSHIP = "relationship"
    OTHER = "other"
    SILENCE = "silence"


class Severity(StrEnum):
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class PaymentKind(StrEnum):
    OVERDUE = "overdue"
    SETTLED = "settled"


class RepeatType(StrEnum):
    """R76 三种销售: how often the customer buys again."""

    CONTINUOUS = "continuous"
    PERIODIC = "periodic"
    PROJECT = "project"
    """One-off: no next purchase is to be expected."""


class AlertKind(StrEnum):
    """R69 新需求提示: the buying cycle has gone by, or the stock has fallen too low."""

    CYCLE = "cycle"
    STOCK = "stock"


class OpportunityStatus(StrEnum):
    OPEN = "open"
    SUSPENDED = "suspended"
    TERMINATED = "terminated"
    WON = "won"
    LOST = "lost"


class CampaignStatus(StrEnum):
    PLANNED = "planned"
    SUBMITTED = "submitted"
    APPROVED = "approved"
    REJECTED = "rejected"
    RUNNING = "running"
    COMPLETED = "completed"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Money:
    """An amount in major units of an ISO 4217 currency: Decimal("12.50"), "EUR"."""

    value: Decimal
    currency: str

    @classmethod
    def of(cls, value: Decimal | str, currency: str) -> Money:
        """0 <= value < 10^15, written with the decimals of the currency's minor unit.

        Raises InvalidMoney on anything else, NaN, Infinity and a fraction of a minor unit included.
        """
        units = minor_units(currency)
        if isinstance(value, str):
            if not _NUMBER.fullmatch(value):
                raise InvalidMoney("an amount is a plain decimal number such as 12.50")
            value = Decimal(value)
        if not value.is_finite():
            raise InvalidMoney("an amount is a finite number")
        if not 0 <= value < MONEY_LIMIT:
            raise InvalidMoney(f"an amount is at least 0 and below {MONEY_LIMIT:,}")
        try:
            exact = value.quantize(Decimal(1).scaleb(-units), context=_EXACT)
        except (Inexact, InvalidOperation):
            raise InvalidMoney(f"{currency} has {units} decimals, not more") from None
        return cls(abs(exact), currency)

    def minor_unit(self) -> Decimal:
        """The smallest amount of this currency, in major units: Decimal("0.01")."""
        return Decimal(1).scaleb(-minor_units(self.currency))

    def split(self, weights: Sequence[int | Decimal | Fraction]) -> list[Money]:
        """Parts in proportion to `weights` that sum to the whole exactly.

        Each part is a multiple of the minor unit and within one of its share; what rounding down
        leaves goes to the largest remainders, the earlier first (largest remainder method).
        Weights are >= 0 and not all 0, else ValueError.
        """
        shares = [Fraction(weight) for weight in weights]
        total = sum(shares)
        if total <= 0 or min(shares) < 0:
            raise ValueError("weights are at least 0 and not all 0")
        unit = self.minor_unit()
        units = int(self.value / unit)
        exact = [units * share / total for share in shares]
        parts = [math.floor(part) for part in exact]
        by_remainder = sorted(range(len(parts)), key=lambda i: parts[i] - exact[i])
        for i in by_remainder[: units - sum(parts)]:
            parts[i] += 1
        return [Money(part * unit, self.currency) for part in parts]

    def __add__(self, other: Money) -> Money:
        if other.currency != self.currency:
            raise CurrencyDiffers(f"{other.currency} can't be added to {self.currency}")
        return Money(self.value + other.value, self.currency)

    def __str__(self) -> str:
        return f"{self.value} {self.currency}"


@dataclass(frozen=True)
class Stage:
    """A step of a pipeline (R41)."""

    name: str
    chance_to_next: Decimal
    """0..1; of the last stage: the chance to win."""
    duration_months: Decimal
    """The usual time in the stage."""
    visits_per_week: int | None = None
    approval: bool = False
    """Entered only with an approver."""


@dataclass(frozen=True)
class ExternalId:
    """What another system calls the thing: unique within its kind."""

    source: str
    id: str

    @classmethod
    def of(cls, source: str, id: str) -> ExternalId:
        return cls(text(source, "external_id.source"), text(id, "external_id.id"))


@dataclass(frozen=True)
class Silence:
    """What a passive loss rests on: no purchase for `days` days after `since`."""

    rule: str
    """The policy, with its version and configuration."""
    since: datetime
    """The last purchase or win-back that was known."""
    days: int
    event_id: UUID
    """Of the event that was recorded of it."""


@dataclass(frozen=True)
class LevelEvidence:
    """What a change of level by a rule rests on."""

    rule: str
    """The policy, with its version and configuration."""
    figures: dict[str, str]
    """What was measured, by name: {"revenue": "1200.00", "revenue_before": "900.00"}."""
    event_id: UUID
    """Of the event that the rule was asked at."""


@dataclass(frozen=True)
class CampaignPlan:
    """What a campaign is meant to bring (R36); None: no such aim."""

    attendees: int | None = None
    responses: int | None = None
    deals: int | None = None
    contracts: int | None = None
    revenue: Money | None = None
    """Of the contracts, in the currency of the campaign's budget."""


class Personal:
    """Text about a natural person, encrypted wherever it is stored, under the key of `subject`.

    `text` is None when the key was destroyed (erased) or the value has not been opened; `sealed`
    is the encrypted token, set once when it is stored. Only `.text` gives the text: str and repr
    never show it. No dataclass on purpose: nothing that writes out dataclasses can leak it.
    """

    __slots__ = ("sealed", "subject", "text")

    def __init__(self, subject: UUID, text: str | None, sealed: str | None = None) -> None:
        self.subject = subject
        self.text = text
        self.sealed = sealed

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Personal):
            return NotImplemented
        return (self.subject, self.text) == (other.subject, other.text)

    def __hash__(self) -> int:
        return hash((self.subject, self.text))

    def __repr__(self) -> str:
        return f"Personal({self.subject})"


def minor_units(currency: str) -> int:
    """Decimals of the currency's minor unit; InvalidMoney when ISO 4217 does not have it."""
    try:
        return MINOR_UNITS[currency]
    except KeyError:
        raise InvalidMoney("currency is an ISO 4217 code such as EUR") from None


def stream_id(kind: str, external_id: ExternalId) -> UUID:
    """The id of the stream that stands for another system's record: the same for ever."""
    return uuid5(NAMESPACE, json.dumps([kind, external_id.source, external_id.id]))


def text(value: str | None, field: str, limit: int = NAME_LENGTH) -> str:
    """`value`, not blank, at most `limit` characters, storable; else InvalidText."""
    if value is None or not value.strip():
        raise InvalidText(f"{field} is missing")
    if len(value) > limit:
        raise InvalidText(f"{field} has more than {limit} characters")
    if not storable(value):
        raise InvalidText(f"{field} holds U+0000 or half of a surrogate pair")
    return value


def optional_text(value: str | None, field: str, limit: int = NAME_LENGTH) -> str | None:
    """Like `text`, but blank is None."""
    if value is None or not value.strip():
        return None
    return text(value, field, limit)


def storable(value: str) -> bool:
    """Whether PostgreSQL and UTF-8 can hold it: neither U+0000 nor a lone surrogate."""
    if "\x00" in value:
        return False
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def checked_channel(value: str) -> str:
    """A lower-case slug of at most 50 characters; the known ones are CHANNELS (R77)."""
    if len(value) > 50 or not _SLUG.fullmatch(value):
        raise InvalidChannel("channel is a lower-case word such as visit, web or trade-fair")
    return value


def probability(value: Decimal, field: str = "probability") -> Decimal:
    """0..1 with at most 12 decimals; else InvalidProbability."""
    if not value.is_finite() or not 0 <= value <= 1 or decimals(value) > DECIMALS:
        raise InvalidProbability(f"{field} is between 0 and 1, with at most {DECIMALS} decimals")
    return value


def counted(value: int, field: str) -> int:
    """0..10^9; else InvalidCount."""
    if not 0 <= value <= COUNT_LIMIT:
        raise InvalidCount(f"{field} is a number between 0 and {COUNT_LIMIT:,}")
    return value


def quantity(value: Decimal, field: str) -> Decimal:
    """0 <= value < 10^15 with at most 12 decimals; else InvalidQuantity."""
    if not value.is_finite() or not 0 <= value < QUANTITY_LIMIT or decimals(value) > DECIMALS:
        raise InvalidQuantity(
            f"{field} is at least 0 and below {QUANTITY_LIMIT:,}, with at most {DECIMALS} decimals"
        )
    return value.copy_abs()  # -0 is 0


def business_date(value: date, field: str) -> date:
    """A date between 1900 and 2999; else InvalidDate."""
    if value.year not in _YEARS:
        raise InvalidDate(f"{field} lies outside the years {_YEARS.start} to {_YEARS.stop - 1}")
    return value


def checked_attributes(values: Mapping[str, AttributeValue]) -> dict[str, AttributeValue]:
    """At most 100 entries: keys to 100 characters, texts to 1,000, finite 64-bit numbers."""
    if len(values) > ATTRIBUTES:
        raise InvalidAttributes(f"more than {ATTRIBUTES} attributes")
    for key, value in values.items():
        if not key.strip() or len(key) > ATTRIBUTE_KEY_LENGTH or not storable(key):
            raise InvalidAttributes("an attribute's key has 1 to 100 characters")
        match value:
            case str():
                good = len(value) <= ATTRIBUTE_TEXT_LENGTH and storable(value)
            case float():
                good = math.isfinite(value)
            case _:
                good = isinstance(value, int) and -INT_LIMIT <= value < INT_LIMIT
        if not good:
            raise InvalidAttributes(
                "an attribute is a text of at most 1,000 characters, a finite number or a boolean"
            )
    return dict(values)


def decimals(value: Decimal) -> int:
    """How many the finite `value` is written with."""
    exponent = value.as_tuple().exponent
    return max(-exponent, 0) if isinstance(exponent, int) else 0
