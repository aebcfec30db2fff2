"""What the queries of all read models share: the two times of a question, pages, filters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Generic, TypeVar
from uuid import UUID

from psycopg2.extensions import connection as Connection  # noqa: N812  (it is a class)

__all__ = [
    "MAX_LIMIT",
    "NEWEST",
    "Connection",
    "CurrencySum",
    "Moment",
    "Page",
    "Source",
    "UnknownField",
    "contains_pattern",
    "fetch",
    "fetch_one",
    "last_known",
    "page_of",
    "truth",
]

NEWEST = 9223372036854775807
"""`known_to` of a row that is still known."""

MAX_LIMIT = 1000

T = TypeVar("T")


class UnknownField(ValueError):
    """A filter or sort field that a list does not have."""


@dataclass(frozen=True, slots=True)
class Moment:
    """The two times of a question.

    `as_of`: what was true then (aware). `known_at`: the last position that counts; None counts
    all. `latest`: the client gave no `as_of`, so the open periods are the answer, which an index
    finds (facts never lie in the future); `as_of` is then the present.
    """

    as_of: datetime
    known_at: int | None = None
    latest: bool = False

    def parameters(self) -> dict[str, Any]:
        return {"as_of": self.as_of, "known_at": self.known_at, "latest": self.latest}


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Rows in order, and where the next page starts: (sort value as text, id), None at the end."""

    rows: list[T]
    next: tuple[str, UUID] | None


@dataclass(frozen=True, slots=True)
class CurrencySum:
    """What stands beside a sum because it is in another currency."""

    currency: str
    count: int
    amount: Decimal


def truth(moment: Moment, row: str = "") -> str:
    """The condition that a `*_period` row (alias `row`) was true and known at the moment."""
    dot = f"{row}." if row else ""
    if moment.latest and moment.known_at is None:
        return f"{dot}known_to = {NEWEST} AND {dot}valid_to = 'infinity'"
    true = f"{dot}valid_from <= %(as_of)s AND %(as_of)s < {dot}valid_to"
    return f"{true} AND {known(moment, row)}"


def known(moment: Moment, row: str = "") -> str:
    """The condition that a `*_period` row was known, whenever it was true."""
    dot = f"{row}." if row else ""
    if moment.known_at is None:
        return f"{dot}known_to = {NEWEST}"
    return f"{dot}known_from <= %(known_at)s AND %(known_at)s < {dot}known_to"


def last_known(moment: Moment) -> int:
    """The position that the moment's knowledge reaches to."""
    return NEWEST - 1 if moment.known_at is None else moment.known_at


def recorded(moment: Moment, row: str = "") -> str:
    """The condition that a `*_fact` row had happened and was known at the moment.

    Of the present all that is recorded, as with `truth`: the clock of who asks may be behind that
    of who recorded it.
    """
    dot = f"{row}." if row else ""
    happened = "true" if moment.latest else f"{dot}occurred_at <= %(as_of)s"
    if moment.known_at is None:
        return happened
    return f"{happened} AND {dot}position <= %(known_at)s"


def contains_pattern(text: str) -> str:
    """An ILIKE pattern for texts that contain `text` literally."""
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"


@dataclass(frozen=True, slots=True)
class Source:
    """A list that can be filtered, searched, sorted and read page by page.

    `select`: the query without WHERE's end and ORDER; its FROM has the id as `id_column`.
    `filters`: field → condition on the parameter `%(field)s`. `sorts`: field → (SQL expression
    that is never NULL, type to compare it as). `search`: text columns.
    """

    id_column: str
    filters: Mapping[str, str]
    sorts: Mapping[str, tuple[str, str]]
    search: Sequence[str]


def page_of(
    connection: Connection,
    source: Source,
    select: str,
    where: str,
    parameters: Mapping[str, Any],
    *,
    filters: Mapping[str, Any],
    search: str | None,
    sort: str,
    descending: bool,
    after: tuple[str, UUID] | None,
    limit: int,
) -> tuple[list[dict[str, Any]], tuple[str, UUID] | None]:
    """Up to `limit` rows (at most 1,000) after the key `after`, and the key of the last one.

    Raises UnknownField for a filter or sort that `source` does not name; a value that does not
    fit its column's type raises psycopg2.DataError.
    """
    if sort not in source.sorts:
        raise UnknownField(sort)
    expression, kind = source.sorts[sort]
    values = dict(parameters)
    conditions = [where]
    for name, value in filters.items():
        if name not in source.filters:
            raise UnknownField(name)
        conditions.append(source.filters[name])
        values[f"filter_{name}"] = value
    if search:
        values["search"] = contains_pattern(search)
        found = " OR ".join(f"{column} ILIKE %(search)s" for column in source.search)
        conditions.append(f"({found})")
    if after is not None:
        values["after_value"], values["after_id"] = after
        comparison = "<" if descending else ">"
        conditions.append(
            f"({expression}, {source.id_column})"
            f" {comparison} (%(after_value)s::{kind}, %(after_id)s::uuid)"
        )
    direction = "DESC" if descending else "ASC"
    size = max(1, min(limit, MAX_LIMIT))
    rows = fetch(
        connection,
        f"SELECT ({expression})::text AS sort_value, {select} WHERE {' AND '.join(conditions)}"
        f" ORDER BY {expression} {direction}, {source.id_column} {direction}"
        f" LIMIT {size + 1}",
        values,
    )
    more = len(rows) > size
    rows = rows[:size]
    following = (rows[-1]["sort_value"], rows[-1]["id"]) if more else None
    for row in rows:
        del row["sort_value"]
    return rows, following


def fetch(
    connection: Connection, query: str, parameters: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """All rows of a query, as dicts by column name."""
    with connection.cursor() as cursor:
        cursor.execute(query, dict(parameters))
        names = [column.name for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def fetch_one(
    connection: Connection, query: str, parameters: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The first row of a query, or None."""
    rows = fetch(connection, query, parameters)
    return rows[0] if rows else None
