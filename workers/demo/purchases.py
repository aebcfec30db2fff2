"""What a customer orders from us: when and how much, what is left of it, and when it is paid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from random import Random
from typing import Any, Final

from domain.values import RepeatType
from workers.demo.script import DAYS, Script

_CYCLES: Final = (40, 50, 60, 90)
"""Days from one order to the next."""
_LOSS: Final = (-0.35, -0.15)
"""The margin of a customer whom we serve at a loss."""
_STOCK_FULL: Final = (70, 120)
"""Tonnes that a customer has after a delivery."""
_STOCK_LOW: Final = 20


class Trend(Enum):
    RISING = "rising"
    LEVEL = "level"
    FALLING = "falling"
    LOSING = "losing"
    """Our costs rise above what is paid."""


_DELIVERED: Final = 3
"""One in so many orders, the first too; the customer fetches the others."""


@dataclass(frozen=True, slots=True)
class Habit:
    """How a customer buys; days since the company's first, amounts in thousands."""

    since: float
    trend: Trend
    turn: float
    """From when on a falling one orders less, a losing one brings nothing."""
    margin: float
    currency: str | None
    owes: bool = False
    """Stops paying at the turn."""
    project: bool = False
    """Buys plants, and hardly anything in between."""
    reports_stock: bool = False


Do = Callable[..., None]
"""Gives a command to the customer: day, method, arguments."""


def stage_purchases(
    script: Script, random: Random, habit: Habit, is_gone: Callable[[float], bool], do: Do
) -> None:
    """Orders from `habit.since` on, but none while the customer is gone."""
    _Buying(script, random, habit, is_gone, do).stage()


class _Buying:
    def __init__(
        self,
        script: Script,
        random: Random,
        habit: Habit,
        is_gone: Callable[[float], bool],
        do: Do,
    ) -> None:
        self._script = script
        self._random = random
        self._habit = habit
        self._is_gone = is_gone
        self._do = do
        self._cycle = random.choice(_CYCLES)
        self._size = min(random.lognormvariate(3.1, 0.5), 200)
        self._orders = 0

    def stage(self) -> None:
        random, habit = self._random, self._habit
        described = habit.since + random.uniform(4, 20)
        if not self._is_gone(described):
            self._do(described, "describe_demand", **self._demand())
        when = habit.since
        while (when := when + self._pause(when)) < DAYS:
            if not self._is_gone(when):
                self._order(when)

    def _demand(self) -> dict[str, Any]:
        if self._habit.project:
            return {"repeat_type": RepeatType.PROJECT}
        if self._habit.reports_stock:
            limit = Decimal(_STOCK_LOW)
            return {"repeat_type": RepeatType.CONTINUOUS, "stock_alert_below": limit}
        if self._random.random() < 0.3:
            return {"repeat_type": RepeatType.CONTINUOUS, "cycle_days": self._cycle}
        return {"repeat_type": RepeatType.PERIODIC, "cycle_days": self._cycle}

    def _pause(self, when: float) -> float:
        if self._habit.project:
            return self._random.uniform(120, 300)
        days = self._cycle * self._random.uniform(0.75, 1.1)
        return days * (1.5 if self._declines(when) else 1.0)

    def _declines(self, when: float) -> bool:
        return self._habit.trend is Trend.FALLING and when > self._habit.turn

    def _order(self, when: float) -> None:
        habit, random = self._habit, self._random
        self._orders += 1
        size = self._size * self._factor(when) * random.uniform(0.92, 1.08)
        amount = self._script.money(size, habit.currency)
        self._do(
            when, "place_order",
            order_id=f"ORDER-{self._orders:02}",
            amount=amount,
            cost=self._script.cost(size * (1 - self._margin(when)), habit.currency),
        )  # fmt: skip
        if self._orders % _DELIVERED == 1:
            self._do(
                when + 6.5, "record_delivery",
                delivery_id=f"DELIVERY-{self._orders:02}",
                order_id=f"ORDER-{self._orders:02}",
            )  # fmt: skip
        self._pay(when, {"amount": amount, "reference": f"INVOICE-{self._orders:02}"})
        if habit.reports_stock:
            self._report(when)

    def _factor(self, when: float) -> float:
        """Of the first order's size."""
        if self._habit.trend is Trend.RISING:
            return 1 + (when - self._habit.since) / 300
        if self._declines(when):
            return max(0.25, 0.85 - (when - self._habit.turn) / 400)
        return 1.0

    def _margin(self, when: float) -> float:
        if self._habit.trend is Trend.LOSING and when > self._habit.turn:
            return self._random.uniform(*_LOSS)
        return self._habit.margin + self._random.gauss(0, 0.03)

    def _pay(self, ordered: float, payment: dict[str, Any]) -> None:
        """In 30 days, or later, or very late, or never."""
        random, due = self._random, ordered + 35
        owes = self._habit.owes and ordered > self._habit.turn
        late = random.random() < 0.13
        if not (owes or late):
            self._do(ordered + random.uniform(15, 34), "record_payment", kind="settled", **payment)
            return
        self._do(due, "record_payment", kind="overdue", **payment)
        if not owes:
            days = random.uniform(34, 70) if random.random() < 0.25 else random.uniform(3, 25)
            self._do(due + days, "record_payment", kind="settled", **payment)

    def _report(self, ordered: float) -> None:
        """What is in the customer's store after the delivery, and when it is nearly used up."""
        full, random = self._random.randint(*_STOCK_FULL), self._random
        delivered = ordered + random.uniform(4, 7)
        used = ordered + self._cycle * random.uniform(0.65, 0.8)
        left = round(full * random.uniform(0.1, 0.42))
        for when, level in ((delivered, full), (used, left)):
            if not self._is_gone(when):
                self._do(when, "report_stock", level=Decimal(level))
