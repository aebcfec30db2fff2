"""The kinds of values in request bodies. Each refuses what it cannot keep exactly."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, ClassVar
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from domain.errors import DomainError
from domain.exchange_rate import RATE_LIMIT
from domain.values import CHANNELS, COUNT_LIMIT, QUANTITY_LIMIT, ExternalId, Money

SAFE_INTEGER = 2**53 - 1
EARLIEST = datetime(1900, 1, 1, tzinfo=UTC)

# At least one visible character, and no U+0000, which PostgreSQL cannot store.
_VISIBLE = r"^[^\x00]*[^\x00\s][^\x00]*$"
_NO_NUL = r"^[^\x00]*$"

Name = Annotated[str, Field(min_length=1, max_length=200, pattern=_VISIBLE)]
Label = Annotated[str, Field(min_length=1, max_length=100, pattern=_VISIBLE)]
Channel = Annotated[
    Label,
    Field(
        description="One of the examples, or another in a lower-case word: trade-fair.",
        examples=list(CHANNELS),
    ),
]
Clearable = Annotated[str, Field(max_length=100, pattern=_NO_NUL)]
Prose = Annotated[str, Field(min_length=1, max_length=4000, pattern=_VISIBLE)]


class Model(BaseModel):
    """Strict types; a field that is not known is refused."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True
    )


def parse_instant(value: object) -> datetime:
    """An ISO 8601 date and time with its offset, in UTC. Raises ValueError."""
    if isinstance(value, datetime):
        parsed = value
    elif isinstance(value, str) and len(value) <= 40:
        try:
            parsed = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError("is not an ISO 8601 date and time") from None
    else:
        raise ValueError("is not an ISO 8601 date and time")
    if parsed.tzinfo is None:
        raise ValueError("has no offset from UTC")
    try:
        moment = parsed.astimezone(UTC)
    except OverflowError:
        raise ValueError("lies outside the calendar") from None
    if moment < EARLIEST:
        raise ValueError("lies before 1900")
    return moment


def _decimal(value: object) -> Decimal:
    """From a plain decimal numeral, as text or as a JSON number. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise ValueError("is not a decimal number")
    text = str(value)
    if len(text) > 40 or not text.isascii() or "_" in text or text != text.strip():
        raise ValueError("is not a decimal number")
    try:
        return Decimal(text)
    except ArithmeticError:
        raise ValueError("is not a decimal number") from None


def _attribute(value: object) -> str | int | float:
    """A text, a flag or a number. Raises ValueError.

    A longer integer is refused as a float too: as such it comes out of the parser, rounded.
    """
    if isinstance(value, str):
        if len(value) > 1000 or "\x00" in value:
            raise ValueError("is longer than 1,000 characters or holds U+0000")
        return value
    if not isinstance(value, int | float):  # a bool is an int
        raise ValueError("is not a text, a number or a boolean")
    if not abs(value) <= SAFE_INTEGER:
        raise ValueError("is beyond what JSON numbers carry exactly")
    return value


def _after_1900(value: date) -> date:
    if value.year < 1900:
        raise ValueError("lies before 1900")
    return value


Instant = Annotated[
    datetime,
    PlainValidator(parse_instant),
    WithJsonSchema(
        {
            "type": "string",
            "format": "date-time",
            "description": "ISO 8601 with an offset from UTC; not before 1900.",
            "examples": ["2026-03-31T09:00:00+08:00"],
        }
    ),
]
Day = Annotated[date, AfterValidator(_after_1900)]
Id = Annotated[UUID, WithJsonSchema({"type": "string", "format": "uuid", "description": "A UUID."})]


def _bounded(description: str, pattern: str = r"^\d{1,9}(\.\d{1,9})?$", **bounds: Any) -> Any:
    return WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": pattern},
                {"type": "number", **bounds},
            ],
            "description": description,
        }
    )


Chance = Annotated[
    Decimal,
    BeforeValidator(_decimal),
    Field(ge=0, le=1, decimal_places=9),
    _bounded("A probability, 0 to 1, up to 9 decimals.", minimum=0, maximum=1),
]
Months = Annotated[
    Decimal,
    BeforeValidator(_decimal),
    Field(ge=0, le=1200, decimal_places=6),
    _bounded("Months, 0 to 1200, up to 6 decimals.", minimum=0, maximum=1200),
]


Quantity = Annotated[
    Decimal,
    BeforeValidator(_decimal),
    Field(ge=0, lt=QUANTITY_LIMIT, decimal_places=12),
    _bounded(
        "0 or more, below 10^15, up to 12 decimals.",
        pattern=r"^\d{1,15}(\.\d{1,12})?$",
        minimum=0,
        exclusiveMaximum=10**15,
    ),
]
Rate = Annotated[
    Decimal,
    BeforeValidator(_decimal),
    Field(gt=0, lt=RATE_LIMIT, decimal_places=12),
    _bounded(
        "Above 0, below 10^12, up to 12 decimals.",
        pattern=r"^\d{1,12}(\.\d{1,12})?$",
        exclusiveMinimum=0,
        exclusiveMaximum=10**12,
    ),
]
Count = Annotated[int, Field(ge=0, le=COUNT_LIMIT)]
Currency = Annotated[
    str, Field(pattern=r"^[A-Z]{3}$", description="ISO 4217 code.", examples=["CNY"])
]


class MoneyBody(Model):
    """An amount, exact, in one currency."""

    value: Annotated[
        str,
        Field(
            pattern=r"^[0-9]{1,15}(\.[0-9]{1,6})?$",
            description="Not negative; no more decimals than the currency's minor unit has.",
            examples=["500000.00"],
        ),
    ]
    currency: Currency

    def money(self) -> Money:
        return Money.of(self.value, self.currency)


def _money(body: MoneyBody) -> Money:
    try:
        return body.money()
    except DomainError as error:
        raise PydanticCustomError(error.type, "{reason}", {"reason": error.message}) from None


Amount = Annotated[MoneyBody, AfterValidator(_money)]


class ExternalIdBody(Model):
    """The id that another system knows this by: unique within its source."""

    source: Label
    id: Annotated[str, Field(min_length=1, max_length=200, pattern=_VISIBLE)]


def _external(body: ExternalIdBody) -> ExternalId:
    return ExternalId(body.source, body.id)


External = Annotated[ExternalIdBody, AfterValidator(_external)]

AttributeName = Annotated[str, Field(min_length=1, max_length=64, pattern=_VISIBLE)]
AttributeValue = Annotated[
    str | int | float | bool,
    PlainValidator(_attribute),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "maxLength": 1000, "pattern": _NO_NUL},
                {"type": "number", "minimum": -SAFE_INTEGER, "maximum": SAFE_INTEGER},
                {"type": "boolean"},
            ]
        }
    ),
]
Attributes = Annotated[dict[AttributeName, AttributeValue], Field(max_length=100)]


class CommandBody(Model):
    """What every command may carry beside its own fields."""

    about_the_command: ClassVar[frozenset[str]] = frozenset({"reason"})

    occurred_at: Annotated[
        Instant | None,
        Field(description="When it was true, for facts told later; now by default."),
    ] = None
    reason: Annotated[Prose | None, Field(description="Why; kept with the events.")] = None

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of the application's method; null is the same as not sent."""
        return {
            name: value
            for name, value in self.__dict__.items()
            if value is not None and name not in self.about_the_command
        }


class PlainCommand(CommandBody):
    """A command that needs no more than who, when and why. The body may be left out."""
