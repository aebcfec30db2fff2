"""The headers that the API reads, each at most once."""

import re
from collections.abc import Iterable, Mapping
from typing import NoReturn
from uuid import UUID

import structlog
from starlette.types import Scope

from api.commands import Origin, check_key
from api.errors import MalformedHeader, Unauthorized
from api.tokens import InvalidToken, Principal, Tokens
from infra.ids import new_id

CORRELATION_ID = "X-Correlation-ID"
CAUSATION_ID = "X-Causation-ID"
ANSWERED = "crm.answered"
"""Where a request's scope holds a header that is sent with its answer, whatever that is."""

_READ = frozenset(
    {
        b"authorization",
        b"idempotency-key",
        b"if-match",
        b"content-type",
        b"content-length",
        b"content-encoding",
        b"x-correlation-id",
        b"x-causation-id",
    }
)
_BEARER = re.compile(r"(?i:bearer) +([A-Za-z0-9._~+/=-]+)", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
_VERSION = re.compile(r'"(0|[1-9][0-9]{0,17})"', re.ASCII)

Headers = Mapping[bytes, bytes]


def read_headers(raw: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Those of `_READ`, by lower-case name. Raises MalformedHeader for one that is doubled."""
    found: dict[bytes, bytes] = {}
    for name, value in raw:
        if name in _READ:
            if name in found:
                raise MalformedHeader(f"{name.decode()} is sent more than once.")
            found[name] = value
    return found


def principal_of(headers: Headers, tokens: Tokens) -> Principal:
    """Who sends the request. Raises Unauthorized, always with the same words."""
    value = headers.get(b"authorization")
    match = None if value is None else _BEARER.fullmatch(value.decode("latin-1"))
    if match is None:
        raise Unauthorized
    try:
        return tokens.verify(match[1])
    except InvalidToken:
        raise Unauthorized from None


def idempotency_key(headers: Headers) -> str:
    """Raises IdempotencyKeyMissing, MalformedHeader."""
    value = headers.get(b"idempotency-key")
    return check_key(None if value is None else value.decode("latin-1"))


def if_match(headers: Headers, *, creation: bool) -> int | None:
    """The version that must be the current one; None where any will do.

    `*` asks that the thing exists, which every command that changes does by itself. Raises
    MalformedHeader for anything but one version as the ETags of answers give it.
    """
    value = headers.get(b"if-match")
    if value is None:
        return None
    if creation:
        _malformed("If-Match is for commands on what exists.")
    text = value.decode("latin-1").strip()
    if text == "*":
        return None
    match = _VERSION.fullmatch(text)
    if match is None:
        _malformed('If-Match holds one version in quotes, as "3", or *.')
    return int(match[1])


def origin_of(headers: Headers, scope: Scope) -> Origin:
    """The conversation that a command belongs to, a new one where none is named.

    From here on its id is in the request's log lines, and will be in the answer. Raises
    MalformedHeader.
    """
    correlation_id = _id(headers, CORRELATION_ID) or new_id()
    structlog.contextvars.bind_contextvars(correlation_id=correlation_id)
    scope[ANSWERED] = (b"x-correlation-id", str(correlation_id).encode())
    return Origin(correlation_id, _id(headers, CAUSATION_ID))


def traceparent(raw: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The trace context that the client sends; none where it is sent twice."""
    found = [value for name, value in raw if name == b"traceparent"]
    return found[0].decode("latin-1") if len(found) == 1 else None


def _id(headers: Headers, name: str) -> UUID | None:
    value = headers.get(name.lower().encode())
    if value is None:
        return None
    text = value.decode("latin-1").strip()
    if _UUID.fullmatch(text) is None:
        _malformed(f"{name} is a UUID.")
    return UUID(text)


def _malformed(detail: str) -> NoReturn:
    raise MalformedHeader(detail)
