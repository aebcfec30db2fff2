"""A cursor is good for the list it was made for, and cannot be made by anybody else."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.cursors import Cursors
from api.errors import InvalidCursor

OURS = Cursors(b"k" * 32)
QUERY = {"path": "/v1/customers", "sort": "name"}


@given(st.text(st.characters(exclude_categories=["Cs"])), st.uuids())
def test_a_cursor_comes_back_as_it_was(value: str, id_: UUID) -> None:
    assert OURS.decode(OURS.encode((value, id_), QUERY), QUERY) == (value, id_)


@given(st.text(max_size=200))
def test_a_forged_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidCursor):
        OURS.decode(cursor, QUERY)


@given(st.integers(0, 60), st.integers(1, 255))
def test_a_changed_cursor_is_refused(place: int, change: int) -> None:
    cursor = bytearray(OURS.encode(("ACME", UUID(int=7)), QUERY).encode())
    place %= len(cursor)
    changed = cursor[:place] + bytes([cursor[place] ^ change]) + cursor[place + 1 :]
    with pytest.raises(InvalidCursor):
        OURS.decode(changed.decode("latin-1"), QUERY)


def test_a_cursor_of_another_list_is_refused() -> None:
    cursor = OURS.encode(("ACME", uuid4()), QUERY)
    for other in ({**QUERY, "sort": "-name"}, {**QUERY, "path": "/v1/campaigns"}, {}):
        with pytest.raises(InvalidCursor):
            OURS.decode(cursor, other)
    with pytest.raises(InvalidCursor):
        Cursors(b"o" * 32).decode(cursor, QUERY)
