"""The open deals in groups of stage, age and amount, and what by definition is to come of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from itertools import pairwise
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from projections import stabbing
from projections.funnel.deals import FORECAST, OPEN
from projections.funnel.learning import DefinedStage
from projections.funnel.spread import Floats
from projections.reading import Connection, Moment, fetch, known, truth


class Grouping(StrEnum):
    """What a forecast is told by. Region and source are the customer's, the team is the owner's, at
    the time."""

    PIPELINE = "pipeline"
    OWNER = "owner"
    TEAM = "team"
    REGION = "region"
    SOURCE = "source"


_GROUPS = {
    None: "NULL::text",
    Grouping.PIPELINE: "row.pipeline_id::text",
    Grouping.OWNER: "row.owner",
    Grouping.TEAM: "member.team",
    Grouping.REGION: "customer.region",
    Grouping.SOURCE: "customer.source",
}
_NEEDED: Mapping[Grouping | None, tuple[str, ...]] = {
    Grouping.OWNER: ("owner",),
    Grouping.TEAM: ("owner",),
    Grouping.REGION: ("customer_id",),
    Grouping.SOURCE: ("customer_id",),
}
OF_CUSTOMERS = frozenset({Grouping.REGION, Grouping.SOURCE})
"""Groupings that need the read model of customers beside the funnel's."""

FEW = 2_000
"""So many open deals are told apart by their exact amounts."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What open deals have in common beside their ages and amounts."""

    group: str | None
    pipeline_id: UUID
    stage: str
    revision: int
    currency: str


@dataclass(frozen=True, slots=True)
class OpenDeals:
    """Open deals in groups of the same kind and age, of about the same amount.

    One element each: `kind` is the place in `kinds` and never falls; how many deals, the sum of
    their amounts, and that of the squares.
    """

    kinds: list[Kind]
    kind: NDArray[np.intp]
    age_days: NDArray[np.int64]
    deals: NDArray[np.int64]
    amounts: list[Decimal]
    squares: Floats

    def of_kinds(self) -> list[slice]:
        """Where the groups of each kind are."""
        bounds = np.searchsorted(self.kind, np.arange(len(self.kinds) + 1)).tolist()
        return [slice(*pair) for pair in pairwise(bounds)]


@dataclass(frozen=True, slots=True)
class StageDefinition:
    """A stage of a revision: chance to win from it on, its time and that of the later ones, in
    months."""

    chance: Decimal
    duration: Decimal
    later: Decimal


@dataclass(frozen=True, slots=True)
class _Revision:
    """A revision of a pipeline: since when it holds, since when it is known, its stages."""

    number: int
    since: datetime
    known_from: int
    stages: dict[str, StageDefinition]
    steps: dict[str, DefinedStage]


@dataclass(frozen=True, slots=True)
class Pipelines:
    """All revisions of all pipelines as they are known."""

    revisions: Mapping[UUID, list[_Revision]]

    def stage(self, pipeline_id: UUID, revision: int, name: str) -> StageDefinition:
        """Of a deal under that revision; one it does not have leads nowhere, at once."""
        for one in self.revisions.get(pipeline_id, ()):
            if one.number == revision and name in one.stages:
                return one.stages[name]
        return StageDefinition(Decimal(0), Decimal(0), Decimal(0))

    def stages(self, pipeline_id: UUID) -> list[str]:
        """The names of the stages of all revisions, those of the latest first."""
        names: dict[str, None] = {}
        for one in reversed(self.revisions.get(pipeline_id, [])):
            names |= dict.fromkeys(one.steps)
        return list(names)

    def defined(
        self, pipeline_id: UUID, at: datetime, known_at: int | None = None
    ) -> dict[str, DefinedStage]:
        """The stages of all revisions there were, each as the latest one has it; of the first
        revision where there was none yet."""
        found: dict[str, DefinedStage] = {}
        revisions = self.revisions.get(pipeline_id, [])
        held = [
            one
            for one in revisions
            if one.since <= at and (known_at is None or one.known_from <= known_at)
        ]
        for one in held or revisions[:1]:
            found = {**one.steps, **{k: v for k, v in found.items() if k not in one.steps}}
        return found


def pipelines_known(connection: Connection, moment: Moment) -> Pipelines:
    """What is known of all pipelines, whenever it was true."""
    rows = fetch(
        connection,
        f"""SELECT pipeline_id, revision, stage, chance_to_next, duration_months, chance_to_win,
                valid_from, known_from
            FROM pipeline_stage_period WHERE {known(moment)}
            ORDER BY pipeline_id, revision, ordinal""",
        moment.parameters(),
    )
    found: dict[UUID, list[_Revision]] = {}
    of: dict[tuple[UUID, int], list[dict[str, object]]] = {}
    for row in rows:
        of.setdefault((row["pipeline_id"], row["revision"]), []).append(row)
    for (pipeline_id, number), stages in of.items():
        found.setdefault(pipeline_id, []).append(_revision(number, stages))
    return Pipelines(found)


def _revision(number: int, rows: list[dict[str, object]]) -> _Revision:
    later = Decimal(0)
    stages: dict[str, StageDefinition] = {}
    steps: dict[str, DefinedStage] = {}
    following: str | None = None
    for row in reversed(rows):
        name, duration = str(row["stage"]), Decimal(str(row["duration_months"]))
        stages[name] = StageDefinition(Decimal(str(row["chance_to_win"])), duration, later)
        steps[name] = DefinedStage(Decimal(str(row["chance_to_next"])), duration, following)
        later += duration
        following = name
    first = rows[0]
    since, known_from = first["valid_from"], first["known_from"]
    if not isinstance(since, datetime) or not isinstance(known_from, int):
        raise TypeError("pipeline_stage_period")
    in_order = dict(reversed(steps.items()))
    return _Revision(number, since, known_from, stages, in_order)


def open_deals(
    connection: Connection,
    moment: Moment,
    *,
    pipeline_id: UUID | None,
    grouping: Grouping | None,
    ages: bool,
) -> OpenDeals:
    """All of the pipeline, or of all pipelines; told apart by age only if asked for.

    Up to `FEW` deals are told apart by amount; more are put together within a quarter of each
    other.
    """
    about = "CASE WHEN row.amount > 0 THEN floor(ln(row.amount::float8) * 4) ELSE -100 END"
    found = _grouped(connection, moment, pipeline_id, grouping, about, ages)
    if len(found.deals) < found.deals.sum() <= FEW:
        return _grouped(connection, moment, pipeline_id, grouping, "row.amount", ages)
    return found


def _grouped(
    connection: Connection,
    moment: Moment,
    pipeline_id: UUID | None,
    grouping: Grouping | None,
    amount: str,
    ages: bool,
) -> OpenDeals:
    age = "floor(date_part('epoch', %(as_of)s - row.entered_at) / 86400)::int" if ages else "0"
    columns = (*FORECAST, *_NEEDED.get(grouping, ()))
    deals, parameters = stabbing.rows(moment, "deal_period", columns, OPEN)
    with connection.cursor() as cursor:
        cursor.execute(
            f"""SELECT {_GROUPS[grouping]} AS "group", row.pipeline_id::text, row.stage,
                    row.revision, row.currency, {age} AS age_days, {amount} AS about,
                    count(*) AS deals, sum(row.amount) AS amount,
                    sum(row.amount::float8 * row.amount::float8) AS squares
                FROM ({deals}) AS row {_joined(moment, grouping)} WHERE {_of(pipeline_id)}
                GROUP BY 1, 2, 3, 4, 5, 6, 7 ORDER BY 1, 2, 3, 4, 5, 6, 7""",
            {**parameters, "pipeline_id": pipeline_id and str(pipeline_id)},
        )
        return _columns(cursor.fetchall())


def _columns(rows: list[tuple[Any, ...]]) -> OpenDeals:
    """Of rows that are in the order of their kinds."""
    kinds: dict[tuple[Any, ...], int] = {}
    kind = [kinds.setdefault(row[:5], len(kinds)) for row in rows]
    return OpenDeals(
        [Kind(group, UUID(pipeline), *others) for group, pipeline, *others in kinds],
        np.array(kind, np.intp),
        np.array([row[5] for row in rows], np.int64),
        np.array([row[7] for row in rows], np.int64),
        [row[8] for row in rows],
        np.array([row[9] for row in rows], np.float64),
    )


@dataclass(frozen=True, slots=True)
class WonDeals:
    """Contracts of a group signed on a day, in a currency."""

    group: str | None
    currency: str
    signed_on: date
    amount: Decimal


def won_deals(
    connection: Connection,
    moment: Moment,
    *,
    pipeline_id: UUID | None,
    grouping: Grouping | None,
    start: date,
    end: date,
) -> list[WonDeals]:
    """Contracts signed from `start` up to before `end`."""
    rows = fetch(
        connection,
        f"""SELECT {_GROUPS[grouping]} AS "group", row.currency, row.signed_on,
                sum(row.won_amount) AS amount
            FROM deal_period AS row {_joined(moment, grouping)}
            WHERE {truth(moment, "row")} AND {_of(pipeline_id)} AND row.status = 'won'
                AND row.signed_on >= %(start)s AND row.signed_on < %(end)s
            GROUP BY 1, 2, 3 ORDER BY 1, 2, 3""",
        {
            **moment.parameters(),
            "pipeline_id": pipeline_id and str(pipeline_id),
            "start": start,
            "end": end,
        },
    )
    return [WonDeals(**row) for row in rows]


def _joined(moment: Moment, grouping: Grouping | None) -> str:
    """The deals' customers, or owners, where the grouping needs these."""
    if grouping in OF_CUSTOMERS:
        return f"""LEFT JOIN customer_period AS customer
            ON customer.customer_id = row.customer_id AND {truth(moment, "customer")}"""
    if grouping is Grouping.TEAM:
        return f"""LEFT JOIN member_period AS member
            ON member.owner = row.owner AND {truth(moment, "member")}"""
    return ""


def _of(pipeline_id: UUID | None) -> str:
    return "true" if pipeline_id is None else "row.pipeline_id = %(pipeline_id)s::uuid"
