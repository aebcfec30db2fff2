"""From a record to an order or a response whose every value has been checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Final, Generic, TypeVar
from zoneinfo import ZoneInfo

from domain.errors import DomainError
from domain.values import Money, checked_channel, optional_text, text
from workers.importing.fact_mapping import OrderLayout, ResponseLayout
from workers.importing.mapping import FileLayout
from workers.importing.numbers import moment, number
from workers.importing.records import LineError, Record, Table

_EARLIEST: Final = date(1900, 1, 2)
"""Midnight of it lies in 1900 in every time zone: nothing earlier can be recorded."""


@dataclass(frozen=True, slots=True)
class Fact:
    """A line of the file, checked. Ids are as the file has them."""

    line: int
    customer: str
    name: str | None
    at: datetime
    """When it was, in UTC."""
    on: str
    """The same as the file says it: a day, or a day and a time."""

    @property
    def identity(self) -> tuple[str, ...]:
        """What tells it from other lines of the file."""
        raise NotImplementedError

    @property
    def numbered(self) -> bool:
        """Whether lines of the same identity are facts of their own: the first, the second, …"""
        raise NotImplementedError

    def shown(self) -> str:
        """For a report."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Order(Fact):
    id: str | None
    amount: Money
    cost: Money | None

    @property
    def identity(self) -> tuple[str, ...]:
        if self.id is not None:
            return self.customer, self.id
        cost = () if self.cost is None else (str(self.cost),)
        return self.customer, self.on, str(self.amount), *cost

    @property
    def numbered(self) -> bool:
        return self.id is None

    def shown(self) -> str:
        return self.customer if self.id is None else self.id

    def order_id(self, number: int) -> str:
        """The file's, else one of day and amount; a customer's second alike order is #2."""
        if self.id is not None:
            return self.id
        of_row = " ".join(self.identity[1:])
        return of_row if number == 1 else f"{of_row} #{number}"


@dataclass(frozen=True, slots=True)
class Response(Fact):
    campaign: str
    campaign_name: str | None
    channel: str
    kind: str

    @property
    def identity(self) -> tuple[str, ...]:
        return self.customer, self.campaign, self.channel, self.kind, self.on

    @property
    def numbered(self) -> bool:
        return True

    def shown(self) -> str:
        return self.customer


F = TypeVar("F", bound=Fact)


class FactReader(Generic[F]):
    """Reads the facts of one table; `now` is the latest that anything can have been."""

    def __init__(
        self, table: Table, layout: FileLayout, columns: Iterable[tuple[str, str | None]],
        zone: ZoneInfo, now: datetime,
    ) -> None:  # fmt: skip
        """Raises FileError."""
        self._file = layout.file
        self._zone = zone
        self._now = now
        self._absent: dict[str, str] = {}
        self._places: list[tuple[str, int, Mapping[str, str]]] = []
        for field, column in columns:
            if column is None:
                self._absent[field] = ""
            else:
                place = table.column(column, f"columns.{field}")
                self._places.append((field, place, layout.fixes.get(column, {})))

    def fact(self, record: Record) -> F:
        """Raises LineError."""
        if record.error is not None:
            raise record.error
        try:
            return self._fact(record.line, self._row(record))
        except DomainError as error:
            raise LineError(error.type, error.message) from None

    def shown(self, record: Record) -> str:
        """What the record is of, as far as it can be made out, for a report."""
        if record.error is not None:
            return ""
        row = self._row(record)
        return row.get("id") or row["customer"]

    def _row(self, record: Record) -> dict[str, str]:
        row = dict(self._absent)
        for field, place, fixes in self._places:
            value = record.fields[place].strip()
            row[field] = fixes.get(value, value)
        return row

    def _fact(self, line: int, row: Mapping[str, str]) -> F:
        raise NotImplementedError

    def _customer(self, row: Mapping[str, str]) -> str:
        if not row["customer"]:
            raise LineError("customer-missing", "the customer is missing")
        return text(row["customer"], "customer")

    def _when(self, row: Mapping[str, str], field: str) -> tuple[datetime, str]:
        if not row[field]:
            raise LineError(f"{field}-missing", f"{field} is missing")
        given = moment(row[field], self._file, field)
        whole_day = given.tzinfo is None and given.time() == time()
        on = given.date().isoformat() if whole_day else given.isoformat()
        at = given.replace(tzinfo=given.tzinfo or self._zone)
        if given.date() < _EARLIEST:
            raise LineError("invalid-date", f"{field} {on} is too long ago")
        if given.year >= 3000 or at > self._now:
            raise LineError("in-the-future", f"{field} {on} is in the future")
        return at.astimezone(UTC), on


class OrderReader(FactReader[Order]):
    """`currency` is meant where neither file nor mapping gives one."""

    def __init__(
        self, table: Table, layout: OrderLayout, currency: str, zone: ZoneInfo, now: datetime
    ) -> None:
        super().__init__(table, layout, layout.columns, zone, now)
        self._currency = layout.amount.currency or currency

    def _fact(self, line: int, row: Mapping[str, str]) -> Order:
        if "id" not in self._absent and not row["id"]:
            raise LineError("missing-id", "the id is missing")
        at, on = self._when(row, "placed")
        amount = self._money(row, "amount")
        if amount is None:
            raise LineError("amount-missing", "the amount is missing")
        return Order(
            line=line,
            customer=self._customer(row),
            name=optional_text(row["name"], "name"),
            at=at,
            on=on,
            id=optional_text(row["id"], "id"),
            amount=amount,
            cost=self._money(row, "cost"),
        )

    def _money(self, row: Mapping[str, str], field: str) -> Money | None:
        if not row[field]:
            return None
        exact = number(row[field], self._file, field)
        if exact < 0:
            raise LineError(f"negative-{field}", f"{field} {exact} is negative")
        return Money.of(exact, row["currency"] or self._currency)


class ResponseReader(FactReader[Response]):
    def __init__(self, table: Table, layout: ResponseLayout, zone: ZoneInfo, now: datetime) -> None:
        super().__init__(table, layout, layout.columns, zone, now)
        self._layout = layout

    def _fact(self, line: int, row: Mapping[str, str]) -> Response:
        if not row["campaign"]:
            raise LineError("campaign-missing", "the campaign is missing")
        kind = row["kind"] or self._layout.kind
        if not kind:
            raise LineError("kind-missing", "the kind is missing")
        at, on = self._when(row, "at")
        return Response(
            line=line,
            customer=self._customer(row),
            name=optional_text(row["name"], "name"),
            at=at,
            on=on,
            campaign=text(row["campaign"], "campaign"),
            campaign_name=optional_text(row["campaign_name"], "campaign_name"),
            channel=self._channel(row["channel"]),
            kind=text(kind, "kind"),
        )

    def _channel(self, word: str) -> str:
        channel = self._layout.channels.get(word) or word or self._layout.channel
        if not channel:
            raise LineError("channel-missing", "the channel is missing")
        return checked_channel(channel)
