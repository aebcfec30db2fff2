"""JSON that has one meaning is taken; all other bodies are refused before anything is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.body import check_content_type, parse_json, read_body
from api.errors import BodyTooLarge, ClientGone, MalformedBody, UnsupportedMediaType

JSON = (b"application/json",)


def received(*messages: dict[str, Any]) -> Callable[[], Awaitable[dict[str, Any]]]:
    waiting = list(messages)

    async def receive() -> dict[str, Any]:
        return waiting.pop(0)

    return receive


def part(body: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b'{"a": 1,}',
        b"{'a': 1}",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": "\\ud800"}',
        b'{"a": "\xed\xa0\x80"}',
        b'{"a": "\xff"}',
        b'{"a": "\n"}',
        b'\xef\xbb\xbf{"a": 1}',
        b'{"a": 1, "a": 2}',
        b'{"b": [{"a": 1, "\\u0061": 2}]}',
        b"[" * 300 + b"]" * 300,
        b"[" * 100_000,
        b'{"a":' * 2_000 + b"1" + b"}" * 2_000,
        b"{}{}",
    ],
)
def test_what_is_not_json_with_one_meaning_is_malformed(raw: bytes) -> None:
    with pytest.raises(MalformedBody):
        parse_json(raw)


def test_the_canonical_form_does_not_depend_on_how_it_was_written() -> None:
    one, other = b'{"b": [1, 2.50], "a": "\\u00e9"}', '{"a":"é",\n "b":[1,2.5]}'.encode()
    assert parse_json(one)[1] == parse_json(other)[1] == '{"a":"é","b":[1,2.5]}'.encode()


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=20,
)


@given(values)
def test_every_json_value_is_read_as_it_is(value: Any) -> None:
    read, form = parse_json(orjson.dumps(value))
    assert read == value
    assert orjson.loads(form) == value


def test_a_body_comes_in_parts() -> None:
    parts = received(part(b"ab", more=True), part(b"", more=True), part(b"c", more=False))
    assert asyncio.run(read_body(parts, None, 3)) == b"abc"


@pytest.mark.parametrize("declared", [b"4", b"-1", b"x", b"99999999999999999999"])
def test_a_body_that_says_it_is_too_large_is_not_read(declared: bytes) -> None:
    with pytest.raises(BodyTooLarge):
        asyncio.run(read_body(received(), declared, 3))


def test_a_body_without_length_is_read_no_further_than_the_limit() -> None:
    parts = received(part(b"ab", more=True), part(b"cd", more=True))
    with pytest.raises(BodyTooLarge):
        asyncio.run(read_body(parts, None, 3))


def test_a_client_that_goes_is_noticed() -> None:
    with pytest.raises(ClientGone):
        asyncio.run(read_body(received({"type": "http.disconnect"}), None, 3))
    with pytest.raises(ClientGone):
        parts = received(part(b"a", more=True), {"type": "http.disconnect"})
        asyncio.run(read_body(parts, None, 3))


@pytest.mark.parametrize(
    "value", [b"application/json", b"Application/JSON; charset=utf-8", b"application/json;"]
)
def test_json_in_utf_8_is_taken(value: bytes) -> None:
    assert check_content_type(value, JSON) == b"application/json"


@pytest.mark.parametrize(
    "value",
    [None, b"", b"text/plain", b"application/jsonp", b"application/json; charset=latin-1"],
)
def test_other_types_are_not(value: bytes | None) -> None:
    with pytest.raises(UnsupportedMediaType):
        check_content_type(value, JSON)
