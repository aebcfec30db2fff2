"""Where customers stood at a moment: one customer, why, and how many."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from projections.lifecycle.classifications import VALUES, Classification
from projections.lifecycle.standings import StandingFold
from projections.reading import Connection, Moment, fetch, truth
from projections.summaries import net

_STANDINGS = StandingFold.periods[0]


@dataclass(frozen=True, slots=True)
class ValueCount:
    value: str
    customers: int


@dataclass(frozen=True, slots=True)
class Distribution:
    """`distribution` has every value of the classification, in order; it sums to `customers`."""

    classification: Classification
    customers: int
    distribution: list[ValueCount]


@dataclass(frozen=True, slots=True)
class Standing:
    """A customer's value in one classification, since when, and why.

    `cause`: of a loss. `rule` and `evidence`: where a rule decided. `event`: position and kind of
    the event that opened it.
    """

    classification: Classification
    value: str
    since: datetime
    cause: str | None
    rule: str | None
    evidence: dict[str, Any] | None
    event: int
    event_kind: str


def standing(connection: Connection, customer_id: UUID, moment: Moment) -> list[Standing]:
    """The customer's value in each classification; empty before its first fact."""
    rows = fetch(
        connection,
        f"""SELECT row.classification, row.value, row.valid_from AS since, row.cause, row.rule,
            row.evidence, row.event, fact.kind AS event_kind
            FROM standing_period AS row JOIN standing_fact AS fact
            ON fact.customer_id = row.customer_id AND fact.position = row.event
            WHERE row.customer_id = %(id)s::uuid AND {truth(moment, "row")}""",
        {**moment.parameters(), "id": str(customer_id)},
    )
    found = {row.pop("classification"): row for row in rows}
    return [Standing(name, **found[name.value]) for name in Classification if name.value in found]


def distribution(
    connection: Connection, moment: Moment, *, classification: Classification
) -> Distribution:
    """How many customers stood where."""
    where = "classification = %(classification)s"
    standings = net(connection, moment, StandingFold, _STANDINGS, where)
    rows = fetch(
        connection,
        f"SELECT value, rows AS customers FROM ({standings}) AS standing",
        {**moment.parameters(), "classification": classification.value},
    )
    counts: dict[str, int] = {row["value"]: row["customers"] for row in rows}
    return Distribution(
        classification,
        sum(counts.values()),
        [ValueCount(value, counts.get(value, 0)) for value in VALUES[classification]],
    )
