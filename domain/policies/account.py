"""What a customer has bought and owes, summed up so that it stays small, and what level that is.

Times are whole microseconds since 1970, windows half-open: (t - length, t].
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import accumulate
from typing import Any, Final

from domain.definitions import LevelDefinition
from domain.values import Level, Money, minor_units

DAY: Final = 86_400_000_000
HINDSIGHT: Final = 1095 * DAY
"""The past before this, counted from the last thing known, is not judged any more."""

_BEGIN: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def instant(at: datetime) -> int:
    return (at - _BEGIN) // _MICROSECOND


def moment(at: int) -> datetime:
    return _BEGIN + at * _MICROSECOND


@dataclass(frozen=True, slots=True, order=True)
class Purchases:
    """Those of one day (UTC) in one currency. They count as one, at the time of the last."""

    last: int
    currency: str
    first: int
    revenue: Decimal
    cost: Decimal
    """The sum of those that are known."""
    count: int = 1
    costs_known: int = 0

    def joined(self, other: Purchases) -> Purchases:
        return Purchases(
            last=max(self.last, other.last),
            currency=self.currency,
            first=min(self.first, other.first),
            revenue=self.revenue + other.revenue,
            cost=self.cost + other.cost,
            count=self.count + other.count,
            costs_known=self.costs_known + other.costs_known,
        )

    def plain(self) -> list[Any]:
        revenue, cost = str(self.revenue), str(self.cost)
        return [self.last, self.currency, self.first, revenue, cost, self.count, self.costs_known]

    @classmethod
    def of(cls, plain: list[Any]) -> Purchases:
        last, currency, first, revenue, cost, count, known = plain
        return cls(last, currency, first, Decimal(revenue), Decimal(cost), count, known)


@dataclass(slots=True)
class Account:
    purchases: list[Purchases] = field(default_factory=list)
    """In order of time."""
    overdue: dict[str, tuple[int, Money]] = field(default_factory=dict)
    settled: dict[str, int] = field(default_factory=dict)
    since: int | None = None
    """When the relationship began: the first purchase or win-back after the last loss."""
    lost_on: int | None = None
    known: int = 0
    """The latest instant that something is known of."""

    def buy(self, at: int, amount: Money, cost: Money | None) -> None:
        bought = Purchases(
            at,
            amount.currency,
            at,
            amount.value,
            Decimal(0) if cost is None else cost.value,
            costs_known=0 if cost is None else 1,
        )
        same_day = (
            index
            for index, each in enumerate(self.purchases)
            if each.last // DAY == at // DAY and each.currency == amount.currency
        )
        index = next(same_day, None)
        if index is not None:
            bought = bought.joined(self.purchases.pop(index))
        insort(self.purchases, bought)
        self.begin(at)

    def begin(self, at: int) -> None:
        """A relationship, or an earlier beginning of it than was known."""
        if self.lost_on is None or at > self.lost_on:
            self.since = at if self.since is None else min(at, self.since)

    def lose(self, at: int) -> None:
        if self.lost_on is not None and at <= self.lost_on:
            return
        self.lost_on = at
        if self.since is None or self.since > at:
            return
        ends = (time for each in self.purchases for time in (each.first, each.last))
        self.since = min((time for time in ends if time > at), default=None)

    def forget(self, span: int) -> None:
        """What no verdict on the last `HINDSIGHT` looks at: they look back over `span`."""
        limit = self.known - HINDSIGHT - span
        kept = 0
        while kept < len(self.purchases) and self.purchases[kept].last <= limit:
            kept += 1
        del self.purchases[:kept]
        for reference in [each for each, at in self.settled.items() if at <= limit]:
            del self.settled[reference]
            self.overdue.pop(reference, None)

    def plain(self) -> dict[str, Any]:
        return {
            "purchases": [each.plain() for each in self.purchases],
            "overdue": {
                reference: [at, str(amount.value), amount.currency]
                for reference, (at, amount) in self.overdue.items()
            },
            "settled": dict(self.settled),
            "since": self.since,
            "lost_on": self.lost_on,
            "known": self.known,
        }

    @classmethod
    def of(cls, plain: dict[str, Any]) -> Account:
        overdue = {
            reference: (at, Money(Decimal(value), currency))
            for reference, (at, value, currency) in plain["overdue"].items()
        }
        bought = [Purchases.of(each) for each in plain["purchases"]]
        account = cls(purchases=bought, overdue=overdue, settled=dict(plain["settled"]))
        return replace(account, **{name: plain[name] for name in ("since", "lost_on", "known")})


@dataclass(frozen=True, slots=True)
class Verdict:
    level: Level
    figures: dict[str, str]


class Judge:
    """Tells the level at any instant, by an account and a definition (R64)."""

    def __init__(self, account: Account, definition: LevelDefinition) -> None:
        self._account = account
        self._definition = definition
        self._window = definition.window_days * DAY
        self._value = definition.value_days * DAY
        self._new = definition.new_days * DAY
        self._patience = definition.overdue_days * DAY
        self._span = span(definition)
        by_currency: dict[str, list[Purchases]] = {}
        for each in account.purchases:
            by_currency.setdefault(each.currency, []).append(each)
        self._sums = {code: _Sums(bought) for code, bought in sorted(by_currency.items())}

    def changes(self) -> Iterator[int]:
        """Every instant at which the level may become another one, in order."""
        account = self._account
        instants = set(account.settled.values())
        instants.update(at + self._patience for at, _ in account.overdue.values())
        if account.since is not None:
            instants.add(account.since + self._new)
        for each in account.purchases:
            for after in (0, self._window, 2 * self._window, self._value):
                instants.add(each.last + after)
        yield from sorted(instants)

    def at(self, time: int) -> Verdict:
        """The level at that instant, and what it follows from."""
        return (
            self._problem(time) or self._no_value(time) or self._new_one(time) or self._trend(time)
        )

    def _problem(self, time: int) -> Verdict | None:
        account = self._account
        open_ = [
            (at, reference, amount)
            for reference, (at, amount) in account.overdue.items()
            if at + self._patience <= time and not account.settled.get(reference, time + 1) <= time
        ]
        if not open_:
            return None
        at, reference, amount = min(open_, key=lambda one: one[:2])
        figures = {
            "overdue_reference": reference,
            "overdue_amount": str(amount),
            "overdue_since": moment(at).isoformat(),
            "overdue_payments": str(len(open_)),
            "threshold_days": str(self._definition.overdue_days),
        }
        return Verdict(Level.PROBLEM, figures)

    def _no_value(self, time: int) -> Verdict | None:
        currency = self._currency(time)
        if currency is None:
            return None
        sums = self._sums[currency].between(time - self._value, time)
        # Costs that are not known could only make it less.
        if not sums.costs_known or sums.revenue > sums.cost:
            return None
        figures = {
            "currency": currency,
            "days": str(self._definition.value_days),
            "revenue": _text(sums.revenue, currency),
            "cost": _text(sums.cost, currency),
            "margin": _text(sums.revenue - sums.cost, currency),
            "purchases": str(sums.count),
            "purchases_without_cost": str(sums.count - sums.costs_known),
            **self._others(currency, time, self._value),
        }
        return Verdict(Level.NO_VALUE, figures)

    def _new_one(self, time: int) -> Verdict | None:
        since = self._account.since
        if since is None or time >= since + self._new:
            return None
        begun = moment(since).isoformat()
        figures = {"since": begun, "threshold_days": str(self._definition.new_days)}
        return Verdict(Level.NEW, figures)

    def _trend(self, time: int) -> Verdict:
        currency = self._currency(time)
        sums = self._sums[currency] if currency is not None else _Sums([])
        revenue = sums.between(time - self._window, time).revenue
        before = sums.between(time - 2 * self._window, time - self._window).revenue
        definition = self._definition
        growth = Fraction(revenue - before) / Fraction(before) if before else None
        figures = {
            "window_days": str(definition.window_days),
            "revenue": _text(revenue, currency),
            "revenue_before": _text(before, currency),
            "growth": "none" if growth is None else f"{float(growth):.6f}",
        }
        if currency is not None:
            figures |= {"currency": currency, **self._others(currency, time, 2 * self._window)}
        if not revenue or (growth is not None and growth <= -Fraction(definition.decline)):
            figures["threshold"] = f"-{definition.decline}"
            return Verdict(Level.DECLINING, figures)
        if growth is None or growth >= Fraction(definition.growth):
            figures["threshold"] = str(definition.growth)
            return Verdict(Level.GROWING, figures)
        figures["threshold"] = f"-{definition.decline}, {definition.growth}"
        return Verdict(Level.STABLE, figures)

    def _currency(self, time: int) -> str | None:
        """The main one: that of the most purchases looked at; of several the one bought in last.

        Amounts in different currencies are neither added nor compared.
        """
        seen = {code: sums.between(time - self._span, time) for code, sums in self._sums.items()}
        bought = [(each.count, each.last, code) for code, each in seen.items() if each.count]
        return max(bought)[2] if bought else None

    def _others(self, main: str, time: int, length: int) -> dict[str, str]:
        """What was bought in the other currencies."""
        seen = {
            code: sums.between(time - length, time)
            for code, sums in self._sums.items()
            if code != main
        }
        texts = [f"{_text(each.revenue, code)} {code}" for code, each in seen.items() if each.count]
        return {"other_currencies": ", ".join(texts)} if texts else {}


def _text(amount: Decimal, currency: str | None) -> str:
    return f"{amount:.{0 if currency is None else minor_units(currency)}f}"


def span(definition: LevelDefinition) -> int:
    """How far back a verdict looks."""
    return max(2 * definition.window_days, definition.value_days) * DAY


@dataclass(frozen=True, slots=True)
class _Sum:
    revenue: Decimal
    cost: Decimal
    count: int
    costs_known: int
    last: int


class _Sums:
    """Running sums of one currency, so that a window is a difference."""

    def __init__(self, bought: list[Purchases]) -> None:
        self._times = [each.last for each in bought]
        nothing = Decimal(0)
        self._revenue = list(accumulate((each.revenue for each in bought), initial=nothing))
        self._cost = list(accumulate((each.cost for each in bought), initial=nothing))
        self._count = list(accumulate((each.count for each in bought), initial=0))
        self._known = list(accumulate((each.costs_known for each in bought), initial=0))

    def between(self, after: int, through: int) -> _Sum:
        low, high = bisect_right(self._times, after), bisect_right(self._times, through)
        return _Sum(
            self._revenue[high] - self._revenue[low],
            self._cost[high] - self._cost[low],
            self._count[high] - self._count[low],
            self._known[high] - self._known[low],
            self._times[high - 1] if high > low else 0,
        )
