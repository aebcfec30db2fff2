"""PostgreSQL's binary COPY, taken apart in pieces of any size."""

from __future__ import annotations

import itertools
import struct
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.backup.copied import EventRows, Malformed, Rows, variable
from infra.proof.leaves import Row, leaf
from infra.proof.tree import Frontier, leaf_hash, root_of

START = datetime(2000, 1, 1, tzinfo=UTC)
HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
END = b"\xff\xff"


def tuple_of(*fields: bytes | None) -> bytes:
    sized = (struct.pack(">i", -1) if f is None else struct.pack(">i", len(f)) + f for f in fields)
    return struct.pack(">h", len(fields)) + b"".join(sized)


def copied(row: Row) -> bytes:
    """As the server sends it."""
    times = [(t - START) // timedelta(microseconds=1) for t in (row.occurred_at, row.recorded_at)]
    return tuple_of(
        struct.pack(">q", row.position),
        row.stream_id.bytes,
        struct.pack(">i", row.version),
        struct.pack(">h", row.class_version),
        row.partition_key.bytes,
        *(struct.pack(">q", time) for time in times),
        row.command_id.bytes,
        row.correlation_id.bytes,
        None if row.causation_id is None else row.causation_id.bytes,
        row.topic.encode(),
        row.actor.encode(),
        None if row.reason is None else row.reason.encode(),
        None if row.traceparent is None else row.traceparent.encode(),
        row.state,
    )


def event(position: int, **fields: object) -> Row:
    usual = {
        "position": position, "stream_id": UUID(int=1), "version": position, "class_version": 1,
        "partition_key": UUID(int=2), "occurred_at": START, "recorded_at": START,
        "command_id": UUID(int=3), "correlation_id": UUID(int=4), "causation_id": None,
        "topic": "crm.x", "actor": "", "reason": None, "traceparent": "é", "state": b"{}",
    }  # fmt: skip
    return Row(**(usual | fields))  # type: ignore[arg-type]


def in_pieces(content: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(content), *(cut % (len(content) + 1) for cut in cuts)})
    return [content[a:b] for a, b in itertools.pairwise(edges)]


_rows = st.lists(
    st.builds(
        event,
        st.just(0),
        causation_id=st.none() | st.uuids(),
        reason=st.none() | st.text(max_size=9),
        state=st.binary(max_size=300),
    ),
    max_size=6,
)


@given(rows=_rows, cuts=st.lists(st.integers(0, 10_000), max_size=20))
def test_leaves_are_the_same_whatever_the_pieces(rows: list[Row], cuts: list[int]) -> None:
    rows = [replace(row, position=at) for at, row in enumerate(rows, 5)]
    hashes: list[bytes] = []
    states: list[bytes | None] = []
    taken = EventRows(
        5, hashes.append, lambda buffer, at, _: states.append(variable(buffer, at)[-1])
    )
    for piece in in_pieces(HEADER + b"".join(map(copied, rows)) + END, cuts):
        taken.write(piece)
    taken.close()
    assert taken.rows == len(rows)
    assert hashes == [leaf_hash(leaf(row)) for row in rows]
    assert states == [row.state for row in rows]


@given(cut=st.integers(1, 400))
def test_what_is_cut_off_is_noticed(cut: int) -> None:
    whole = HEADER + copied(event(1)) + copied(event(2)) + END
    taken = EventRows(1, lambda _: None)
    with pytest.raises(Malformed):
        taken.write(whole[: -min(cut, len(whole))])
        taken.close()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (HEADER + copied(event(2)) + END, "position 2 stands where 1 should"),
        (HEADER + copied(event(1)) + copied(event(3)) + END, "position 3 stands where 2"),
        (HEADER + copied(event(1)) + copied(event(1)) + END, "position 1 stands where 2"),
        (
            HEADER + copied(event(1)) + copied(event(2, recorded_at=START - timedelta(1))) + END,
            "recorded before",
        ),
        (HEADER + tuple_of(b"a") + END, "another table"),
        (HEADER + tuple_of(*[b"a" * 20] * 15) + END, "another table|does not end"),
        (HEADER + END + b"x", "follows the end"),
        (b"x" * 40, "does not begin"),
        (HEADER + struct.pack(">hi", 1, -2) + END, "less than nothing"),
        (b"", "does not end"),
    ],
)
def test_what_is_no_copy_of_events_is_refused(content: bytes, says: str) -> None:
    taken = EventRows(1, lambda _: None)
    with pytest.raises(Malformed, match=says):
        taken.write(content)
        taken.close()


def test_rows_of_any_table_are_counted() -> None:
    taken = Rows()
    content = HEADER + tuple_of(None, b"") + tuple_of() + tuple_of(b"x" * 600_000) + END
    for at in range(0, len(content), 1000):
        taken.write(content[at : at + 1000])
    taken.close()
    assert taken.rows == 3


@given(count=st.integers(0, 70), height=st.integers(0, 4))
def test_roots_are_those_of_the_tree_also_of_subtrees(count: int, height: int) -> None:
    hashes = [leaf_hash(bytes([number])) for number in range(count)]
    one_by_one, by_blocks = Frontier(), Frontier()
    for one in hashes:
        one_by_one.add(one)
    block = 2**height
    for first in range(0, count, block):
        by_blocks.add(root_of(b"".join(hashes[first : first + block])))
    assert one_by_one.root() == by_blocks.root() == root_of(b"".join(hashes))
    assert one_by_one.size == count
