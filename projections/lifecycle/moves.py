"""How customers moved: transitions, flows between dates, losses and declines by reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from projections.lifecycle.classifications import VALUES, Classification
from projections.reading import Connection, Moment, Page, Source, fetch, known, page_of

ABSENT: Final = "absent"
"""Where a customer stands before its first fact."""


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
class FlowNode:
    """`customers` stood at `value` on the date of this number, from 0."""

    step: int
    value: str
    customers: int


@dataclass(frozen=True, slots=True)
class FlowLink:
    """`customers` stood at `source` on date `step` and at `target` on the next."""

    step: int
    source: str
    target: str
    customers: int


@dataclass(frozen=True, slots=True)
class Flows:
    """The nodes of each date, and the links out of and into a node, sum to `customers`: all that
    there are on the last date. Before its first fact a customer is `absent`."""

    customers: int
    nodes: list[FlowNode]
    links: list[FlowLink]


@dataclass(frozen=True, slots=True)
class Loss:
    """`active`: somebody told it; else a silence was found by `rule`. `level`: the one left."""

    customer_id: UUID
    lost_at: datetime
    cause: str
    active: bool
    level: str | None
    rule: str | None
    event: int


@dataclass(frozen=True, slots=True)
class LossCause:
    """`from_stable`: those of them whose level was stable, the loss that matters most."""

    cause: str
    active: bool
    losses: int
    from_stable: int


@dataclass(frozen=True, slots=True)
class DeclineCause:
    """Moves to a lower level, by the rule that decided; None: somebody told it."""

    level: str
    rule: str | None
    moves: int


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


def flows(
    connection: Connection,
    moment: Moment,
    *,
    classification: Classification,
    dates: Sequence[datetime],
) -> Flows:
    """Who stood where on each of `dates` (two or more, rising), all as known at the moment."""
    last = len(dates) - 1
    columns = ", ".join(f"coalesce(at_{n}.value, '{ABSENT}')" for n in range(len(dates)))
    earlier = "".join(
        f""" LEFT JOIN standing_period AS at_{n} ON at_{n}.customer_id = at_{last}.customer_id
             AND {_stood(moment, n)}"""
        for n in range(last)
    )
    places = ", ".join(str(n + 1) for n in range(len(dates)))
    with connection.cursor() as cursor:
        cursor.execute(
            f"""SELECT {columns}, count(*) FROM standing_period AS at_{last}{earlier}
                WHERE {_stood(moment, last)} GROUP BY {places}""",
            {
                **moment.parameters(),
                "classification": classification.value,
                **{f"date_{n}": date for n, date in enumerate(dates)},
            },
        )
        ways: list[tuple[Any, ...]] = cursor.fetchall()
    return _flows(ways, len(dates), (ABSENT, *VALUES[classification]))


def _stood(moment: Moment, n: int) -> str:
    row = f"at_{n}"
    return (
        f"{row}.classification = %(classification)s AND {row}.valid_from <= %(date_{n})s"
        f" AND %(date_{n})s < {row}.valid_to AND {known(moment, row)}"
    )


def _flows(ways: list[tuple[Any, ...]], dates: int, order: Sequence[str]) -> Flows:
    """`ways`: (value on each date, …, customers)."""
    nodes: dict[tuple[int, str], int] = {}
    links: dict[tuple[int, str, str], int] = {}
    for *values, customers in ways:
        for step, value in enumerate(values):
            nodes[step, value] = nodes.get((step, value), 0) + customers
        for step in range(dates - 1):
            link = (step, values[step], values[step + 1])
            links[link] = links.get(link, 0) + customers
    place = {value: number for number, value in enumerate(order)}
    return Flows(
        sum(way[-1] for way in ways),
        [
            FlowNode(step, value, nodes[step, value])
            for step, value in sorted(nodes, key=lambda one: (one[0], place[one[1]]))
        ],
        [
            FlowLink(*link, links[link])
            for link in sorted(links, key=lambda one: (one[0], place[one[1]], place[one[2]]))
        ],
    )


def _lost(moment: Moment) -> str:
    """Losses in [start, end), up to `as_of`, with the level that each of them left."""
    return f"""SELECT lost.customer_id, lost.valid_from AS lost_at, lost.cause,
        lost.cause <> 'silence' AS active, left_level.value AS level, lost.rule, lost.event
        FROM standing_period AS lost LEFT JOIN standing_period AS left_level
        ON left_level.customer_id = lost.customer_id AND left_level.classification = 'level'
        AND left_level.valid_to = lost.valid_from AND left_level.value <> 'none'
        AND {known(moment, "left_level")}
        WHERE lost.classification = 'type' AND lost.value = 'lost' AND {known(moment, "lost")}
        AND lost.valid_from <= %(as_of)s
        AND lost.valid_from >= %(start)s AND lost.valid_from < %(end)s"""


_LOSSES = Source(
    "row.customer_id",
    {"cause": "row.cause = %(filter_cause)s", "active": "row.active = %(filter_active)s"},
    {"lost_at": ("row.lost_at", "timestamptz")},
    ("row.cause",),
)


def losses(
    connection: Connection,
    moment: Moment,
    *,
    start: datetime,
    end: datetime,
    filters: Mapping[str, Any] | None = None,
    search: str | None = None,
    sort: str = "lost_at",
    descending: bool = True,
    after: tuple[str, UUID] | None = None,
    limit: int = 100,
) -> Page[Loss]:
    """A page of the losses in [start, end): who, when, why. A customer that was won back and lost
    again is there twice."""
    rows, following = page_of(
        connection,
        _LOSSES,
        "row.customer_id AS id, row.lost_at, row.cause, row.active, row.level, row.rule, row.event"
        f" FROM ({_lost(moment)}) AS row",
        "true",
        {**moment.parameters(), "start": start, "end": end},
        filters=filters or {},
        search=search,
        sort=sort,
        descending=descending,
        after=after,
        limit=limit,
    )
    return Page([Loss(row.pop("id"), **row) for row in rows], following)


def loss_causes(
    connection: Connection, moment: Moment, *, start: datetime, end: datetime
) -> list[LossCause]:
    """The losses in [start, end) by cause, most first."""
    rows = fetch(
        connection,
        f"""SELECT cause, active, count(*) AS losses,
            count(*) FILTER (WHERE level = 'stable') AS from_stable
            FROM ({_lost(moment)}) AS row GROUP BY cause, active ORDER BY losses DESC, cause""",
        {**moment.parameters(), "start": start, "end": end},
    )
    return [LossCause(**row) for row in rows]


def decline_causes(
    connection: Connection, moment: Moment, *, start: datetime, end: datetime
) -> list[DeclineCause]:
    """The moves in [start, end) to the levels declining, problem and no-value, by rule."""
    rows = fetch(
        connection,
        f"""SELECT value AS level, rule, count(*) AS moves FROM standing_period
            WHERE classification = 'level' AND value IN ('declining', 'problem', 'no-value')
            AND {known(moment)} AND valid_from <= %(as_of)s
            AND valid_from >= %(start)s AND valid_from < %(end)s
            GROUP BY value, rule ORDER BY moves DESC, value, rule""",
        {**moment.parameters(), "start": start, "end": end},
    )
    return [DeclineCause(**row) for row in rows]
