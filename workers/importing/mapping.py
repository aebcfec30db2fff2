"""What a file's columns and words mean: a mapping in TOML, checked strictly."""

from __future__ import annotations

import codecs
import re
import tomllib
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, Self, TypeVar, overload

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from domain.errors import DomainError
from domain.pipeline import DEFAULT_STAGES
from domain.values import Stage, minor_units, probability
from workers.importing.records import WHITESPACE, Table

SHIPPED: Final = resources.files("workers") / "mappings"


class MappingError(Exception):
    """The mapping cannot be used. The message names the key."""


def _currency(value: str) -> str:
    try:
        minor_units(value)
    except DomainError:
        raise ValueError("is not a currency of ISO 4217") from None
    return value


def _encoding(name: str) -> str:
    ascii_bytes = bytes(range(128))
    try:
        if codecs.decode(ascii_bytes, name) != ascii_bytes.decode():
            raise LookupError
    except (LookupError, UnicodeError):
        raise ValueError("is not a known encoding that ASCII is a part of") from None
    return name


def _delimiter(value: str) -> str:
    if value != WHITESPACE and (len(value) != 1 or value in '"\r\n'):
        raise ValueError(f"is one character, or {WHITESPACE}")
    return value


def _date_format(value: str) -> str:
    day = datetime(2004, 12, 31, tzinfo=UTC)
    directives = set(re.findall(r"%(.)", value))
    try:
        # first: reading a day without a year is deprecated
        if not directives & {"Y", "y", "G", "c", "x"}:
            raise ValueError
        if datetime.strptime(day.strftime(value), value).date() != day.date():  # noqa: DTZ007 - a day
            raise ValueError
    except ValueError:
        raise ValueError("does not name day, month and year, as %Y-%m-%d") from None
    return value


def _decimal(value: object) -> Decimal:
    if not isinstance(value, str):
        raise ValueError('is a number in quotes, as "0.5"')
    try:
        return Decimal(value)
    except ArithmeticError:
        raise ValueError('is a number in quotes, as "0.5"') from None


def _chance(value: Decimal) -> Decimal:
    try:
        return probability(value)
    except DomainError as error:
        raise ValueError(error.message.removeprefix("probability ")) from None


def _months(value: Decimal) -> Decimal:
    if not 0 <= value <= 1200:
        raise ValueError("is 0 to 1200 months")
    return value


Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
Words = dict[str, Text]
Number = Annotated[Decimal, BeforeValidator(_decimal)]
Width = Annotated[int, Field(ge=1, le=10_000, strict=True)]
_LIST: Any = Field(min_length=1, max_length=1000, strict=False)  # TOML's arrays come as lists


class Part(BaseModel):
    """A table of the mapping: unknown keys and values of another type are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class File(Part):
    """How all the files are written."""

    encoding: Annotated[str, AfterValidator(_encoding)] = "utf-8"
    delimiter: Annotated[str, AfterValidator(_delimiter)] = ","
    """One character, or the word whitespace: any number of blanks or tabs, without quotes."""
    names: Annotated[tuple[Text, ...], _LIST] | None = None
    """The columns of a file without header."""
    widths: Annotated[tuple[Width, ...], _LIST] | None = None
    """Of the columns, in characters, instead of a delimiter."""
    dates: Annotated[str, AfterValidator(_date_format)] = "%Y-%m-%d"
    """May have a time of day, and an offset."""
    decimal: Literal[".", ","] = "."
    thousands: Literal["", ".", ",", " ", "'"] = ""

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if self.decimal == self.thousands:
            raise ValueError("decimal and thousands are the same")
        if self.widths is not None and "delimiter" in self.model_fields_set:
            raise ValueError("delimiter and widths exclude each other")
        if self.names and self.widths and len(self.names) != len(self.widths):
            raise ValueError("there are not as many names as widths")
        return self

    def table(self, path: Path) -> Table:
        """The main file. Raises FileError."""
        return Table(
            path,
            encoding=self.encoding,
            delimiter=self.delimiter,
            names=self.names,
            widths=self.widths,
        )


class Columns(Part):
    """Which column holds what; what is left out the file does not say."""

    id: Text
    name: Text
    stage: Text
    opened: Text
    outcome: Text | None = None
    closed: Text | None = None
    account: Text | None = None
    owner: Text | None = None
    product: Text | None = None
    amount: Text | None = None
    currency: Text | None = None
    expected_close: Text | None = None
    stage_since: Text | None = None
    loss_cause: Text | None = None
    competitor: Text | None = None

    def given(self) -> dict[str, str]:
        """The column of each field that has one."""
        return {name: column for name, column in self if column is not None}


class Amount(Part):
    currency: Annotated[str, AfterValidator(_currency)] | None = None
    opening: Literal["amount", "price"] = "amount"
    """What a deal opens with: the file's amount (where it is blank, the price), or the price."""


class Prices(Part):
    file: Text
    product: Text
    price: Text


class StageOf(Part):
    name: Text
    chance_to_next: Annotated[Number, AfterValidator(_chance)]
    duration_months: Annotated[Number, AfterValidator(_months)]
    visits_per_week: Annotated[int, Field(ge=1, le=1000)] | None = None


class PipelineOf(Part):
    name: Text
    stages: Annotated[list[StageOf], Field(min_length=1, max_length=50)]
    enter: Literal["all", "own"] = "own"
    """Whether a deal goes through the stages before its own, all on the day of its opening."""


class Loss(Part):
    cause: Text = "unknown"
    competitor: Text = "unknown"


class Missing(Part):
    opened: Literal["refuse", "earliest"] | date = "refuse"
    account: Literal["refuse", "unidentified"] = "refuse"


class Attribute(Part):
    column: Text
    type: Literal["text", "integer", "number"] = "text"


class Accounts(Part):
    file: Text
    name: Text
    industry: Text | None = None
    region: Text | None = None
    attributes: dict[Text, Attribute] = Field(default_factory=dict)
    fixes: dict[Text, Words] = Field(default_factory=dict)
    unlisted: Literal["register", "refuse"] = "register"


class Teams(Part):
    file: Text
    owner: Text
    manager: Text | None = None
    region: Text | None = None
    unlisted: Literal["accept", "refuse"] = "accept"


L = TypeVar("L", bound="FileLayout")


class FileLayout(Part):
    """What every mapping has."""

    IMPORTS: ClassVar[str]
    """What is imported by it: the subcommand of ``crm import``."""

    source: Text
    file: File = Field(default_factory=File)
    fixes: dict[Text, Words] = Field(default_factory=dict)

    def conflicts(self) -> Iterator[str]:
        """What contradicts itself, each naming its key."""
        raise NotImplementedError


class Layout(FileLayout):
    """A whole mapping of deals."""

    IMPORTS = "opportunities"

    imports: Literal["opportunities"] = "opportunities"
    columns: Columns
    amount: Amount = Field(default_factory=Amount)
    prices: Prices | None = None
    pipeline: PipelineOf | None = None
    stages: Words = Field(default_factory=dict)
    outcomes: dict[str, Literal["won", "lost", "open"]] = Field(default_factory=dict)
    loss: Loss = Field(default_factory=Loss)
    missing: Missing = Field(default_factory=Missing)
    accounts: Accounts | None = None
    teams: Teams | None = None

    @property
    def pipeline_stages(self) -> tuple[Stage, ...]:
        """The stages deals are in: the mapping's own, else the default pipeline's."""
        if self.pipeline is None:
            return DEFAULT_STAGES
        return tuple(
            Stage(s.name, s.chance_to_next, s.duration_months, s.visits_per_week)
            for s in self.pipeline.stages
        )

    @property
    def stage_words(self) -> Mapping[str, str]:
        """The stage behind each word of the stage column."""
        return self.stages or {stage.name: stage.name for stage in self.pipeline_stages}

    @property
    def enters_all(self) -> bool:
        return self.pipeline is not None and self.pipeline.enter == "all"

    def conflicts(self) -> Iterator[str]:
        """What contradicts itself, each naming its key."""
        names = [stage.name for stage in self.pipeline_stages]
        if len(set(names)) < len(names):
            yield "pipeline.stages: two stages have the same name"
        for word, stage in self.stages.items():
            if stage not in names:
                yield f"stages.{word}: the pipeline has no stage {stage!r}"
        for column in self.fixes.keys() - set(self.columns.given().values()):
            yield f"fixes.{column}: no field is in that column"
        if self.columns.outcome and not self.outcomes:
            yield "outcomes: is missing, since columns.outcome is given"
        if self.outcomes and not self.columns.outcome:
            yield "columns.outcome: is missing, since outcomes are given"
        if {"won", "lost"} & set(self.outcomes.values()) and not self.columns.closed:
            yield "columns.closed: is missing, since deals may be won or lost"
        if "won" in self.outcomes.values() and not self.columns.amount:
            yield "columns.amount: is missing, since deals may be won"
        if self.prices is not None and not self.columns.product:
            yield "columns.product: is missing, since prices are given"
        if self.amount.opening == "price" and self.prices is None:
            yield "prices: is missing, since deals open at the price"
        if self.amount.opening == "amount" and not (self.columns.amount or self.prices):
            yield "columns.amount: is missing, since deals open at the amount"
        if self.accounts is not None and not self.columns.account:
            yield "columns.account: is missing, since accounts are given"
        if not self.columns.account and self.missing.account == "refuse":
            yield "columns.account: is missing, since missing.account is refuse"
        if self.teams is not None and not self.columns.owner:
            yield "columns.owner: is missing, since teams are given"


def shipped(imports: str = Layout.IMPORTS) -> list[str]:
    """The names of the mappings that come with the program, of what is imported."""
    names = (entry.name for entry in SHIPPED.iterdir() if entry.name.endswith(".toml"))
    return sorted(
        name.removesuffix(".toml")
        for name in names
        if tomllib.loads((SHIPPED / name).read_text()).get("imports", Layout.IMPORTS) == imports
    )


@overload
def load_mapping(name: str, *, source: str | None = None) -> Layout: ...


@overload
def load_mapping(name: str, kind: type[L], *, source: str | None = None) -> L: ...


def load_mapping(name: str, kind: Any = Layout, *, source: str | None = None) -> Any:
    """The mapping in a file, or the shipped one of that name; `source` replaces the file's.

    Raises MappingError.
    """
    values = _read(name, kind.IMPORTS)
    if source is not None:
        values["source"] = source
    told = values.get("imports", Layout.IMPORTS)
    if told != kind.IMPORTS:
        raise MappingError(f"{name}: imports: this is a mapping of {told}, not of {kind.IMPORTS}")
    try:
        layout = kind.model_validate(values)
    except ValidationError as error:
        raise MappingError(f"{name}: {_first(error)}") from None
    for conflict in layout.conflicts():
        raise MappingError(f"{name}: {conflict}")
    return layout


def _read(name: str, imports: str) -> dict[str, Any]:
    try:
        if "/" not in name and (SHIPPED / f"{name}.toml").is_file():
            data = (SHIPPED / f"{name}.toml").read_bytes()
        else:
            data = Path(name).read_bytes()
        return tomllib.loads(data.decode())
    except OSError as error:
        known = ", ".join(shipped(imports))
        raise MappingError(
            f"{name}: {error.strerror or error}; shipped mappings are {known}"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise MappingError(f"{name}: is not TOML: {error}") from None


_MESSAGES: Final = {"missing": "is missing", "extra_forbidden": "there is no such key"}


def _first(error: ValidationError) -> str:
    """One line: the key, and what is wrong with it."""
    found = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = [str(part) for part in found["loc"]]
    message = _MESSAGES.get(found["type"]) or found["msg"].removeprefix("Value error, ")
    return f"{'.'.join(place)}: {message}" if place else message
