"""The small files beside a deals file: price list, accounts, teams. Read whole, taken strictly."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TypeVar

from domain.errors import DomainError
from domain.values import AttributeValue, checked_attributes, optional_text, text
from workers.importing.mapping import Accounts, Attribute, File, Layout
from workers.importing.numbers import number, shown
from workers.importing.records import FileError, LineError, Table

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Account:
    """What the accounts file says of a customer."""

    name: str
    line: int = 0
    """In the accounts file; 0: it is not there."""
    industry: str | None = None
    region: str | None = None
    attributes: Mapping[str, AttributeValue] | None = None


@dataclass(frozen=True, slots=True)
class Owner:
    name: str
    manager: str | None = None
    region: str | None = None


@dataclass(frozen=True, slots=True)
class Lookups:
    """None where the mapping names no such file."""

    prices: Mapping[str, Decimal] | None
    accounts: Mapping[str, Account] | None
    owners: Mapping[str, Owner] | None


def read_lookups(layout: Layout, folder: Path) -> Lookups:
    """The files that the mapping names, relative to `folder`. Raises FileError."""
    return Lookups(_prices(layout, folder), _accounts(layout, folder), _owners(layout, folder))


def _prices(layout: Layout, folder: Path) -> dict[str, Decimal] | None:
    if layout.prices is None:
        return None
    given = layout.prices
    columns = {"product": given.product, "price": given.price}
    rows = _Rows(layout.file, folder / given.file, columns, "prices")

    def take(row: Mapping[str, str], line: int) -> tuple[str, Decimal]:
        if not row["product"] or not row["price"]:
            raise LineError("price", "product or price is missing")
        price = number(row["price"], layout.file, "price")
        if price < 0:
            raise LineError("price", "the price is negative")
        return row["product"], price

    return rows.each(take)


def _accounts(layout: Layout, folder: Path) -> dict[str, Account] | None:
    given = layout.accounts
    if given is None:
        return None
    columns = {"name": given.name}
    if given.industry is not None:
        columns["industry"] = given.industry
    if given.region is not None:
        columns["region"] = given.region
    attributes = {f"attributes.{key}": a.column for key, a in given.attributes.items()}
    rows = _Rows(layout.file, folder / given.file, columns | attributes, "accounts", given.fixes)

    def take(row: Mapping[str, str], line: int) -> tuple[str, Account]:
        account = _account(row, line, given, layout.file)
        return account.name, account

    return rows.each(take)


def _account(row: Mapping[str, str], line: int, given: Accounts, file: File) -> Account:
    values = {
        key: _attribute(row[f"attributes.{key}"], attribute, file)
        for key, attribute in given.attributes.items()
        if row[f"attributes.{key}"]
    }
    try:
        return Account(
            name=text(row["name"], "name"),
            line=line,
            industry=optional_text(row.get("industry"), "industry"),
            region=optional_text(row.get("region"), "region"),
            attributes=checked_attributes(values),
        )
    except DomainError as error:
        raise LineError(error.type, error.message) from None


def _attribute(value: str, attribute: Attribute, file: File) -> AttributeValue:
    if attribute.type == "text":
        return value
    exact = number(value, file, attribute.column)
    if attribute.type == "integer":
        if exact != exact.to_integral_value():
            raise LineError("bad-number", f"{attribute.column} is not a whole number")
        return int(exact)
    approximate = float(exact)
    if not math.isfinite(approximate):
        raise LineError("bad-number", f"{attribute.column} is too large")
    return approximate


def _owners(layout: Layout, folder: Path) -> dict[str, Owner] | None:
    given = layout.teams
    if given is None:
        return None
    columns = {"owner": given.owner, "manager": given.manager, "region": given.region}
    named = {field: column for field, column in columns.items() if column is not None}
    rows = _Rows(layout.file, folder / given.file, named, "teams")

    def take(row: Mapping[str, str], line: int) -> tuple[str, Owner]:
        name = row["owner"]
        if not name:
            raise LineError("owner", "the owner's name is missing")
        return name, Owner(name, row.get("manager") or None, row.get("region") or None)

    return rows.each(take)


class _Rows:
    """The rows of one such file, by field; what is wrong with a line becomes a FileError."""

    def __init__(
        self,
        file: File,
        path: Path,
        columns: Mapping[str, str],
        part: str,
        fixes: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self._table = Table(path, encoding=file.encoding, delimiter=file.delimiter)
        self._places = [
            (field, self._table.column(column, f"{part}.{field}"), (fixes or {}).get(column, {}))
            for field, column in columns.items()
        ]

    def each(self, take: Callable[[Mapping[str, str], int], tuple[str, T]]) -> dict[str, T]:
        """What `take` makes of each row, by its name. Raises FileError."""
        found: dict[str, T] = {}
        for record in self._table.records():
            try:
                if record.error is not None:
                    raise record.error
                name, value = take(self._row(record.fields), record.line)
                if name in found:
                    raise LineError("duplicate", f"{shown(name)} stands in an earlier line, too")
            except LineError as error:
                raise FileError(f"{self._table.path}, line {record.line}: {error}") from None
            found[name] = value
        return found

    def _row(self, fields: Sequence[str]) -> dict[str, str]:
        row = {}
        for field, place, fixes in self._places:
            value = fields[place].strip()
            row[field] = fixes.get(value, value)
        return row
