"""From a record to a deal whose every value has been checked, before any command is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Final, Literal

from domain.errors import DomainError
from domain.values import ExternalId, Money, business_date, optional_text, text
from workers.importing.lookups import Lookups
from workers.importing.mapping import Layout
from workers.importing.numbers import day, number, shown
from workers.importing.records import LineError, Record, Table

OPEN: Final = "open"
_EARLIEST: Final = date(1900, 1, 2)
"""Midnight of it lies in 1900 in every time zone: nothing earlier can be recorded."""


@dataclass(frozen=True, slots=True)
class Deal:
    """A line of the file, checked; `stage` is the pipeline's, names are as the file has them."""

    line: int
    external_id: ExternalId
    name: str
    account: str | None
    owner: str | None
    stage: str
    amount: Money
    """What it opens with."""
    priced: bool
    """Whether that comes from the price list."""
    product: str | None
    opened: date | None
    expected_close: date | None
    stage_since: date | None
    outcome: Literal["won", "lost"] | None
    closed: date | None
    """When it was won or lost; None of an open deal."""
    contract: Money | None
    cause: str
    competitor: str


class Reader:
    """Reads the deals of one table."""

    def __init__(
        self, table: Table, layout: Layout, lookups: Lookups, currency: str, today: date
    ) -> None:
        """`currency` is meant where neither file nor mapping gives one. Raises FileError."""
        self._layout = layout
        self._lookups = lookups
        self._today = today
        self._currency = layout.amount.currency or currency
        given = layout.columns.given()
        self._places = [
            (field, table.column(column, f"columns.{field}"), layout.fixes.get(column, {}))
            for field, column in given.items()
        ]
        self._absent = dict.fromkeys(type(layout.columns).model_fields.keys() - given.keys(), "")
        self._one_column = given.get("outcome") == given["stage"]

    def id_of(self, record: Record) -> str:
        """The record's own id as far as it can be made out, for a report."""
        if record.error is None:
            for field, place, _ in self._places:
                if field == "id":
                    return record.fields[place].strip()
        return ""

    def deal(self, record: Record) -> Deal:
        """Raises LineError."""
        if record.error is not None:
            raise record.error
        row = dict(self._absent)
        for field, place, fixes in self._places:
            value = record.fields[place].strip()
            row[field] = fixes.get(value, value)
        try:
            return self._deal(record.line, row)
        except DomainError as error:
            raise LineError(error.type, error.message) from None

    def _deal(self, line: int, row: Mapping[str, str]) -> Deal:
        if not row["id"]:
            raise LineError("missing-id", "the id is missing")
        outcome = self._outcome(row)
        amount = self._given_amount(row)
        opened, closed = self._day(row, "opened"), self._day(row, "closed")
        expected_close = self._day(row, "expected_close", future=True)
        self._check_period(opened, closed, outcome)
        return Deal(
            line=line,
            external_id=ExternalId.of(self._layout.source, row["id"]),
            name=text(row["name"], "name"),
            account=self._account(row),
            owner=self._owner(row),
            stage=self._stage(row),
            amount=self._opening(row, amount),
            priced=self._is_priced(row),
            product=row["product"] or None,
            opened=opened,
            expected_close=expected_close,
            stage_since=self._day(row, "stage_since"),
            outcome=outcome,
            closed=closed if outcome is not None else None,
            contract=self._contract(amount) if outcome == "won" else None,
            cause=optional_text(row["loss_cause"], "loss_cause") or self._layout.loss.cause,
            competitor=optional_text(row["competitor"], "competitor")
            or self._layout.loss.competitor,
        )

    def _stage(self, row: Mapping[str, str]) -> str:
        stage = self._layout.stage_words.get(row["stage"])
        if stage is None:
            raise LineError("unknown-stage", f"stage {shown(row['stage'])} is not in the mapping")
        return stage

    def _outcome(self, row: Mapping[str, str]) -> Literal["won", "lost"] | None:
        word = row["outcome"]
        outcome = self._layout.outcomes.get(word)
        if outcome is None and word and not self._one_column:
            raise LineError("unknown-outcome", f"outcome {shown(word)} is not in the mapping")
        return None if outcome is None or outcome == OPEN else outcome

    def _day(self, row: Mapping[str, str], field: str, *, future: bool = False) -> date | None:
        if not row[field]:
            return None
        found = business_date(day(row[field], self._layout.file, field), field)
        if found < _EARLIEST:
            raise LineError("invalid-date", f"{field} {found} is too long ago")
        if found > self._today and not future:
            raise LineError("in-the-future", f"{field} {found} is in the future")
        return found

    def _check_period(self, opened: date | None, closed: date | None, outcome: str | None) -> None:
        if opened is None and self._layout.missing.opened == "refuse":
            raise LineError("opened-missing", "opened is missing")
        if outcome is None:
            return
        if closed is None:
            raise LineError("closed-missing", f"closed is missing, though the deal is {outcome}")
        first = opened
        if first is None and isinstance(self._layout.missing.opened, date):
            first = self._layout.missing.opened
        if first is not None and closed < first:
            raise LineError("closed-before-opened", f"closed {closed} is before opened {first}")

    def _given_amount(self, row: Mapping[str, str]) -> Money | None:
        if not row["amount"]:
            return None
        exact = number(row["amount"], self._layout.file, "amount")
        if exact < 0:
            raise LineError("negative-amount", f"amount {exact} is negative")
        return Money.of(exact, row["currency"] or self._currency)

    def _is_priced(self, row: Mapping[str, str]) -> bool:
        if self._lookups.prices is None:
            return False
        return self._layout.amount.opening == "price" or not row["amount"]

    def _opening(self, row: Mapping[str, str], amount: Money | None) -> Money:
        price = self._price(row)
        if self._is_priced(row) and price is not None:
            return Money.of(price, row["currency"] or self._currency)
        if amount is None:
            raise LineError("amount-missing", "the amount is missing")
        return amount

    def _price(self, row: Mapping[str, str]) -> Decimal | None:
        if self._lookups.prices is None:
            return None
        price = self._lookups.prices.get(row["product"])
        if price is None:
            raise LineError(
                "unknown-product", f"product {shown(row['product'])} is not in the price list"
            )
        return price

    def _contract(self, amount: Money | None) -> Money:
        if amount is None:
            raise LineError("amount-missing", "the amount is missing, though the deal is won")
        return amount

    def _account(self, row: Mapping[str, str]) -> str | None:
        name = optional_text(row["account"], "account")
        accounts = self._layout.accounts
        if name is None:
            if self._layout.missing.account == "refuse":
                raise LineError("account-missing", "the account is missing")
            return None
        if (
            self._lookups.accounts is not None
            and name not in self._lookups.accounts
            and accounts is not None
            and accounts.unlisted == "refuse"
        ):
            raise LineError("unknown-account", f"account {shown(name)} is not in the accounts file")
        return name

    def _owner(self, row: Mapping[str, str]) -> str | None:
        name = optional_text(row["owner"], "owner")
        if (
            name is not None
            and self._lookups.owners is not None
            and name not in self._lookups.owners
            and self._layout.teams is not None
            and self._layout.teams.unlisted == "refuse"
        ):
            raise LineError("unknown-owner", f"owner {shown(name)} is not in the teams file")
        return name
