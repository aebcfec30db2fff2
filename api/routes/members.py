"""Persons of our own house: the command that says who is in which team, and their list."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from api.commands import Command
from api.openapi import link_header, read_responses
from api.routes.reading import Reader, Shared, page_arguments, page_response
from api.schemas import members as shapes
from api.schemas import reads
from api.schemas.parameters import ListParameters, Term, sorts
from domain.application import CRM
from projections import funnel
from projections.reading import Connection, Moment

MODEL = "funnel"

COMMANDS = (
    Command(
        "/v1/members",
        shapes.AssignTeam,
        CRM.assign_team,
        "Say which team an owner is in",
        names="member",
    ),
)

router = APIRouter(prefix="/v1/members", tags=["members"])


class MemberList(ListParameters):
    search: Annotated[
        Term | None, Field(description="Part of an owner's id or a team's name, in any case.")
    ] = None
    sort: Annotated[str, Field(pattern=sorts(tuple(funnel.MEMBER_SORTS)))] = "owner"
    owner: Term | None = None
    team: Term | None = None


@router.get(
    "",
    summary="List members",
    response_model=reads.ListAnswer[shapes.Member],
    responses=link_header() | read_responses(),
)
async def list_members(
    request: Request, services: Shared, reader: Reader, parameters: Annotated[MemberList, Query()]
) -> Response:
    """The owners whose team was told, with the one they were in at `as_of`."""
    arguments = page_arguments(services, parameters, request.url.path)

    def query(connection: Connection, moment: Moment) -> Any:
        return funnel.members(connection, moment, filters=parameters.filters(), **arguments)

    answered = await services.reads.ask([MODEL], parameters.question(), query)
    rows = (
        {"owner": row.owner, "team": row.team, "since": row.since} for row in answered.value.rows
    )
    return page_response(services, request, parameters, answered, rows)
