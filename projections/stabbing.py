"""The rows of a period table that were true and known at a moment, found by indexes.

That is a stabbing query: which intervals hold a point? No B-tree keeps intervals in an order that
tells. But of intervals of one length only those can that begin no more than this length before it.
So rows are put into classes by the binary logarithm of their length; the index leads from class to
class to those that begin there. What is read in vain does not grow with the table.

Nearly all rows have an end in one of the two times only: a state is true for ever until the next
event of its key, and from then on it is known for ever when it ended. So rows without end in truth
are looked for by when they were known, the others by when they were true.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from projections.reading import Moment, last_known, truth

_KNOWN: Final = "floor(ln(greatest(known_to - known_from, 1)) / ln(2))::int"
_TRUE: Final = (
    "floor(ln(greatest(date_part('epoch', valid_to - valid_from), 1)) / ln(2::float8))::int"
)
_KNOWN_CLASSES: Final = 64
_TRUE_CLASSES: Final = 39
"""Seconds: up to 17,000 years."""
_EARLIEST: Final = datetime.min.replace(tzinfo=UTC)


def indexes(
    table: str, columns: Sequence[str], condition: str
) -> tuple[tuple[str, str], tuple[str, str]]:
    """Both, as a PeriodTable takes them: for the rows for which `condition` holds, with all that a
    query of these `columns` needs."""
    times = ("valid_from", "valid_to", "known_from", "known_to")

    def body(length: str, begin: str, ends: str) -> str:
        others = ", ".join((*columns, *(time for time in times if time != begin)))
        return f"(({length}), {begin}) INCLUDE ({others}) WHERE {condition} AND valid_to {ends}"

    return (
        (f"{table}_by_known", body(_KNOWN, "known_from", "= 'infinity'")),
        (f"{table}_by_true", body(_TRUE, "valid_from", "< 'infinity'")),
    )


def rows(
    moment: Moment, table: str, columns: Sequence[str], condition: str
) -> tuple[str, dict[str, Any]]:
    """A query for the columns of the rows true and known at the moment for which `condition`
    holds, and its parameters, the moment's among them; for a FROM, in parentheses."""
    listed = ", ".join(columns)
    parts = [
        f"""SELECT one.* FROM unnest(%(known_classes)s::int[], %(known_after)s::bigint[])
                AS class(number, after), LATERAL (
            SELECT {listed} FROM {table} WHERE {condition} AND valid_to = 'infinity'
                AND {_KNOWN} = class.number AND known_from > class.after
                AND known_from <= %(last_known)s AND {truth(moment)} OFFSET 0) AS one"""
    ]
    if not (moment.latest and moment.known_at is None):
        parts.append(
            f"""SELECT one.* FROM unnest(%(true_classes)s::int[], %(true_after)s::timestamptz[])
                AS class(number, after), LATERAL (
            SELECT {listed} FROM {table} WHERE {condition} AND valid_to < 'infinity'
                AND {_TRUE} = class.number AND valid_from > class.after
                AND {truth(moment)} OFFSET 0) AS one"""
        )
    return " UNION ALL ".join(parts), {**moment.parameters(), **_classes(moment)}


def _classes(moment: Moment) -> dict[str, Any]:
    """The classes, and after what their rows begin that may hold the point."""
    position = last_known(moment)
    return {
        "last_known": position,
        "known_classes": list(range(_KNOWN_CLASSES)),
        "known_after": [max(-1, position - 2 ** (one + 1)) for one in range(_KNOWN_CLASSES)],
        "true_classes": list(range(_TRUE_CLASSES)),
        "true_after": [_before(moment.as_of, 2 ** (one + 1)) for one in range(_TRUE_CLASSES)],
    }


def _before(at: datetime, seconds: int) -> datetime:
    if (at - _EARLIEST) / timedelta(seconds=1) <= seconds:
        return _EARLIEST
    return at - timedelta(seconds=seconds)
