"""In which month a deal falls: by the pipeline's definition, and by the calendar."""

from __future__ import annotations

from calendar import monthrange
from datetime import date
from decimal import Decimal
from enum import StrEnum
from typing import Final

DAYS_A_MONTH: Final = Decimal("30.4375")
"""365.25 ÷ 12, by which ages in days are compared with durations in months."""


class Timing(StrEnum):
    """How long a deal still takes in the stage it is in.

    `half_elapsed`: half of the stage's time; `full_duration`: all of it; `aged`: all of it less
    the time spent there, at least nothing; `learned`: as deals took that were there before.
    """

    HALF_ELAPSED = "half_elapsed"
    FULL_DURATION = "full_duration"
    AGED = "aged"
    LEARNED = "learned"


class MonthsBy(StrEnum):
    """Months counted from the date of the forecast, or those of the calendar."""

    RELATIVE = "relative"
    CALENDAR = "calendar"


def months_left(timing: Timing, duration: Decimal, later: Decimal, age_days: int) -> Decimal:
    """Months until the win of a deal that has been in its stage for so many whole days; `later`
    are the durations of the stages after it, in months."""
    if timing is Timing.HALF_ELAPSED:
        return duration / 2 + later
    if timing is Timing.FULL_DURATION:
        return duration + later
    return max(duration - age_days / DAYS_A_MONTH, Decimal(0)) + later


def month_of(left: Decimal, today: date, by: MonthsBy) -> int:
    """The number of the month, from 1, in which a deal falls that takes `left` more months.

    By the calendar, a fraction of a month counts 30 days to the unit.
    """
    if by is MonthsBy.RELATIVE:
        return max(1, int(left.to_integral_value("ROUND_CEILING")))
    whole = int(left)
    days = int((left - whole) * 30)
    day = months_later(today, whole).toordinal() + days
    falls = date.fromordinal(min(day, date.max.toordinal()))
    return (falls.year - today.year) * 12 + falls.month - today.month + 1


def month_starts(today: date, months: int, by: MonthsBy) -> list[date]:
    """The first days of so many months, and the day after the last one."""
    first = today if by is MonthsBy.RELATIVE else today.replace(day=1)
    return [months_later(first, number) for number in range(months + 1)]


def months_later(day: date, months: int) -> date:
    """The same day so many months later, or the last one of that month."""
    year, month = divmod(day.year * 12 + day.month - 1 + months, 12)
    if year > date.max.year:
        return date.max
    if year < 1:
        return date.min
    return date(year, month + 1, min(day.day, monthrange(year, month + 1)[1]))
