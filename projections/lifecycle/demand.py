"""When customers may need something again (R69, R76): the fold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import ClassVar

from domain.customer import Customer
from infra.eventstore.feed import Recorded
from projections.projection import (
    INFINITY,
    NULL,
    Column,
    Fact,
    FactTable,
    Fold,
    PeriodTable,
    Row,
    State,
    instant,
    joined,
    plain,
    text,
    turned,
)

_REPEAT = Column("repeat_type", "text", "continuous, periodic or project (one-off).")
_CYCLE = Column("cycle_days", "int", "Days from one purchase to the next.")
_BELOW = Column("stock_alert_below", "numeric", "A stock below this calls for a new purchase.")

_FACT = (
    Column("kind", "text NOT NULL", "Kind of event: the last part of its topic."),
    _REPEAT,
    _CYCLE,
    _BELOW,
    Column("stock", "numeric", "The stock reported."),
    Column("alert_kind", "text", "Of an alert: cycle or stock."),
    Column("rule", "text", "Of an alert: the rule, with its version."),
    Column("due_at", "timestamptz", "Of an alert: since when the purchase was due."),
    Column("event_id", "uuid", "Of an alert: the event it rests on."),
)
_KIND, _REPEAT_TYPE, _CYCLE_DAYS, _ALERT_BELOW, _STOCK = range(2, 7)


def _described(recorded: Recorded) -> tuple[str, ...]:
    event: Customer.DemandDescribed = recorded.event
    repeat_type = NULL if event.repeat_type is None else event.repeat_type.value
    described = (repeat_type, plain(event.cycle_days), plain(event.stock_alert_below))
    return ("demand-described", *described, NULL, NULL, NULL, NULL, NULL)


def _reported(recorded: Recorded) -> tuple[str, ...]:
    stock = plain(recorded.event.level)
    return ("stock-reported", NULL, NULL, NULL, stock, NULL, NULL, NULL, NULL)


def _alerted(recorded: Recorded) -> tuple[str, ...]:
    event: Customer.DemandAlerted = recorded.event
    alert = (event.kind.value, text(event.rule), instant(event.due_at), str(event.event_id))
    return ("demand-alerted", NULL, NULL, NULL, NULL, *alert)


class DemandFold(Fold):
    """What is known of a customer's demand and stock. Alerts are facts that change neither."""

    key = Column("customer_id", "uuid NOT NULL", "The customer.")
    facts = FactTable("demand_fact", "Descriptions, stocks and alerts of demand.", _FACT)
    periods = (
        PeriodTable(
            "demand_period",
            "Demand and stock of customers, by when they were true and known.",
            (),
            (
                _REPEAT,
                _CYCLE,
                _BELOW,
                Column("described_at", "timestamptz", "When the demand was described."),
                Column("stock", "numeric", "The stock last reported."),
                Column("stock_at", "timestamptz", "When the stock was reported."),
                Column("low_since", "timestamptz", "Since when the stock has been below that."),
            ),
        ),
    )
    start: ClassVar[State] = ((), (NULL,) * 7)
    extract: ClassVar[Mapping[str, Callable[[Recorded], tuple[str, ...]]]] = {
        Customer.DemandDescribed.TOPIC: _described,
        Customer.StockReported.TOPIC: _reported,
        Customer.DemandAlerted.TOPIC: _alerted,
    }

    def step(self, state: State, fact: Fact) -> tuple[State, tuple[Row, ...]]:
        """The state: (the row once something is known, its values)."""
        rows, values = state
        match fact[_KIND]:
            case "demand-described":
                values = (*fact[_REPEAT_TYPE:_STOCK], fact[0], *values[4:])
            case "stock-reported":
                values = (*values[:4], fact[_STOCK], fact[0], values[6])
            case _:
                return state, ()
        values = (*values[:6], _low_since(values, fact[0]))
        if not rows:
            return (((0, "", fact[0], INFINITY, joined(*values)),), values), ()
        row, settled = turned(rows[0], fact[0], joined(*values))
        return ((row,), values), settled


def _low_since(values: tuple[str, ...], at: str) -> str:
    below, stock, since = values[2], values[4], values[6]
    if NULL in (below, stock) or Decimal(stock) >= Decimal(below):
        return NULL
    return at if since == NULL else since
