"""Reading a request's JSON: bounded in size and depth, and with one meaning only.

Refused are NaN and Infinity, lone surrogates, byte order marks, duplicate keys, nesting that could
exhaust a stack, and whatever else JSON does not know. The canonical form (sorted keys, no spaces)
is what is hashed for receipts *and* what is validated, so both always speak of the same values.
"""

import json
from typing import Any, TypeVar

import orjson
from pydantic import ValidationError
from starlette.types import Receive

from api.errors import (
    BodyTooLarge,
    ClientGone,
    InvalidRequest,
    MalformedBody,
    UnsupportedMediaType,
)
from api.schemas.fields import Model

JSON_TYPE = b"application/json"
NDJSON_TYPE = b"application/x-ndjson"

Body = TypeVar("Body", bound=Model)


async def read_body(receive: Receive, declared: bytes | None, limit: int) -> bytes:
    """The whole body. Raises BodyTooLarge as soon as more than `limit` bytes are on their way."""
    if declared is not None and (not declared.isdigit() or int(declared) > limit):
        raise BodyTooLarge(limit)
    message = await receive()
    if message["type"] != "http.request":
        raise ClientGone
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        if len(body) > limit:
            raise BodyTooLarge(limit)
        return body
    chunks, size = [body], len(body)
    while message.get("more_body", False):
        if size > limit:
            raise BodyTooLarge(limit)
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGone
        chunk = message.get("body", b"")
        chunks.append(chunk)
        size += len(chunk)
    if size > limit:
        raise BodyTooLarge(limit)
    return b"".join(chunks)


def check_content_type(value: bytes | None, allowed: tuple[bytes, ...]) -> bytes:
    """The media type without its parameters. Raises UnsupportedMediaType."""
    media, _, parameters = (value or b"").partition(b";")
    media = media.strip().lower()
    charset = parameters.strip().lower().replace(b'"', b"")
    if media not in allowed or (charset.startswith(b"charset=") and charset != b"charset=utf-8"):
        raise UnsupportedMediaType(" or ".join(name.decode() for name in allowed))
    return media


def parse_json(raw: bytes) -> tuple[Any, bytes]:
    """The value of a JSON text, and its canonical form. Raises MalformedBody."""
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise MalformedBody(f"{error.msg}, at character {error.pos}"[:200]) from None
    form = canonical(value)
    # Each key has a colon behind it: as many keys as colons, and none was repeated. Colons in
    # texts only cost the slower look.
    if raw.count(b":") != _keys(value):
        try:
            _DECODER.decode(raw.decode())
        except _DuplicateKey:
            raise MalformedBody("a key is repeated in one object") from None
    return value, form


def canonical(value: Any) -> bytes:
    """The same bytes for the same JSON value. Raises MalformedBody for what nests too deep."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        raise MalformedBody("it is nested too deep") from None


def validate(model: type[Body], form: bytes) -> Body:
    """The command in a canonical JSON text. Raises InvalidRequest with an entry per field."""
    try:
        return model.model_validate_json(form)
    except ValidationError as error:
        raise InvalidRequest.of(error) from None


def _keys(value: Any) -> int:
    """How many keys the objects in a JSON value have together."""
    if type(value) is dict:
        return len(value) + sum(map(_keys, value.values()))
    return sum(map(_keys, value)) if type(value) is list else 0


class _DuplicateKey(ValueError):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _DuplicateKey
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_unique)
