"""What the OpenAPI description says beyond what FastAPI finds by itself."""

import asyncio
from collections.abc import Iterable
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.commands import ID, Command
from api.errors import PROBLEM_JSON
from api.headers import CAUSATION_ID, CORRELATION_ID
from api.plots import pictures
from api.schemas.answers import Problem

BEARER = "bearer"
DOCUMENT = "/openapi.json"
_REF = {"$ref": "#/components/schemas/Problem"}
_ETAG = {"description": "The version, in quotes.", "schema": {"type": "string"}}
_RETRY = {
    "Retry-After": {"description": "Seconds.", "schema": {"type": "string"}, "required": False}
}
CORRELATION = "The conversation that the command belongs to; a new one where none is named."
CAUSATION = "Id of the event or message that gave rise to the command."
CORRELATED = {
    CORRELATION_ID: {
        "description": "The conversation's id, as it stands in log lines and, unless the command"
        " had been done before, with its events.",
        "schema": {"type": "string", "format": "uuid"},
    }
}
_AUTHENTICATE = {
    "WWW-Authenticate": {"description": "What is asked for.", "schema": {"type": "string"}}
}

DESCRIPTIONS = {
    400: "The request is malformed.",
    401: "No valid bearer token.",
    403: "The token does not allow this, or an approver is needed.",
    404: "There is no such thing.",
    405: "The method is not allowed here.",
    409: "A rule forbids it in the present state.",
    412: "`If-Match` does not name the current version.",
    413: "The body is too large.",
    415: "The body's content type is not supported.",
    422: "A value is wrong, or the key belongs to another request.",
    503: "Not now; ask again.",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The documentation of answers that are problems."""
    return {
        status: {
            "description": DESCRIPTIONS[status],
            "content": {PROBLEM_JSON: {"schema": _REF}},
            **({"headers": _AUTHENTICATE} if status == 401 else {}),
            **({"headers": _RETRY} if status in (409, 503) else {}),
        }
        for status in statuses
    }


def command_responses(command: Command) -> dict[int | str, dict[str, Any]]:
    """Every answer of a command."""
    headers: dict[str, Any] = {
        "ETag": _ETAG,
        **CORRELATED,
        "Idempotent-Replayed": {
            "description": "`true` where the command had been done before.",
            "schema": {"type": "string"},
            "required": False,
        },
    }
    if command.creates is not None:
        headers["Location"] = {
            "description": "Where the new thing is read.",
            "schema": {"type": "string"},
        }
    changes = (412,) if ID in command.path else ()
    return {
        command.status: {"description": "Done, durably.", "headers": headers},
        **problems(400, 401, 403, 404, 409, *changes, 413, 415, 422, 503),
    }


def conversation() -> list[dict[str, Any]]:
    """The headers that name a conversation, for a route that reads them by itself."""
    return [
        {
            "name": name,
            "in": "header",
            "required": False,
            "description": description,
            "schema": {"type": "string", "format": "uuid"},
        }
        for name, description in ((CORRELATION_ID, CORRELATION), (CAUSATION_ID, CAUSATION))
    ]


def version_header() -> dict[int | str, dict[str, Any]]:
    """The answer of a read of one thing."""
    return {200: {"headers": {"ETag": _ETAG}}}


def link_header() -> dict[int | str, dict[str, Any]]:
    """The answer of a list."""
    link = {
        "description": 'The next page, `rel="next"`; missing at the end.',
        "schema": {"type": "string"},
        "required": False,
    }
    return {200: {"headers": {"Link": link}}}


def read_responses(*more: int) -> dict[int | str, dict[str, Any]]:
    """The problems of a read."""
    return problems(400, 401, 403, *more, 422, 503)


def describe(app: FastAPI, models: Iterable[type[BaseModel]]) -> None:
    """Completes the description with the schemas that routes only name, and the bearer token.

    It is made when it is first asked for, in a thread: that takes a second, and commands go on.
    """
    described: list[type[BaseModel]] = [Problem, *models]
    _, named = models_json_schema(
        [(model, "validation") for model in described],
        ref_template="#/components/schemas/{model}",
    )

    def description() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
                tags=app.openapi_tags,
            )
            pictures.described(found["paths"])
            components = found.setdefault("components", {})
            components["schemas"].update(named["$defs"])
            components["securitySchemes"] = {
                BEARER: {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
            }
            app.openapi_schema = found
        return app.openapi_schema

    app.openapi = description  # type: ignore[method-assign]
    made: asyncio.Future[bytes] | None = None

    async def document(_: Request) -> Response:
        nonlocal made
        if made is None:
            made = asyncio.ensure_future(asyncio.to_thread(lambda: orjson.dumps(description())))
        return Response(await asyncio.shield(made), media_type="application/json")

    others = [route for route in app.routes if getattr(route, "path", None) != DOCUMENT]
    app.router.routes[:] = [*others, Route(DOCUMENT, document, include_in_schema=False)]
