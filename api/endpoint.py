"""The HTTP side of a command: from the request to its answer, with no step that it does not need.

The route is described by a signature like any other (`_described`), which OpenAPI is made from,
but it runs a plain ASGI application instead of FastAPI's handler: reading, hashing and validating
the body are one matter here.
"""

import inspect
from collections.abc import Callable, Iterable
from typing import Annotated, Any
from uuid import UUID

import orjson
from fastapi import Body, Header, Path
from fastapi.routing import APIRoute
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from api.body import JSON_TYPE, check_content_type, parse_json, read_body, validate
from api.commands import ID, MAX_KEY_LENGTH, Command, Target, Work, authorize, parse_id
from api.errors import UnsupportedMediaType
from api.headers import (
    CAUSATION_ID,
    CORRELATION_ID,
    Headers,
    idempotency_key,
    if_match,
    origin_of,
    principal_of,
    read_headers,
)
from api.openapi import BEARER, CAUSATION, CORRELATION, command_responses
from api.schemas.answers import CommandAnswer
from api.services import Services
from infra.commands import Answer


class CommandRoute(APIRoute):
    """The route of one command."""

    def __init__(self, command: Command) -> None:
        self.command = command
        super().__init__(
            command.path,
            _described(command),
            methods=["POST"],
            status_code=command.status,
            summary=command.summary,
            description=inspect.getdoc(command.body),
            name=_operation(command),
            operation_id=_operation(command),
            tags=[command.resource],
            response_model=CommandAnswer,
            responses=command_responses(command),
            openapi_extra={"security": [{BEARER: [command.scope.value]}]},
        )

        self.app = self._respond

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await carry_out(self.command, scope, receive)
        await response(scope, receive, send)


class CommandIndex:
    """Pure ASGI: takes commands to their routes at once, by a look at the path.

    FastAPI would try one pattern after the other, behind layers that commands have no use for;
    what is no command goes there.
    """

    def __init__(self, app: ASGIApp, routes: Iterable[CommandRoute]) -> None:
        self._app = app
        self._routes = {tuple(route.path.split("/")): route for route in routes}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._found(scope) if scope["type"] == "http" else None
        if route is None:
            await self._app(scope, receive, send)
        else:
            scope["route"] = route
            await route.app(scope, receive, send)

    def _found(self, scope: Scope) -> CommandRoute | None:
        parts = tuple(scope["path"].split("/"))
        if scope["method"] != "POST" or ID in parts:
            return None
        route = self._routes.get(parts)
        if route is None and len(parts) > 3 and parts[3]:
            route = self._routes.get((*parts[:3], ID, *parts[4:]))
            if route is not None:
                scope["path_params"] = {"id": parts[3]}
        return route


async def carry_out(command: Command, scope: Scope, receive: Receive) -> Response:
    """Checks in this order: token, scope, headers, id, body, fields; then the command itself."""
    services: Services = scope["app"].state.services
    headers = read_headers(scope["headers"])
    principal = principal_of(headers, services.tokens)
    authorize(principal, command.scope)
    origin = origin_of(headers, scope)
    key = idempotency_key(headers)
    version = if_match(headers, creation=ID not in command.path)
    id_ = parse_id(scope["path_params"]["id"]) if ID in command.path else None
    form = await _form(receive, headers, services.settings.max_body_bytes)
    body = validate(command.body, form)
    work = Work(Target(command, id_), body, key, form, version, principal, origin)
    return respond(command, await services.dispatcher.execute(work))


async def _form(receive: Receive, headers: Headers, limit: int) -> bytes:
    raw = await read_body(receive, headers.get(b"content-length"), limit)
    if not raw:
        return b"{}"
    check_content_type(headers.get(b"content-type"), (JSON_TYPE,))
    if headers.get(b"content-encoding", b"identity") != b"identity":
        raise UnsupportedMediaType("application/json")
    _, form = parse_json(raw)
    return form


def respond(command: Command, answer: Answer) -> Response:
    """What the command came to."""
    headers = {"ETag": f'"{answer.version}"'}
    if command.creates is not None:
        headers["Location"] = f"{command.path}/{answer.id}"
    if answer.repeated:
        headers["Idempotent-Replayed"] = "true"
    return Response(
        orjson.dumps(content(answer)), answer.status, headers, media_type="application/json"
    )


def content(answer: Answer) -> dict[str, Any]:
    """The body of an answer."""
    return {
        "id": str(answer.id),
        "version": answer.version,
        "position": answer.position,
        **answer.extra,
    }


def _described(command: Command) -> Callable[..., Any]:
    """A function whose signature says what the route takes. It is never called."""

    def described(**_: Any) -> None:
        raise NotImplementedError

    parameters: dict[str, Any] = {}
    if ID in command.path:
        parameters["id"] = Annotated[UUID, Path(description="Id of the thing it is done to.")]
    parameters["idempotency_key"] = Annotated[
        str,
        Header(
            min_length=1,
            max_length=MAX_KEY_LENGTH,
            pattern=r"^[!-~]([ -~]*[!-~])?$",
            description="New for each command; the same to repeat one whose answer was lost.",
        ),
    ]
    if ID in command.path:
        parameters["if_match"] = Annotated[
            str | None,
            Header(
                pattern=r'^("(0|[1-9][0-9]{0,17})"|\*)$',
                description="The ETag of the version that the command is meant for.",
            ),
        ]
    parameters["correlation_id"] = Annotated[
        UUID | None,
        Header(alias=CORRELATION_ID, description=CORRELATION),
    ]
    parameters["causation_id"] = Annotated[
        UUID | None,
        Header(alias=CAUSATION_ID, description=CAUSATION),
    ]
    required = any(field.is_required() for field in command.body.model_fields.values())
    body_type: Any = command.body if required else command.body | None
    parameters["body"] = Annotated[body_type, Body()]
    optional = {"if_match", "correlation_id", "causation_id"}
    if not required:
        optional.add("body")
    described.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                annotation=annotation,
                default=None if name in optional else inspect.Parameter.empty,
            )
            for name, annotation in parameters.items()
        ]
    )
    return described


def _operation(command: Command) -> str:
    return command.method.__name__
