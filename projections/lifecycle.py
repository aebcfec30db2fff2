"""Where customers stand in their lifecycle: four classifications side by side, as periods."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import ClassVar
from uuid import UUID

from domain.customer import Customer
from domain.opportunity import Opportunity
from infra.eventstore.feed import Recorded
from projections.projection import (
    FALSE,
    INFINITY,
    NULL,
    PERIOD_COMMENTS,
    TRUE,
    Column,
    Fact,
    FactTable,
    Fold,
    PeriodTable,
    Projection,
    Row,
    State,
    View,
    joined,
    turned,
)
from projections.reading import NEWEST, Connection, Moment, fetch, known, truth


class Classification(StrEnum):
    TYPE = "type"
    PATH = "path"
    IDENTIFICATION = "identification"
    LEVEL = "level"


VALUES: dict[Classification, tuple[str, ...]] = {
    Classification.TYPE: ("prospect", "responder", "relationship", "lost"),
    Classification.PATH: ("prospect", "opportunity", "order", "repeat"),
    Classification.IDENTIFICATION: (
        "to_be_identified",
        "prospect",
        "sales_opportunity",
        "order",
        "user",
    ),
    Classification.LEVEL: (
        "none",
        "new",
        "growing",
        "stable",
        "declining",
        "problem",
        "no-value",
    ),
}


# ---- tables ----

_FACT = (
    Column("kind", "text NOT NULL", "Kind of event: the last part of its topic."),
    Column("deal_id", "uuid", "The deal that was opened or won."),
    Column("identified", "boolean", "Whether it is known from here on who the customer is."),
    Column("level", "text", "The level from here on."),
    Column("cause", "text", "Why the customer was lost; silence: passively."),
)
KIND, DEAL, IDENTIFIED, LEVEL, CAUSE = range(2, 7)

# ---- fold ----


Extract = Callable[[Recorded], tuple[str, ...] | None]


def _registered(event: Recorded) -> tuple[str, ...]:
    return ("registered", NULL, TRUE if event.event.identified else FALSE, NULL, NULL)


def _profile_changed(event: Recorded) -> tuple[str, ...] | None:
    identified: bool | None = event.event.identified
    if identified is None:
        return None
    return ("profile-changed", NULL, TRUE if identified else FALSE, NULL, NULL)


def _bare(kind: str) -> Extract:
    columns = (kind, NULL, NULL, NULL, NULL)
    return lambda _: columns


def _of_deal(kind: str) -> Extract:
    return lambda event: (kind, str(event.stream_id), NULL, NULL, NULL)


class StandingFold(Fold):
    """Every classification has one value from the customer's first fact on.

    - type: prospect → responder (first response) → relationship (order or signed contract, also
      after a loss) → lost (churned; passively, where the cause is silence) → relationship (won
      back);
    - path: prospect → opportunity (first deal opened) → order → repeat (second order);
    - identification: to_be_identified until it is known who the customer is; from then on what
      the path says: prospect, sales_opportunity, order (user begins with deliveries);
    - level: none outside a relationship; new where one begins; then what was set.

    A signed contract counts as an order, once per deal. Path and identification never go back.
    """

    key = Column("customer_id", "uuid NOT NULL", "The customer.")
    facts = FactTable("standing_fact", "Events that may move a customer.", _FACT)
    periods = (
        PeriodTable(
            "standing_period",
            "Values of the classifications of customers, by when they were true and known.",
            (Column("classification", "text NOT NULL", "type, path, identification or level."),),
            (
                Column("value", "text NOT NULL", "The value."),
                Column(
                    "cause",
                    "text",
                    "Of lost: why; silence is a passive loss, all others are active.",
                ),
            ),
            (
                (
                    "standing_period_open",  # the present: distributions
                    f"(classification, value) WHERE known_to = {NEWEST} AND valid_to = 'infinity'",
                ),
            ),
        ),
    )
    start: ClassVar[State] = ((), FALSE, 0, frozenset())
    extract: ClassVar[Mapping[str, Extract]] = {
        Customer.Created.TOPIC: _registered,
        Customer.ProfileChanged.TOPIC: _profile_changed,
        Customer.CampaignResponded.TOPIC: _bare("campaign-responded"),
        Customer.OrderPlaced.TOPIC: _bare("order-placed"),
        Customer.LevelChanged.TOPIC: lambda event: (
            "level-changed",
            NULL,
            NULL,
            event.event.level.value,
            NULL,
        ),
        Customer.Churned.TOPIC: lambda event: (
            "churned",
            NULL,
            NULL,
            NULL,
            event.event.cause.value,
        ),
        Customer.WonBack.TOPIC: _bare("won-back"),
        Opportunity.Created.TOPIC: _of_deal("opened"),
        Opportunity.ContractSigned.TOPIC: _of_deal("contract-signed"),
    }

    def key_of(self, recorded: Recorded) -> UUID:
        """The customer: deals are kept with theirs."""
        return recorded.partition_key

    def step(self, state: State, fact: Fact) -> tuple[State, tuple[Row, ...]]:
        """The state: (rows in the order of Classification), identified, orders counted up to
        two, the deals won."""
        rows, identified, orders, won = state
        at, kind = fact[0], fact[KIND]
        if not rows:
            rows = tuple(
                (0, name, at, INFINITY, joined(value, NULL))
                for name, value in zip(_NAMES, _FIRST, strict=True)
            )
        if fact[IDENTIFIED] == TRUE:
            identified = TRUE
        customer_type, cause = rows[0][4].split("\t")
        path, level = rows[1][4].partition("\t")[0], rows[3][4].partition("\t")[0]
        bought = kind == "order-placed"
        if kind == "contract-signed" and fact[DEAL] not in won:
            bought, won = True, won | {fact[DEAL]}
        if bought:
            orders = min(orders + 1, 2)
            path = "order" if orders == 1 else "repeat"
        if kind == "opened" and path == "prospect":
            path = "opportunity"
        elif kind == "campaign-responded" and customer_type == "prospect":
            customer_type = "responder"
        elif (bought and customer_type != "relationship") or (
            kind == "won-back" and customer_type == "lost"
        ):
            customer_type, level, cause = "relationship", "new", NULL
        elif kind == "churned":
            customer_type, level, cause = "lost", "none", fact[CAUSE]
        elif kind == "level-changed" and customer_type == "relationship":
            level = fact[LEVEL]
        identification = _IDENTIFICATION[path] if identified == TRUE else "to_be_identified"
        return _with(
            rows,
            at,
            (
                f"{customer_type}\t{cause}",
                f"{path}\t{NULL}",
                f"{identification}\t{NULL}",
                f"{level}\t{NULL}",
            ),
            (identified, orders, won),
        )


_NAMES = tuple(name.value for name in Classification)
_FIRST = ("prospect", "prospect", "to_be_identified", "none")
_IDENTIFICATION = {
    "prospect": "prospect",
    "opportunity": "sales_opportunity",
    "order": "order",
    "repeat": "order",
}


def _with(
    rows: tuple[Row, ...],
    at: str,
    values: tuple[str, ...],
    rest: tuple[str, int, frozenset[str]],
) -> tuple[State, tuple[Row, ...]]:
    """The state with these values; rows that keep theirs stay the same objects."""
    if all(row[4] == value for row, value in zip(rows, values, strict=True)):
        return (rows, *rest), ()
    settled: tuple[Row, ...] = ()
    after = []
    for row, value in zip(rows, values, strict=True):
        if row[4] == value:
            after.append(row)
        else:
            new, before = turned(row, at, value)
            after.append(new)
            settled += before
    return (tuple(after), *rest), settled


class LifecycleProjection(Projection):
    """Type, path, identification and level of every customer."""

    name = "lifecycle"
    version = 1
    folds = (StandingFold(),)
    views = (
        View(
            "customer_standing",
            "Where customers stand now.",
            {
                "customer_id": "The customer.",
                "classification": "type, path, identification or level.",
                "value": "The value.",
                "since": "Since when.",
                "cause": "Of lost: why; silence is a passive loss, all others are active.",
            },
            f"""SELECT customer_id, classification, value, valid_from, cause
                FROM standing_period WHERE known_to = {NEWEST} AND valid_to = 'infinity'""",
        ),
        View(
            "customer_standing_history",
            "Where customers stood, over both times.",
            {
                "customer_id": "The customer.",
                "classification": "type, path, identification or level.",
                "value": "The value.",
                "cause": "Of lost: why; silence is a passive loss, all others are active.",
                **PERIOD_COMMENTS,
            },
            """SELECT customer_id, classification, value, cause, valid_from, valid_to, known_from,
                known_to FROM standing_period""",
        ),
        View(
            "lifecycle_distribution",
            "How many customers stand where, now.",
            {
                "classification": "type, path, identification or level.",
                "value": "The value.",
                "customers": "Number of customers.",
            },
            f"""SELECT classification, value, count(*) FROM standing_period
                WHERE known_to = {NEWEST} AND valid_to = 'infinity'
                GROUP BY classification, value""",
        ),
        View(
            "lifecycle_move",
            "Every move of a customer from value to value, as known now.",
            {
                "customer_id": "The customer.",
                "classification": "type, path, identification or level.",
                "from_value": "The value left.",
                "to_value": "The value entered.",
                "moved_at": "When.",
                "days": "Days spent in the value left.",
                "cause": "Of a move to lost: why; silence: passively.",
            },
            f"""SELECT old.customer_id, old.classification, old.value, new.value, old.valid_to,
                round(extract(epoch FROM old.valid_to - old.valid_from) / 86400, 6), new.cause
                FROM standing_period AS old JOIN standing_period AS new
                ON new.customer_id = old.customer_id AND new.classification = old.classification
                AND new.valid_from = old.valid_to AND new.known_to = {NEWEST}
                WHERE old.known_to = {NEWEST}""",
        ),
    )


# ---- queries ----


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
class Move:
    from_value: str
    to_value: str
    moves: int


@dataclass(frozen=True, slots=True)
class Departures:
    value: str
    departures: int


@dataclass(frozen=True, slots=True)
class Transitions:
    """Moves in [start, end). The moves out of a value sum to its departures.

    `stable_to_lost`: customers lost while their level was stable, whatever the classification.
    """

    classification: Classification
    moves: list[Move]
    departures: list[Departures]
    stable_to_lost: int


@dataclass(frozen=True, slots=True)
class Duration:
    """Time spent in a value: `periods` = `closed` + `open`.

    Mean and median are over the closed ones, in days; the open ones are censored.
    """

    value: str
    periods: int
    closed: int
    open: int
    mean_days: Decimal | None
    median_days: Decimal | None


@dataclass(frozen=True, slots=True)
class Standing:
    """A customer's value in one classification, since when."""

    classification: Classification
    value: str
    since: datetime


def standing(connection: Connection, customer_id: UUID, moment: Moment) -> list[Standing]:
    """The customer's value in each classification; empty before its first fact."""
    rows = fetch(
        connection,
        f"""SELECT classification, value, valid_from AS since FROM standing_period
            WHERE customer_id = %(id)s::uuid AND {truth(moment)}""",
        {**moment.parameters(), "id": str(customer_id)},
    )
    found = {row["classification"]: row for row in rows}
    return [
        Standing(name, found[name.value]["value"], found[name.value]["since"])
        for name in Classification
        if name.value in found
    ]


def distribution(
    connection: Connection, moment: Moment, *, classification: Classification
) -> Distribution:
    """How many customers stood where."""
    rows = fetch(
        connection,
        f"""SELECT value, count(*) AS customers FROM standing_period
            WHERE classification = %(classification)s AND {truth(moment)} GROUP BY value""",
        {**moment.parameters(), "classification": classification.value},
    )
    counts: dict[str, int] = {row["value"]: row["customers"] for row in rows}
    return Distribution(
        classification,
        sum(counts.values()),
        [ValueCount(value, counts.get(value, 0)) for value in VALUES[classification]],
    )


def transitions(
    connection: Connection,
    moment: Moment,
    *,
    classification: Classification,
    start: datetime,
    end: datetime,
) -> Transitions:
    """The moves from value to value in [start, end), up to `as_of`.

    A customer who leaves and enters at one instant makes no move, as it spends no time outside.
    """
    rows = fetch(
        connection,
        f"""SELECT old.classification, old.value AS from_value, new.value AS to_value,
            count(*) AS moves
            FROM standing_period AS old JOIN standing_period AS new
            ON new.customer_id = old.customer_id AND new.classification = old.classification
            AND new.valid_from = old.valid_to AND {known(moment, "new")}
            WHERE {known(moment, "old")} AND old.valid_to <= %(as_of)s
            AND old.valid_to >= %(start)s AND old.valid_to < %(end)s
            AND old.value <> new.value
            AND (old.classification = %(classification)s
                OR (old.classification = 'level' AND old.value = 'stable' AND new.value = 'none'))
            GROUP BY 1, 2, 3""",
        {
            **moment.parameters(),
            "classification": classification.value,
            "start": start,
            "end": end,
        },
    )
    order = {value: place for place, value in enumerate(VALUES[classification])}
    own = [
        Move(row["from_value"], row["to_value"], row["moves"])
        for row in rows
        if row["classification"] == classification.value
    ]
    own.sort(key=lambda move: (order[move.from_value], order[move.to_value]))
    departures = [
        Departures(value, sum(move.moves for move in own if move.from_value == value))
        for value in VALUES[classification]
    ]
    # A relationship ends only by a loss, so to leave "stable" for "none" is to be lost.
    loss = {"classification": "level", "from_value": "stable", "to_value": "none"}
    lost = sum(row["moves"] for row in rows if loss.items() <= row.items())
    return Transitions(classification, own, departures, lost)


def durations(
    connection: Connection, moment: Moment, *, classification: Classification
) -> list[Duration]:
    """Time spent in each value, up to `as_of`, values in order."""
    rows = fetch(
        connection,
        f"""WITH stay AS (
                SELECT value, valid_to <= %(as_of)s AS closed,
                    extract(epoch FROM valid_to - valid_from) / 86400 AS days
                FROM standing_period WHERE classification = %(classification)s
                AND valid_from <= %(as_of)s AND {known(moment)})
            SELECT value, count(*) AS periods, count(*) FILTER (WHERE closed) AS closed,
                round(avg(days) FILTER (WHERE closed), 6) AS mean_days,
                round((percentile_cont(0.5) WITHIN GROUP (ORDER BY days)
                    FILTER (WHERE closed))::numeric, 6) AS median_days
            FROM stay GROUP BY value""",
        {**moment.parameters(), "classification": classification.value},
    )
    found = {row["value"]: row for row in rows}
    return [
        Duration(
            value=value,
            periods=row["periods"],
            closed=row["closed"],
            open=row["periods"] - row["closed"],
            mean_days=row["mean_days"],
            median_days=row["median_days"],
        )
        for value in VALUES[classification]
        if (row := found.get(value, _NOBODY))
    ]


_NOBODY = {"periods": 0, "closed": 0, "mean_days": None, "median_days": None}
