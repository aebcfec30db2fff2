"""`POST /v1/bulk`: many commands, one line each."""

from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from msgspec import structs
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.body import JSON_TYPE, NDJSON_TYPE, check_content_type, read_body
from api.bulk import Bulk, Line, array_lines, stream_lines
from api.commands import authorize
from api.errors import UnsupportedMediaType
from api.headers import origin_of, principal_of, read_headers
from api.openapi import BEARER, CORRELATED, conversation, problems
from api.schemas.answers import BulkAnswer, BulkLine
from api.services import services_of
from api.tokens import Scope as TokenScope
from infra import tracing

_NDJSON = "application/x-ndjson"
_LINE = {"$ref": "#/components/schemas/BulkLine"}
_EXAMPLE = '{"path": "/v1/customers", "key": "4711-1", "body": {"name": "Harbour Works"}}\n'

SCHEMAS = (BulkLine, BulkAnswer)
"""Named in the description of this route alone."""

router = APIRouter(prefix="/v1/bulk", tags=["bulk"])


class _BulkResponse(Response):
    """Begins to answer while the request is still being read."""

    def __init__(self, bulk: Bulk, lines: AsyncIterator[tuple[int, Line]]) -> None:
        super().__init__(media_type=_NDJSON)
        del self.headers["content-length"]
        self._bulk = bulk
        self._lines = lines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await self._bulk.run(self._lines, send)


_BODY: dict[str, Any] = {
    "required": True,
    "description": "A command per line, or an array of them. A line is at most "
    "CRM_MAX_BODY_BYTES long; of lines there may be any number, an array is one body.",
    "content": {
        _NDJSON: {"schema": {}, "example": _EXAMPLE},
        # An element that is no command is answered by a problem like any other.
        "application/json": {"schema": {"type": "array", "items": {"anyOf": [_LINE, {}]}}},
    },
}


@router.post(
    "",
    summary="Carry out many commands",
    operation_id="bulk",
    response_class=Response,
    responses={
        200: {
            "description": "An answer per line, in order.",
            "headers": CORRELATED,
            "content": {_NDJSON: {"schema": {"$ref": "#/components/schemas/BulkAnswer"}}},
        },
        **problems(400, 401, 403, 413, 415, 422),
    },
    openapi_extra={
        "parameters": conversation(),
        "requestBody": _BODY,
        "security": [{BEARER: [TokenScope.COMMAND.value]}],
    },
)
async def bulk(request: Request) -> Response:
    """Each line is atomic by itself and answered by itself: with what its command answers, or
    with a problem. Lines are decided side by side; those that name the same thing keep their
    order."""
    services = services_of(request)
    limit = services.settings.max_body_bytes
    headers = read_headers(request.scope["headers"])
    principal = principal_of(headers, services.tokens)
    authorize(principal, TokenScope.COMMAND)
    origin = origin_of(headers, request.scope)
    media = check_content_type(headers.get(b"content-type"), (NDJSON_TYPE, JSON_TYPE))
    if headers.get(b"content-encoding", b"identity") != b"identity":
        raise UnsupportedMediaType(_NDJSON)
    if media == NDJSON_TYPE:
        lines = stream_lines(request.receive, limit)
    else:
        raw = await read_body(request.receive, headers.get(b"content-length"), limit)
        lines = array_lines(raw)
    # A span for each of any number of lines would bury the trace: their events share this one.
    origin = structs.replace(origin, traceparent=tracing.current())
    return _BulkResponse(Bulk(services.dispatcher, principal, origin), lines)
