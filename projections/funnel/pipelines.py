"""Pipelines, their revisions and stages: tables, fold, queries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar
from uuid import UUID

import orjson

from domain.pipeline import Pipeline, chances_to_win
from domain.values import Stage
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
    joined,
    plain,
    text,
    turned,
)
from projections.reading import (
    Connection,
    Moment,
    Page,
    Source,
    fetch,
    fetch_one,
    known,
    page_of,
    truth,
)

# ---- tables ----

_PIPELINE_FACT = (
    Column("kind", "text NOT NULL", "defined or revised."),
    Column("version", "int NOT NULL", "Version of the pipeline after the event."),
    Column("revision", "int NOT NULL", "The revision it makes, from 1."),
    Column("name", "text", "Name, at the definition."),
    Column("approvals", "json NOT NULL", "Changes of status that need an approver."),
    Column("stages", "json NOT NULL", "The stages in order."),
)

_PIPELINE = (
    Column("name", "text NOT NULL", "Name."),
    Column("revision", "int NOT NULL", "The revision that new deals run under."),
    Column("approvals", "json NOT NULL", "Changes of status that need an approver."),
    Column("defined_at", "timestamptz NOT NULL", "When it was defined."),
)

STAGE = (
    Column("stage", "text NOT NULL", "Name of the stage."),
    Column(
        "chance_to_next", "numeric NOT NULL", "Chance to reach the next stage; of the last to win."
    ),
    Column("duration_months", "numeric NOT NULL", "Usual time in the stage, in months."),
    Column("chance_to_win", "numeric NOT NULL", "Product of the chances from this stage on."),
    Column("visits_per_week", "int", "Visits a week while a deal is in the stage."),
    Column("approval", "boolean NOT NULL", "Whether entering the stage needs an approver."),
)

# ---- fold ----

Extract = Callable[[Recorded], tuple[str, ...]]


def _defined(recorded: Recorded) -> tuple[str, ...]:
    e: Pipeline.Created = recorded.event
    return (
        "defined", str(recorded.version), "1", text(e.name), _json(e.approvals),
        _json(_stages(e.stages)),
    )  # fmt: skip


def _revised(recorded: Recorded) -> tuple[str, ...]:
    e: Pipeline.Revised = recorded.event
    return (
        "revised", str(recorded.version), str(e.revision), NULL, _json(e.approvals),
        _json(_stages(e.stages)),
    )  # fmt: skip


def _stages(stages: tuple[Stage, ...]) -> list[list[Any]]:
    chances = chances_to_win(stages)
    return [
        [
            stage.name, f"{stage.chance_to_next:f}", f"{stage.duration_months:f}",
            f"{chances[stage.name]:f}", stage.visits_per_week, stage.approval,
        ]
        for stage in stages
    ]  # fmt: skip


def _json(value: object) -> str:
    return text(orjson.dumps(value).decode())


class PipelineFold(Fold):
    """A revision's stages never change, and deals may run under any revision at any time: their
    rows are true from the revision on, for ever."""

    key = Column("pipeline_id", "uuid NOT NULL", "The pipeline.")
    facts = FactTable("pipeline_fact", "Definitions and revisions of pipelines.", _PIPELINE_FACT)
    periods = (
        PeriodTable("pipeline_period", "Pipelines and their current revision.", (), _PIPELINE),
        PeriodTable(
            "pipeline_stage_period",
            "Stages of each revision of a pipeline.",
            (
                Column("revision", "int NOT NULL", "The revision."),
                Column("ordinal", "int NOT NULL", "Place of the stage in the pipeline, from 1."),
            ),
            STAGE,
        ),
    )
    start: ClassVar[State] = ((),)
    extract: ClassVar[Mapping[str, Extract]] = {
        Pipeline.Created.TOPIC: _defined,
        Pipeline.Revised.TOPIC: _revised,
    }

    def step(self, state: State, fact: Fact) -> tuple[State, tuple[Row, ...]]:
        at, _, kind, _, revision, name, approvals, stages = fact
        if not state[0]:
            if kind != "defined":
                return state, _stage_rows(at, revision, stages)
            row: Row = (0, "", at, INFINITY, joined(name, revision, approvals, at))
            return ((row,),), _stage_rows(at, revision, stages)
        name, current, _, defined_at = state[0][0][4].split("\t")
        if kind == "defined" or int(revision) < int(current):
            return state, _stage_rows(at, revision, stages)
        row, settled = turned(state[0][0], at, joined(name, revision, approvals, defined_at))
        return ((row,),), settled + _stage_rows(at, revision, stages)


def _stage_rows(at: str, revision: str, stages: str) -> tuple[Row, ...]:
    rows: list[Row] = []
    parsed = orjson.loads(stages.replace("\\\\", "\\"))
    for ordinal, (name, *numbers, visits, approval) in enumerate(parsed, 1):
        values = joined(text(name), *numbers, plain(visits), TRUE if approval else FALSE)
        rows.append((1, joined(revision, str(ordinal)), at, INFINITY, values))
    return tuple(rows)


# ---- queries ----


@dataclass(frozen=True, slots=True)
class StageRow:
    """A stage of a revision; `chance_to_win` is the product of the chances from it on."""

    stage: str
    chance_to_next: Decimal
    duration_months: Decimal
    chance_to_win: Decimal
    visits_per_week: int | None
    approval: bool


@dataclass(frozen=True, slots=True)
class PipelineRow:
    """A pipeline with the stages of its revision at the moment."""

    id: UUID
    name: str
    revision: int
    approvals: list[str]
    stages: list[StageRow]
    defined_at: datetime
    version: int


PIPELINE_SORTS = {"id": ("row.pipeline_id", "uuid"), "name": ("row.name", "text")}
_PIPELINES = Source("row.pipeline_id", {}, PIPELINE_SORTS, ("row.name",))
_SELECT_PIPELINE = """row.pipeline_id AS id, row.name, row.revision, row.approvals, row.defined_at,
    (SELECT fact.version FROM pipeline_fact AS fact WHERE fact.pipeline_id = row.pipeline_id
     AND (%(known_at)s::bigint IS NULL OR fact.position <= %(known_at)s)
     ORDER BY fact.position DESC LIMIT 1) AS version
    FROM pipeline_period AS row"""


def pipeline(connection: Connection, pipeline_id: UUID, moment: Moment) -> PipelineRow | None:
    """The pipeline with its revision of that moment, or None."""
    row = fetch_one(
        connection,
        f"SELECT {_SELECT_PIPELINE} WHERE row.pipeline_id = %(id)s::uuid"
        f" AND {truth(moment, 'row')}",
        {**moment.parameters(), "id": str(pipeline_id)},
    )
    return None if row is None else _with_stages(connection, [row], moment)[0]


def pipelines(
    connection: Connection,
    moment: Moment,
    *,
    search: str | None = None,
    sort: str = "id",
    descending: bool = False,
    after: tuple[str, UUID] | None = None,
    limit: int = 100,
) -> Page[PipelineRow]:
    """A page of the pipelines there were. Search looks at names."""
    rows, following = page_of(
        connection, _PIPELINES, _SELECT_PIPELINE, truth(moment, "row"), moment.parameters(),
        filters={}, search=search, sort=sort, descending=descending, after=after, limit=limit,
    )  # fmt: skip
    return Page(_with_stages(connection, rows, moment), following)


def _with_stages(
    connection: Connection, rows: list[dict[str, Any]], moment: Moment
) -> list[PipelineRow]:
    found = fetch(
        connection,
        f"""SELECT pipeline_id, revision, {", ".join(column.name for column in STAGE)}
            FROM pipeline_stage_period WHERE pipeline_id = ANY(%(ids)s::uuid[])
            AND {known(moment)} ORDER BY ordinal""",
        {**moment.parameters(), "ids": [str(row["id"]) for row in rows]},
    )
    stages: dict[tuple[UUID, int], list[StageRow]] = {}
    for stage in found:
        of = stages.setdefault((stage.pop("pipeline_id"), stage.pop("revision")), [])
        of.append(StageRow(**stage))
    return [PipelineRow(stages=stages.get((row["id"], row["revision"]), []), **row) for row in rows]


def revision_of(connection: Connection, pipeline_id: UUID, moment: Moment) -> int | None:
    """The revision at the moment (the first one before it); None for a pipeline that was not
    known."""
    row = fetch_one(
        connection,
        f"""SELECT revision FROM pipeline_period
            WHERE pipeline_id = %(id)s::uuid AND {known(moment)}
            ORDER BY valid_from <= %(as_of)s DESC,
                CASE WHEN valid_from <= %(as_of)s THEN revision END DESC, revision LIMIT 1""",
        {**moment.parameters(), "id": str(pipeline_id)},
    )
    return None if row is None else row["revision"]


def stages_in_order(
    connection: Connection, pipeline_id: UUID, moment: Moment, revision: int
) -> list[str]:
    """The stages of a revision in order."""
    rows = fetch(
        connection,
        f"""SELECT stage FROM pipeline_stage_period
            WHERE pipeline_id = %(id)s::uuid AND revision = %(revision)s AND {known(moment)}
            ORDER BY ordinal""",
        {**moment.parameters(), "id": str(pipeline_id), "revision": revision},
    )
    return [row["stage"] for row in rows]
