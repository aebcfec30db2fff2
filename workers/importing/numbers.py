"""Numbers and days as files write them."""

from __future__ import annotations

import re
from datetime import date, datetime
from decimal import Decimal
from functools import lru_cache

from workers.importing.mapping import File
from workers.importing.records import LineError


@lru_cache(maxsize=16)
def _pattern(file: File) -> re.Pattern[str]:
    digits = r"[0-9]{1,30}"
    if file.thousands:
        digits = rf"(?:{digits}|[0-9]{{1,3}}(?:{re.escape(file.thousands)}[0-9]{{3}}){{1,9}})"
    return re.compile(rf"-?{digits}(?:{re.escape(file.decimal)}[0-9]{{1,30}})?", re.ASCII)


def number(value: str, file: File, field: str) -> Decimal:
    """An exact number. Raises LineError."""
    if not _pattern(file).fullmatch(value):
        raise LineError("bad-number", f"{field} {shown(value)} is not a number")
    plain = value.replace(file.thousands, "") if file.thousands else value
    return Decimal(plain.replace(file.decimal, "."))


@lru_cache(maxsize=10_000)
def _moment(value: str, layout: str) -> datetime | None:
    try:
        return datetime.strptime(value, layout)  # noqa: DTZ007 - a day has no zone
    except ValueError:
        return None


def moment(value: str, file: File, field: str) -> datetime:
    """A day, or a day and a time, naive where the file does not say the offset. Raises LineError.

    A day alone is its midnight.
    """
    found = _moment(value, file.dates)
    if found is None:
        raise LineError("bad-date", f"{field} {shown(value)} is not written as {file.dates}")
    return found


def day(value: str, file: File, field: str) -> date:
    """A day. Raises LineError."""
    return moment(value, file, field).date()


def shown(value: str) -> str:
    """A value for a message: quoted, and cut when it is long."""
    return repr(value if len(value) <= 40 else value[:40] + "…")
