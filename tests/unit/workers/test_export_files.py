"""Rows into files of an export: what a spreadsheet would run is text, and nothing is lost."""

from __future__ import annotations

import csv
import io
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from projections.snapshot import BiView, ViewColumn
from workers.exporting.files import CsvFile, Row, as_text
from workers.exporting.parquet import ParquetFile


def view(*types: str) -> BiView:
    columns = (ViewColumn(f"c{n}", kind, f"column {n}") for n, kind in enumerate(types))
    return BiView("made_up", "Made up.", tuple(columns))


def written(path: Path, types: list[str], rows: list[Row]) -> str:
    file = CsvFile(path, view(*types), {})
    file.write(rows)
    file.close()
    with path.open(encoding="utf-8", newline="") as read:
        return read.read()


FIRST = tuple("=+-@\t\r\n＝＋－＠")  # noqa: RUF001


@pytest.mark.parametrize("first", FIRST)
def test_a_text_that_would_be_a_formula_gets_an_apostrophe(tmp_path: Path, first: str) -> None:
    text = written(tmp_path / "a.csv", ["text", "jsonb"], [(f"{first}1+1", first), ("a=1", "1")])
    header, *rows = csv.reader(io.StringIO(text, newline=""))
    assert header == ["c0", "c1"]
    assert rows == [[f"'{first}1+1", f"'{first}"], ["a=1", "1"]]


def test_a_negative_number_is_no_formula(tmp_path: Path) -> None:
    kinds = ["numeric", "bigint", "double precision"]
    assert written(tmp_path / "a.csv", kinds, [("-1.50", "-2", "-3.5")]) == (
        "c0,c1,c2\n-1.50,-2,-3.5\n"
    )


def test_null_is_not_the_empty_text(tmp_path: Path) -> None:
    assert written(tmp_path / "a.csv", ["text", "uuid"], [(None, None), ("", "x")]) == (
        'c0,c1\n,\n"",x\n'
    )


TEXT = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))


@given(st.lists(st.tuples(TEXT, TEXT), max_size=5))
def test_every_text_can_be_read_again(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Row]
) -> None:
    text = written(tmp_path_factory.mktemp("csv") / "a.csv", ["text", "text"], rows)
    _, *read = csv.reader(io.StringIO(text, newline=""))
    for row, again in zip(rows, read, strict=True):
        for value, cell in zip(row, again, strict=True):
            assert value is not None
            assert cell == (f"'{value}" if value[:1] in FIRST else value)
            assert not cell.startswith(FIRST)


def test_parquet_has_types_comments_and_what_it_is_of(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    cases: list[tuple[str, str, Any]] = [
        ("uuid", "00000000-0000-4000-8000-000000000000", "00000000-0000-4000-8000-000000000000"),
        ("text", "=1", "=1"),
        ("jsonb", '{"a": 1}', '{"a": 1}'),
        ("bigint", "9223372036854775807", 2**63 - 1),
        ("integer", "-7", -7),
        ("boolean", "true", True),
        ("date", "2024-02-29", date(2024, 2, 29)),
        (
            "timestamp with time zone",
            "2024-02-29 12:30:00.000001+00",
            datetime(2024, 2, 29, 12, 30, 0, 1, UTC),
        ),
        ("numeric", "999999999999999.0001", Decimal("999999999999999.0001")),
        ("numeric", "-0.5", Decimal("-0.5")),
    ]
    file = ParquetFile(path, view(*(kind for kind, _, _ in cases)), {"position": "12"})
    file.write([tuple(text for _, text, _ in cases), (None,) * len(cases)])
    file.close()
    table = pq.read_table(path)
    assert [list(row.values()) for row in table.to_pylist()] == [
        [value for _, _, value in cases],
        [None] * len(cases),
    ]
    assert table.schema.field("c8").type == pa.decimal128(38, 12)
    assert table.schema.field("c7").type == pa.timestamp("us", tz="UTC")
    assert table.schema.field("c0").metadata[b"comment"] == b"column 0"
    assert table.schema.metadata[b"position"] == b"12"
    assert table.schema.metadata[b"comment"] == b"Made up."


def test_an_empty_table_is_a_file_with_columns(tmp_path: Path) -> None:
    file = ParquetFile(tmp_path / "a.parquet", view("text", "numeric"), {})
    file.close()
    assert pq.read_table(tmp_path / "a.parquet").column_names == ["c0", "c1"]


def test_a_number_too_large_is_refused(tmp_path: Path) -> None:
    file = ParquetFile(tmp_path / "a.parquet", view("numeric"), {})
    with pytest.raises(pa.ArrowInvalid):
        file.write([("1" + "0" * 26,)])
    file.close()


def test_infinite_times_are_left_out_and_quotients_rounded() -> None:
    assert "isfinite" in as_text(ViewColumn("valid_to", "timestamp with time zone", None))
    assert "round" in as_text(ViewColumn("rate", "numeric", None))
