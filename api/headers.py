"""The headers that the API reads, each at most once."""

import re
from collections.abc import Iterable, Mapping
from typing import NoReturn

from api.commands import check_key
from api.errors import MalformedHeader, Unauthorized
from api.tokens import InvalidToken, Principal, Tokens

_READ = frozenset(
    {
        b"authorization",
        b"idempotency-key",
        b"if-match",
        b"content-type",
        b"content-length",
        b"content-encoding",
    }
)
_BEARER = re.compile(r"(?i:bearer) +([A-Za-z0-9._~+/=-]+)", re.ASCII)
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


def _malformed(detail: str) -> NoReturn:
    raise MalformedHeader(detail)
