"""The leaf's bytes, one by one, and rows in exports."""

from __future__ import annotations

import dataclasses
import hashlib
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.proof.leaves import COLUMNS, POSITION_BYTES, Row, json_of_row, leaf, row_of_json

ROW = Row(
    position=0x0102030405060708,
    stream_id=UUID(int=1),
    version=2,
    class_version=3,
    partition_key=UUID(int=4),
    occurred_at=datetime(2000, 1, 1, 0, 0, 0, 5, UTC),
    recorded_at=datetime(1999, 12, 31, 23, 59, 59, 999_999, UTC),
    command_id=UUID(int=6),
    correlation_id=UUID(int=7),
    causation_id=None,
    topic="é",
    actor="",
    reason=None,
    traceparent="00-x",
    state=b"\x00\xff",
)


def test_the_layout_byte_by_byte() -> None:
    expected = "".join(
        (
            "01",
            "0102030405060708",
            f"{1:032x}",
            "00000002",
            "0003",
            f"{4:032x}",
            "0000000000000005",
            "ffffffffffffffff",
            f"{6:032x}",
            f"{7:032x}",
            "ffffffff",
            "00000002c3a9",
            "00000000",
            "ffffffff",
            "0000000430302d78",
            "0000000200ff",
        )
    )
    assert leaf(ROW).hex() == expected
    assert leaf(ROW)[POSITION_BYTES].hex() == "0102030405060708"


def test_null_is_not_the_empty_text() -> None:
    assert leaf(dataclasses.replace(ROW, reason="")) != leaf(ROW)


def test_the_same_moment_gives_the_same_leaf_whatever_its_offset() -> None:
    there = timezone(timedelta(hours=9))
    row = dataclasses.replace(ROW, occurred_at=ROW.occurred_at.astimezone(there))
    assert leaf(row) == leaf(ROW)
    assert row_of_json(json_of_row(row)) == ROW


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2**31},
        {"class_version": 2**15},
        {"position": 2**63},
        {"occurred_at": datetime(2024, 1, 1)},  # noqa: DTZ001
    ],
)
def test_what_no_column_holds_has_no_leaf(change: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        leaf(dataclasses.replace(ROW, **change))  # type: ignore[arg-type]


moments = st.datetimes(
    datetime(1, 1, 2),  # noqa: DTZ001
    datetime(9999, 12, 30),  # noqa: DTZ001
    timezones=st.just(UTC),
)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))
rows = st.builds(
    Row,
    position=st.integers(1, 2**63 - 1),
    stream_id=st.uuids(),
    version=st.integers(0, 2**31 - 1),
    class_version=st.integers(-(2**15), 2**15 - 1),
    partition_key=st.uuids(),
    occurred_at=moments,
    recorded_at=moments,
    command_id=st.uuids(),
    correlation_id=st.uuids(),
    causation_id=st.none() | st.uuids(),
    topic=texts,
    actor=texts,
    reason=st.none() | texts,
    traceparent=st.none() | texts,
    state=st.binary(),
)


@given(row=rows)
def test_an_export_gives_the_row_back(row: Row) -> None:
    assert row_of_json(orjson.loads(orjson.dumps(json_of_row(row)))) == row


@given(row=rows, other=rows)
def test_two_rows_never_share_a_leaf(row: Row, other: Row) -> None:
    assert (leaf(row) == leaf(other)) == (row == other)
    for name in COLUMNS:
        changed = dataclasses.replace(row, **{name: getattr(other, name)})
        assert (leaf(changed) == leaf(row)) == (changed == row)


@pytest.mark.parametrize("name", COLUMNS)
def test_an_export_lacks_no_member(name: str) -> None:
    fields = json_of_row(ROW)
    del fields[name]
    with pytest.raises(ValueError, match=name):
        row_of_json(fields)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("position", "1"),
        ("position", True),
        ("position", 1.0),
        ("stream_id", "x"),
        ("stream_id", None),
        ("occurred_at", "2024-01-01T00:00:00"),
        ("occurred_at", "soon"),
        ("topic", None),
        ("reason", 5),
        ("state", "%%%"),
        ("state", "AAA"),
    ],
)
def test_what_cannot_be_read_is_named(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        row_of_json({**json_of_row(ROW), name: value})


def test_the_leaf_of_an_example_stays_what_it_is() -> None:
    """A change of the layout would make every proof so far worthless."""
    digest = hashlib.sha256(b"\x00" + leaf(ROW)).hexdigest()
    assert digest == "bf1a20a22ddd3bcb5fd442afc3b74f80cf2c223080dca76acf383933b69a6213"
