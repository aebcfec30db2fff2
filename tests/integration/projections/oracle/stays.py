"""Customers' stays in the values of a classification: how long, by cohort, from date to date, and
which ended in a loss."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING
from uuid import UUID

from domain.customer import Customer
from infra.eventstore.feed import Recorded
from projections import lifecycle
from projections.lifecycle import ABSENT, Classification, CohortsBy
from projections.reading import Moment
from tests.integration.projections.oracle.comparing import Comparer
from tests.integration.projections.oracle.refold import CLASSIFICATIONS, Refold, Stand
from tests.integration.projections.oracle.value import Purchase, purchases

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

MONTHS = 7
"""Of cohorts."""
DAY = timedelta(days=1)
CAUSES = ("declining", "problem", "no-value")


@dataclass
class Stay:
    """`first`: the customer's first one, which needs no event that changes anything."""

    value: str
    since: datetime
    until: datetime | None = None
    cause: str | None = None


def stays(one: Stand, classification: str) -> list[Stay]:
    """A stay ends where an event changes the value; one of no time is none."""
    found: list[Stay] = []
    for at, values, cause in one.steps:
        value = values[classification]
        if found and found[-1].value == value:
            continue
        if found and found[-1].since == at:
            found.pop()
        elif found:
            found[-1].until = at
        found.append(Stay(value, at, cause=cause if value == "lost" else None))
    return found


def ask(
    asker: Comparer,
    moment: Moment,
    truth: Refold,
    events: Sequence[Recorded],
    start: datetime,
    end: datetime,
    zone: ZoneInfo,
) -> None:
    """`truth` is the refold of `events`."""
    for name in CLASSIFICATIONS:
        own = [stay for one in truth.customers.values() for stay in stays(one, name)]
        durations(asker, moment, name, own)
        flows(asker, moment, name, truth, start, end)
    losses(asker, moment, truth, start, end)
    for by in CohortsBy:
        for currency in ("CNY", "JPY"):
            cohorts(asker, moment, truth, events, by, currency, zone)


# ---- how long ----


def durations(asker: Comparer, moment: Moment, name: str, own: list[Stay]) -> None:
    found = asker.models.ask(
        lifecycle.durations, moment, classification=Classification(name)
    )  # fmt: skip
    values = {one.value for one in found}
    assert {stay.value for stay in own} <= values
    for one in found:
        here = [stay for stay in own if stay.value == one.value]
        closed = [_days(stay.until - stay.since) for stay in here if stay.until is not None]
        lasting = [_days(moment.as_of - stay.since) for stay in here if stay.until is None]
        what = f"time in {name} {one.value}"
        counts = (len(here), len(closed), len(lasting))
        asker.same(what, moment, (one.periods, one.closed, one.open), counts)
        figures = {
            "mean": (one.mean_days, sum(closed) / len(closed) if closed else None),
            "median": (one.median_days, _median(closed)),
            "survival": (one.survival_median_days, survival(closed, lasting)[0]),
            "area": (one.restricted_mean_days, survival(closed, lasting)[1]),
            "longest": (one.restricted_to_days, max([*closed, *lasting], default=None)),
        }
        for figure, (shown, expected) in figures.items():
            if shown is None or expected is None:
                asker.same(f"{figure}, {what}", moment, shown, expected)
            else:
                exact = Decimal(expected.numerator) / Decimal(expected.denominator)
                asker.near(f"{figure}, {what}", moment, shown, exact)
        asker.tell("durations", closed)
        asker.tell("durations with a survival median", one.survival_median_days)


def _days(time: timedelta) -> Fraction:
    return Fraction(time // timedelta(microseconds=1), 86_400_000_000)


def _median(days: list[Fraction]) -> Fraction | None:
    ordered = sorted(days)
    if not ordered:
        return None
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def survival(
    closed: list[Fraction], lasting: list[Fraction]
) -> tuple[Fraction | None, Fraction | None]:
    """Kaplan and Meier: when no more than half are still there, and the area under the curve up to
    the longest time seen. What ends and what is seen no more at one time: the end is first."""
    ended, seen = Counter(closed), Counter([*closed, *lasting])
    if not seen:
        return None, None
    there, before, area, half = Fraction(1), Fraction(0), Fraction(0), None
    left = sum(seen.values())
    for time in sorted(seen):
        area += there * (time - before)
        there *= 1 - Fraction(ended[time], left)
        left -= seen[time]
        before = time
        if half is None and there <= Fraction(1, 2):
            half = time
    return half, area


# ---- from date to date ----


def flows(
    asker: Comparer, moment: Moment, name: str, truth: Refold, start: datetime, end: datetime
) -> None:
    dates = sorted({min(start, moment.as_of), min(end, moment.as_of), moment.as_of})
    if len(dates) < 2:
        return
    found = asker.models.ask(
        lifecycle.flows, moment, classification=Classification(name), dates=dates
    )
    nodes: Counter[tuple[int, str]] = Counter()
    links: Counter[tuple[int, str, str]] = Counter()
    customers = 0
    for one in truth.customers.values():
        values = [_stood(one, name, day) for day in dates]
        if values[-1] == ABSENT:
            continue
        customers += 1
        nodes.update(enumerate(values))
        links.update((step, *pair) for step, pair in enumerate(pairwise(values)))
    what = f"flows by {name} over {dates}"
    asker.same(what, moment, found.customers, customers)
    shown = {(one.step, one.value): one.customers for one in found.nodes}
    asker.same(f"nodes: {what}", moment, shown, dict(nodes))
    ways = {(one.step, one.source, one.target): one.customers for one in found.links}
    asker.same(f"links: {what}", moment, ways, dict(links))
    asker.tell("flows", any(source != target for _, source, target in ways))


def _stood(one: Stand, name: str, at: datetime) -> str:
    there = [values[name] for since, values in one.history if since <= at]
    return there[-1] if there else ABSENT


# ---- losses ----


def losses(asker: Comparer, moment: Moment, truth: Refold, start: datetime, end: datetime) -> None:
    expected = []
    declined: Counter[tuple[str, str | None]] = Counter()
    for id_, one in truth.customers.items():
        for stay in stays(one, "type"):
            if stay.value == "lost" and start <= stay.since < end:
                before = [values["level"] for at, values in one.history if at < stay.since]
                level = before[-1] if before and before[-1] != "none" else None
                expected.append((id_, stay.since, stay.cause, stay.cause != "silence", level))
        declined.update(
            (stay.value, None)
            for stay in stays(one, "level")
            if stay.value in CAUSES and start <= stay.since < end
        )
    what = f"losses from {start} to {end}"
    rows, after = [], None
    while True:
        page = asker.models.ask(
            lifecycle.losses, moment, start=start, end=end, limit=1000, after=after
        )
        rows += page.rows
        after = page.next
        if after is None:
            break
    shown = [(one.customer_id, one.lost_at, one.cause, one.active, one.level) for one in rows]
    asker.same(what, moment, sorted(shown, key=str), sorted(expected, key=str))
    causes = asker.models.ask(lifecycle.loss_causes, moment, start=start, end=end)
    counts: dict[tuple[str | None, bool], list[int]] = defaultdict(lambda: [0, 0])
    for _, _, cause, active, level in expected:
        counts[cause, active][0] += 1
        counts[cause, active][1] += level == "stable"
    by_cause = {(one.cause, one.active): [one.losses, one.from_stable] for one in causes}
    asker.same(f"causes: {what}", moment, by_cause, dict(counts))
    declines = asker.models.ask(lifecycle.decline_causes, moment, start=start, end=end)
    moves = {(one.level, one.rule): one.moves for one in declines}
    asker.same(f"declines: {what}", moment, moves, dict(declined))
    asker.tell("losses", expected)
    asker.tell("losses of a level", any(one[-1] for one in expected))
    asker.tell("declines", declined)


# ---- cohorts ----


def cohorts(
    asker: Comparer,
    moment: Moment,
    truth: Refold,
    events: Sequence[Recorded],
    by: CohortsBy,
    currency: str,
    zone: ZoneInfo,
) -> None:
    found = asker.models.ask(
        lifecycle.cohorts, moment, by=by, currency=currency, timezone=zone, months=MONTHS
    )
    bought = purchases(events)
    present = _number(moment.as_of.astimezone(zone).date())
    came = {
        id_: month
        for id_, month in _came(events, bought, by, zone).items()
        if present - MONTHS < month <= present
    }
    expected = {}
    for cohort in sorted(set(came.values())):
        own = {id_ for id_, month in came.items() if month == cohort}
        rows = []
        for month in range(cohort, present + 1):
            then = [one for one in bought if one.customer in own and _number(one.on) == month]
            until = datetime(*_year_month(month + 1), 1, tzinfo=zone)
            kept = sum(_related(truth.customers[id_], until) for id_ in own)
            paid = sum((one.amount for one in then if one.currency == currency), Decimal(0))
            rows.append((month - cohort, len({one.customer for one in then}), kept, paid))
        expected[date(*_year_month(cohort), 1)] = len(own), rows
    shown = {
        one.starts: (
            one.customers,
            [(each.month, each.active, each.retained, each.revenue) for each in one.months],
        )
        for one in found.cohorts
    }
    what = f"cohorts by {by} in {currency}"
    asker.same(what, moment, shown, expected)
    others: dict[str, tuple[int, Decimal]] = {}
    for one in bought:
        if one.customer in came and one.currency != currency:
            count, amount = others.get(one.currency, (0, Decimal(0)))
            others[one.currency] = count + 1, amount + one.amount
    beside = {one.currency: (one.count, one.amount) for one in found.other_currencies}
    asker.same(f"other currencies: {what}", moment, beside, others)
    asker.tell(f"cohorts by {by}", any(row[1] for _, rows in expected.values() for row in rows))


def _came(
    events: Iterable[Recorded], bought: Iterable[Purchase], by: CohortsBy, zone: ZoneInfo
) -> dict[UUID, int]:
    """The month of each customer's first purchase or registration."""
    months: dict[UUID, list[int]] = defaultdict(list)
    if by is CohortsBy.FIRST_PURCHASE:
        for one in bought:
            months[one.customer].append(_number(one.on))
    else:
        for event in events:
            if isinstance(event.event, Customer.Created):
                on = event.occurred_at.astimezone(zone).date()
                months[event.stream_id].append(_number(on))
    return {id_: min(each) for id_, each in months.items()}


def _related(one: Stand, before: datetime) -> bool:
    """In a relationship at the last instant before this one, of all that has happened."""
    there = [values["type"] for at, values in one.history if at < before]
    return bool(there) and there[-1] == "relationship"


def _number(day: date) -> int:
    return day.year * 12 + day.month - 1


def _year_month(number: int) -> tuple[int, int]:
    return number // 12, number % 12 + 1
