"""What the reads of all resources share: parameters in, an answer with its position out."""

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, TypeVar
from urllib.parse import urlencode
from uuid import UUID

import orjson
from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer, SecurityScopes
from starlette.responses import Response

from api.commands import authorize
from api.errors import ResourceNotFound
from api.headers import principal_of, read_headers
from api.reads import Answered
from api.schemas.parameters import ListParameters
from api.services import Services, services_of
from api.tokens import Principal, Scope
from projections.reading import Page

T = TypeVar("T")


async def _services(request: Request) -> Services:
    return services_of(request)


_SCHEME = HTTPBearer(auto_error=False, scheme_name="bearer", bearerFormat="JWT")


async def reader_of(
    request: Request, scopes: SecurityScopes, _: Annotated[object, Depends(_SCHEME)]
) -> Principal:
    """Who asks. Raises Unauthorized and Forbidden."""
    principal = principal_of(read_headers(request.scope["headers"]), services_of(request).tokens)
    for scope in scopes.scopes:
        authorize(principal, Scope(scope))
    return principal


Shared = Annotated[Services, Depends(_services)]
Reader = Annotated[Principal, Security(reader_of, scopes=[Scope.READ.value])]
Auditor = Annotated[Principal, Security(reader_of, scopes=[Scope.AUDIT.value])]


def json_response(value: Any, *, version: int | None = None, link: str | None = None) -> Response:
    headers: dict[str, str] = {}
    if version is not None:
        headers["ETag"] = f'"{version}"'
    if link is not None:
        headers["Link"] = link
    return Response(orjson.dumps(value), headers=headers, media_type="application/json")


def found(row: T | None, kind: str, id_: UUID) -> T:
    """Raises ResourceNotFound where the read model has none then, or knew of none."""
    if row is None:
        raise ResourceNotFound(f"There is no {kind} {id_}, or there was none then.")
    return row


def page_arguments(services: Services, parameters: ListParameters, path: str) -> dict[str, Any]:
    """The arguments of a list's query. Raises InvalidCursor."""
    after = None
    if parameters.cursor is not None:
        identity = {"path": path, **parameters.identity()}
        after = services.cursors.decode(parameters.cursor, identity)
    return {
        "search": parameters.search,
        "sort": parameters.sort.removeprefix("-"),
        "descending": parameters.sort.startswith("-"),
        "after": after,
        "limit": parameters.limit,
    }


def page_response(
    services: Services,
    request: Request,
    parameters: ListParameters,
    answered: Answered[Page[T]],
    items: Iterable[dict[str, Any]],
    more: Mapping[str, Any] | None = None,
) -> Response:
    """A page, with the link to the next one, and what else the answer says (`more`)."""
    path, page = request.url.path, answered.value
    cursor = link = None
    if page.next is not None:
        cursor = services.cursors.encode(page.next, {"path": path, **parameters.identity()})
        query = [pair for pair in request.query_params.multi_items() if pair[0] != "cursor"]
        link = f'<{path}?{urlencode([*query, ("cursor", cursor)])}>; rel="next"'
    content = {
        "items": list(items),
        "next": cursor,
        "parked": answered.parked,
        **(more or {}),
        **answered.times(),
    }
    return json_response(content, link=link)


async def names(
    services: Services, principal: Principal, tokens: Iterable[str | None]
) -> Callable[[str | None], str | None]:
    """Opens personal texts for those who may read them, null for others; `[erased]` for the texts
    of persons who were erased."""
    sealed = {token for token in tokens if token is not None}
    if not sealed or Scope.PERSONAL not in principal.scopes:
        return lambda token: None
    opened = await services.reads.in_thread(services.vault.shown_tokens, sealed)
    return lambda token: None if token is None else opened.get(token)
