"""Lines come out as they went in, however the network cuts them."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from api.bulk import Line, stream_lines
from api.errors import BodyTooLarge


def lines_of(chunks: list[bytes], limit: int = 1_000) -> list[tuple[int, Line]]:
    waiting = [
        {"type": "http.request", "body": chunk, "more_body": number < len(chunks)}
        for number, chunk in enumerate(chunks, 1)
    ]

    async def receive() -> Any:
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def collect() -> list[tuple[int, Line]]:
        return [line async for line in stream_lines(receive, limit)]

    return asyncio.run(collect())


@given(
    st.lists(st.binary(max_size=12).map(lambda text: text.replace(b"\n", b"."))),
    st.lists(st.integers(1, 9), min_size=1),
)
def test_the_cuts_do_not_matter(lines: list[bytes], cuts: list[int]) -> None:
    raw = b"\n".join(lines)
    chunks: list[bytes] = []
    while raw:
        size = cuts[len(chunks) % len(cuts)]
        chunks.append(raw[:size])
        raw = raw[size:]
    expected = [(n, line.strip()) for n, line in enumerate(lines, 1) if line.strip()]
    assert lines_of(chunks or [b""]) == expected


def test_an_overlong_line_is_answered_in_its_place_and_not_kept() -> None:
    found = lines_of([b"ok\n" + b"x" * 8, b"x" * 8, b"x\nfine\n", b"y" * 11], limit=10)
    assert [(n, line if isinstance(line, bytes) else type(line)) for n, line in found] == [
        (1, b"ok"),
        (2, BodyTooLarge),
        (3, b"fine"),
        (4, BodyTooLarge),
    ]


def test_a_client_that_goes_ends_the_lines() -> None:
    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def collect() -> list[tuple[int, Line]]:
        return [line async for line in stream_lines(receive, 10)]

    assert asyncio.run(collect()) == []
