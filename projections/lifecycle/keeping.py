"""What is planned and spent to keep customers (R66): the fold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import ClassVar

from domain.customer import Customer
from infra.eventstore.feed import Recorded
from projections.projection import (
    FALSE,
    INFINITY,
    NULL,
    TRUE,
    Column,
    Fact,
    FactTable,
    Fold,
    PeriodTable,
    Row,
    State,
    ended,
    joined,
    plain,
    text,
    turned,
)

_WORTH = Column("worth_keeping", "boolean", "Whether the customer is worth keeping.")
_EFFECT = Column("social_effect", "text", "Of losing the customer: low, medium or high.")
_CURRENCY = Column("currency", "text NOT NULL", "Currency of the amounts.")

_FACT = (
    Column("kind", "text NOT NULL", "retention-planned or retention-spent."),
    _WORTH,
    _EFFECT,
    Column("amount", "numeric NOT NULL", "The limit planned, or what was spent."),
    _CURRENCY,
    Column("reference", "text", "What names the cost."),
)
_KIND, _FACT_WORTH, _FACT_EFFECT, _AMOUNT, _FACT_CURRENCY, _REFERENCE = range(2, 8)

_UNPLANNED = (NULL, NULL, NULL)


def _planned(recorded: Recorded) -> tuple[str, ...]:
    event: Customer.RetentionPlanned = recorded.event
    effect = NULL if event.social_effect is None else event.social_effect.value
    worth = TRUE if event.worth_keeping else FALSE
    limit = (plain(event.limit.value), event.limit.currency)
    return ("retention-planned", worth, effect, *limit, NULL)


def _spent(recorded: Recorded) -> tuple[str, ...]:
    event: Customer.RetentionSpent = recorded.event
    amount = (plain(event.amount.value), event.amount.currency)
    return ("retention-spent", NULL, NULL, *amount, text(event.reference))


class RetentionFold(Fold):
    """The plan in force, in the currency of its limit, and all that was spent so far."""

    key = Column("customer_id", "uuid NOT NULL", "The customer.")
    facts = FactTable("retention_fact", "Plans and costs of keeping customers.", _FACT)
    periods = (
        PeriodTable(
            "retention_period",
            "Plans of keeping customers and what was spent, by when they were true and known.",
            (_CURRENCY,),
            (
                _WORTH,
                _EFFECT,
                Column("spending_limit", "numeric", "Limit of all spending; null: none planned."),
                Column("spent", "numeric NOT NULL", "Spent so far."),
            ),
        ),
    )
    start: ClassVar[State] = ((), NULL, _UNPLANNED, ())
    extract: ClassVar[Mapping[str, Callable[[Recorded], tuple[str, ...]]]] = {
        Customer.RetentionPlanned.TOPIC: _planned,
        Customer.RetentionSpent.TOPIC: _spent,
    }

    def step(self, state: State, fact: Fact) -> tuple[State, tuple[Row, ...]]:
        """The state: (rows by currency, the plan's currency, its values, spent by currency)."""
        rows, planned_in, plan, spent = state
        currency = fact[_FACT_CURRENCY]
        if fact[_KIND] == "retention-planned":
            planned_in = currency
            plan = (fact[_FACT_WORTH], fact[_FACT_EFFECT], fact[_AMOUNT])
        else:
            sums = dict(spent)
            sums[currency] = str(Decimal(sums.get(currency, "0")) + Decimal(fact[_AMOUNT]))
            spent = tuple(sorted(sums.items()))
        wanted = {planned_in: "0"} | dict(spent) if planned_in != NULL else dict(spent)
        values = {
            name: joined(*(plan if name == planned_in else _UNPLANNED), amount)
            for name, amount in wanted.items()
        }
        rows, settled = _turned_to(rows, values, fact[0])
        return (rows, planned_in, plan, spent), settled


def _turned_to(
    rows: tuple[Row, ...], values: Mapping[str, str], at: str
) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """The open rows with these values by item from `at` on, and the settled ones."""
    there: list[Row] = []
    settled: tuple[Row, ...] = ()
    for row in rows:
        if row[1] not in values:
            settled += () if row[2] == at else (ended(row, at),)
        elif row[4] == values[row[1]]:
            there.append(row)
        else:
            new, past = turned(row, at, values[row[1]])
            there.append(new)
            settled += past
    known = {row[1] for row in rows}
    there += [(0, name, at, INFINITY, value) for name, value in values.items() if name not in known]
    return tuple(sorted(there)), settled
