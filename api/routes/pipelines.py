"""Pipelines: their commands, single reads and lists."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from api.commands import Command
from api.openapi import link_header, read_responses, version_header
from api.routes.reading import Reader, Shared, found, json_response, page_arguments, page_response
from api.schemas import reads
from api.schemas.parameters import ListParameters, ReadParameters, number, sorts
from api.schemas.pipelines import DefinePipeline, RevisePipeline
from domain.application import CRM
from projections import funnel
from projections.funnel import PipelineRow
from projections.reading import Connection, Moment

MODEL = "funnel"

COMMANDS = (
    Command(
        "/v1/pipelines",
        DefinePipeline,
        CRM.define_pipeline,
        "Define a pipeline",
        creates="pipeline",
    ),
    Command(
        "/v1/pipelines/{id}/revisions", RevisePipeline, CRM.revise_pipeline, "Revise the stages"
    ),
)

router = APIRouter(prefix="/v1/pipelines", tags=["pipelines"])


class PipelineList(ListParameters):
    sort: Annotated[str, Field(pattern=sorts(funnel.PIPELINE_SORTS))] = "id"


@router.get(
    "",
    summary="List pipelines",
    response_model=reads.ListAnswer[reads.Pipeline],
    responses=link_header() | read_responses(),
)
async def list_pipelines(
    request: Request,
    services: Shared,
    reader: Reader,
    parameters: Annotated[PipelineList, Query()],
) -> Response:
    arguments = page_arguments(services, parameters, request.url.path)

    def query(connection: Connection, moment: Moment) -> Any:
        return funnel.pipelines(connection, moment, **arguments)

    answered = await services.reads.ask([MODEL], parameters.question(), query)
    return page_response(
        services, request, parameters, answered, map(_pipeline, answered.value.rows)
    )


@router.get(
    "/{id}",
    summary="Read a pipeline",
    response_model=reads.PipelineAnswer,
    responses=version_header() | read_responses(404),
)
async def read_pipeline(
    id: UUID, services: Shared, reader: Reader, parameters: Annotated[ReadParameters, Query()]
) -> Response:
    """With the stages of its revision at that moment."""

    def query(connection: Connection, moment: Moment) -> Any:
        return funnel.pipeline(connection, id, moment)

    answered = await services.reads.ask(
        [MODEL], parameters.question(), query, key=id, partition_key=id
    )
    pipeline: PipelineRow = found(answered.value, "pipeline", id)
    return json_response({**_pipeline(pipeline), **answered.times()}, version=pipeline.version)


def _pipeline(row: PipelineRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "revision": row.revision,
        "approvals": row.approvals,
        "stages": [
            {
                "name": stage.stage,
                "chance_to_next": number(stage.chance_to_next),
                "duration_months": number(stage.duration_months),
                "chance_to_win": number(stage.chance_to_win),
                "visits_per_week": stage.visits_per_week,
                "approval": stage.approval,
            }
            for stage in row.stages
        ],
        "defined_at": row.defined_at,
        "version": row.version,
    }
