"""The definitions in force, and the ids that analyses name them by."""

from fastapi import APIRouter
from starlette.responses import Response

from api.openapi import problems
from api.routes.reading import Reader, Shared, json_response
from api.schemas.definitions import DefinitionsAnswer

router = APIRouter(prefix="/v1/definitions", tags=["definitions"])


@router.get(
    "",
    summary="The thresholds and weights in force",
    response_model=DefinitionsAnswer,
    responses=problems(401, 403),
)
async def definitions(services: Shared, reader: Reader) -> Response:
    """Every analysis names the ids of those that it was made by. They change with the program's
    configuration only."""
    parts = services.definitions.parts()
    return json_response({name: {"id": part.id, **part.values()} for name, part in parts.items()})
