"""Erasing persons, and the certificates of it."""

import asyncio
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from api.body import JSON_TYPE, check_content_type, parse_json, read_body, validate
from api.commands import MAX_KEY_LENGTH, authorize, parse_id
from api.errors import ResourceNotFound, UnsupportedMediaType
from api.headers import Headers, idempotency_key, origin_of, principal_of, read_headers
from api.openapi import BEARER, CORRELATED, conversation, problems, read_responses
from api.routes.reading import Auditor, Shared, json_response
from api.schemas.erasures import Certificate, Erase, Erasures
from api.services import Services, services_of
from api.tokens import Scope
from infra import handouts
from infra.commands import Request as Command
from infra.erasure import LISTED, Erasure

router = APIRouter(prefix="/v1", tags=["erasures"])


REMARKS = [
    "Backups and the database's own log of writes hold the key, encrypted by the master key, until"
    " they are deleted or overwritten; free space of its table may, too. crm keys rotate makes such"
    " copies unreadable for good, once the former master key is destroyed.",
    "What was handed out, as listed, cannot be called back.",
    "Ids, times, amounts, region, industry and source stay, as does, in the log alone, the id that"
    " another system gave a customer.",
]

_PARAMETERS = [
    {
        "name": "idempotency-key",
        "in": "header",
        "required": True,
        "description": "As on commands. An erasure is done once under whatever key.",
        "schema": {
            "type": "string",
            "minLength": 1,
            "maxLength": MAX_KEY_LENGTH,
            "pattern": r"^[!-~]([ -~]*[!-~])?$",
        },
    },
    *conversation(),
]
_DESCRIPTION: dict[str, Any] = {
    "response_model": Certificate,
    "responses": {
        200: {"description": "Erased, durably: the certificate.", "headers": CORRELATED},
        **problems(400, 401, 403, 404, 409, 413, 415, 422, 503),
    },
    "openapi_extra": {
        "parameters": _PARAMETERS,
        "requestBody": {
            "required": False,
            "content": {"application/json": {"schema": Erase.model_json_schema()}},
        },
        "security": [{BEARER: [Scope.COMMAND.value, Scope.PERSONAL.value]}],
    },
}


@router.post("/customers/{id}/erasure", summary="Erase a person who is a customer", **_DESCRIPTION)
async def erase_customer(id: UUID, request: Request) -> Response:
    """Destroys the person's key: name, attributes and notes cannot be opened any more, wherever
    they are. The customer goes on without them. Done once: again, it answers the same."""
    return await _erase(request)


@router.post(
    "/customers/{id}/contacts/{contact_id}/erasure", summary="Erase a contact", **_DESCRIPTION
)
async def erase_contact(id: UUID, contact_id: UUID, request: Request) -> Response:
    """Destroys the contact's key: name, mail address and telephone number cannot be opened any
    more, wherever they are. Done once: again, it answers the same."""
    return await _erase(request)


async def _erase(request: Request) -> Response:
    """Checks in this order: token, scopes, headers, ids, body; then whether there is somebody."""
    services = services_of(request)
    headers = read_headers(request.scope["headers"])
    principal = principal_of(headers, services.tokens)
    authorize(principal, Scope.COMMAND)
    authorize(principal, Scope.PERSONAL)
    origin = origin_of(headers, request.scope)
    idempotency_key(headers)
    ids = {name: parse_id(value) for name, value in request.path_params.items()}
    body = await _body(request, headers, services)
    asked = services.erasures.erase(
        services.commands,
        ids["id"],
        ids.get("contact_id"),
        Command(
            actor=principal.subject,
            key=None,
            reason=body.reason,
            correlation_id=origin.correlation_id,
            causation_id=origin.causation_id,
        ),
    )
    # One that has begun goes on, also when the client goes away.
    erasure = await asyncio.shield(asyncio.ensure_future(asked))
    return json_response(await _certificate(services, erasure))


async def _body(request: Request, headers: Headers, services: Services) -> Erase:
    limit = services.settings.max_body_bytes
    raw = await read_body(request.receive, headers.get(b"content-length"), limit)
    if not raw:
        return Erase()
    check_content_type(headers.get(b"content-type"), (JSON_TYPE,))
    if headers.get(b"content-encoding", b"identity") != b"identity":
        raise UnsupportedMediaType("application/json")
    _, form = parse_json(raw)
    return validate(Erase, form)


class Page(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    after: Annotated[UUID | None, Field(description="`next` of the answer before.")] = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 50


@router.get(
    "/audit/erasures",
    summary="Who was erased",
    response_model=Erasures,
    responses=read_responses(),
)
async def list_erasures(
    services: Shared, _: Auditor, parameters: Annotated[Page, Query()]
) -> Response:
    """All who were erased, in the order of their ids."""
    found = await services.commands.blocking(
        services.erasures.page, parameters.after, parameters.limit + 1
    )
    page = found[: parameters.limit]
    following = page[-1].subject if len(found) > len(page) else None
    return json_response({"items": [_line(erasure) for erasure in page], "next": following})


@router.get(
    "/audit/erasures/{subject}",
    summary="The certificate of an erasure",
    response_model=Certificate,
    responses=read_responses(404),
)
async def read_erasure(subject: UUID, services: Shared, _: Auditor) -> Response:
    """What was destroyed, when, by whom and why, and what of the person left the product before."""
    erasure = await services.commands.blocking(services.erasures.find, subject)
    if erasure is None:
        raise ResourceNotFound(f"Nobody was erased as {subject}.")
    return json_response(await _certificate(services, erasure))


def _line(erasure: Erasure) -> dict[str, Any]:
    return {
        "subject": erasure.subject,
        "kind": erasure.kind,
        "customer_id": erasure.customer_id,
        "erased_at": erasure.erased_at,
        "actor": erasure.actor,
        "reason": erasure.reason,
        "position": erasure.position,
    }


async def _certificate(services: Services, erasure: Erasure) -> dict[str, Any]:
    given: list[handouts.Handout] = []
    destroyed = None
    if erasure.since_position is not None:
        given = await services.reads.in_thread(
            handouts.between, services.log_pool, erasure.since_position, erasure.erased_at, LISTED
        )
        destroyed = {
            "sealed_fields": erasure.sealed_fields,
            "positions": erasure.positions,
        }
    return {
        **_line(erasure),
        "destroyed": destroyed,
        "left_in_clear": erasure.in_clear or [],
        "elsewhere_within_seconds": services.erasures.remembered,
        "handouts": given,
        "remarks": REMARKS,
    }
