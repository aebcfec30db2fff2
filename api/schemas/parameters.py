"""Query parameters of reads, and how the values of answers are written."""

import re
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    WithJsonSchema,
)

from api.reads import Question
from api.schemas.fields import parse_instant
from domain.errors import DomainError
from domain.values import minor_units

LARGEST_POSITION = 2**63 - 1
_LATEST = datetime(3000, 1, 1, tzinfo=UTC)
"""Like the days of facts; so that in no time zone, and no month to come, the calendar ends."""
_BLANK_OFFSET = re.compile(r" (\d{2}:?\d{2})$")


def _instant(value: object) -> datetime:
    """As `parse_instant`; an offset's `+` that became a blank on its way is taken as a plus."""
    found = parse_instant(_BLANK_OFFSET.sub(r"+\1", value) if isinstance(value, str) else value)
    if found >= _LATEST:
        raise ValueError("lies after 2999")
    return found


def _known_at(value: object) -> int | datetime:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 19:
        position = int(value)
        if position <= LARGEST_POSITION:
            return position
        raise ValueError("is no position")
    return _instant(value)


def _currency(value: str) -> str:
    try:
        minor_units(value)
    except DomainError as error:
        raise ValueError(str(error)) from None
    return value


def _flag(value: object) -> bool:
    if value in ("true", True):
        return True
    if value in ("false", False):
        return False
    raise ValueError("is neither true nor false")


def _day(value: object) -> date:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        raise ValueError("is not a date, as 2026-03-31")
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise ValueError("is not a day of the calendar") from None


_TIME = {"type": "string", "format": "date-time"}
Instant = Annotated[datetime, PlainValidator(_instant), WithJsonSchema(_TIME)]
KnownAt = Annotated[
    int | datetime,
    PlainValidator(_known_at),
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 0, "maximum": LARGEST_POSITION}, _TIME]}
    ),
]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$"), AfterValidator(_currency)]
Flag = Annotated[bool, BeforeValidator(_flag)]
Day = Annotated[date, PlainValidator(_day), WithJsonSchema({"type": "string", "format": "date"})]
Term = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]


class ReadParameters(BaseModel):
    """What every read takes."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    as_of: Annotated[Instant | None, Field(description="What was true then; now by default.")] = (
        None
    )
    known_at: Annotated[
        KnownAt | None,
        Field(description="As known then: a position of the log, or a time. All by default."),
    ] = None
    min_position: Annotated[
        int,
        Field(
            ge=0,
            le=LARGEST_POSITION,
            description="Waits, for a bounded time, until the answer reflects this position.",
        ),
    ] = 0
    currency: Annotated[
        Currency | None, Field(description="ISO 4217 code; CRM_CURRENCY by default.")
    ] = None

    def question(self) -> Question:
        return Question(self.as_of, self.known_at, self.min_position)


class ListParameters(ReadParameters):
    """What every list takes."""

    limit: Annotated[int, Field(ge=1, le=1000)] = 50
    cursor: Annotated[
        str | None, Field(max_length=2048, description="From the answer before: its `next`.")
    ] = None
    search: Annotated[
        Term | None, Field(description="Part of a name or external id, in any case.")
    ] = None
    sort: Annotated[str, Field(max_length=40)] = "id"

    def filters(self) -> dict[str, Any]:
        """The filters that were sent: every field that only the list itself has."""
        return {
            name: value
            for name, value in self.__dict__.items()
            if name not in ListParameters.model_fields and value is not None
        }

    def identity(self) -> dict[str, Any]:
        """All that decides what the list holds, and so what its cursors are good for."""
        return {
            name: value
            for name, value in self.__dict__.items()
            if name not in ("cursor", "limit", "min_position", "currency") and value is not None
        }


def sorts(fields: tuple[str, ...]) -> str:
    """A pattern for `sort`: one of the fields, with a minus for descending."""
    return f"^-?({'|'.join(fields)})$"


def money(amount: Decimal, currency: str) -> dict[str, str]:
    """An amount as answers give it, rounded (half to even) to the minor unit."""
    unit = Decimal(1).scaleb(-minor_units(currency))
    rounded = amount.quantize(unit, rounding=ROUND_HALF_EVEN)
    return {"value": f"{rounded + 0:f}", "currency": currency}


def number(value: Decimal | None) -> str | None:
    """A number that is no money: plain, without trailing zeros."""
    if value is None:
        return None
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def external(source: str | None, id_: str | None) -> dict[str, str] | None:
    return None if source is None or id_ is None else {"source": source, "id": id_}
