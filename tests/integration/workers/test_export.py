"""`crm export`: what BI may read, as files, all at one position."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import signal
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from infra.definitions import load as load_definitions
from projections.catalogue import PROJECTIONS
from projections.projector import Projector
from projections.snapshot import NotBuilt
from tests.integration.projections.promises import broken
from tests.integration.workers.conftest import Installation
from workers.demo import customers
from workers.exporting import InTheWay, UnknownTable, run, run_export
from workers.wiring import databases, read_side

pytestmark = pytest.mark.database

UNTIL = date(2025, 3, 1)
AT = datetime(2025, 3, 2, 9, tzinfo=UTC)
VIEWS = sorted(view.name for one in PROJECTIONS.values() for view in one.views)


@pytest.fixture
def company(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> Installation:
    """A small one in the log; the read models are still to be filled."""
    monkeypatch.setattr(customers, "CUSTOMERS", 26)
    assert installation.demo(seed=5, until=UNTIL) == 0
    return installation


@pytest.fixture
def empty(installation: Installation) -> Installation:
    """Nothing in the log, and that in the read models."""
    carry(installation)
    return installation


def carry(
    installation: Installation, names: Sequence[str] = tuple(PROJECTIONS), step: int = 0
) -> None:
    """The log into read models; as far as `step` positions, if it is given."""
    with (
        databases(installation.settings()) as addresses,
        read_side(addresses) as side,
    ):
        for name in names:
            projector = Projector(PROJECTIONS[name], side.feed(PROJECTIONS[name]), side.pool)
            while projector.step(step or None) and not step:
                pass
            projector.close()


def export(installation: Installation, folder: Path, **options: Any) -> str:
    """What it says; it has to succeed."""
    console = Console(file=io.StringIO(), width=200)
    code = run_export(installation.settings(), folder, console=console, clock=lambda: AT, **options)
    assert code == 0
    said: str = console.file.getvalue()  # type: ignore[attr-defined]
    return said


def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return found


def test_every_table_in_both_formats(company: Installation, tmp_path: Path) -> None:
    carry(company)
    folder = tmp_path / "out"
    said = export(company, folder)
    [(head,)] = company.query("SELECT position FROM log.head")
    told = manifest(folder)
    assert told["position"] == head
    assert told["exported_at"] == AT.isoformat()
    assert told["definitions"] == {
        name: part.id for name, part in load_definitions(None).parts().items()
    }
    assert told["read_models"] == {
        name: {"id": one.id, "position": head, "parked": 0} for name, one in PROJECTIONS.items()
    }
    assert sorted(told["tables"]) == VIEWS
    assert f"{len(VIEWS)} tables" in said
    assert f"as at position {head:,}" in said
    [(kind, position, what, personal)] = company.query(
        "SELECT kind, position, what, personal FROM log.handouts"
    )
    assert (kind, position, personal) == ("export", head, False)
    assert what.split(", ") == list(told["tables"])
    files = {"manifest.json"}
    for name, table in told["tables"].items():
        [(count,)] = company.query(f"SELECT count(*) FROM bi.{name}")
        assert table["rows"] == count
        assert pq.read_metadata(folder / f"{name}.parquet").num_rows == count
        with (folder / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        assert len(rows) == count
        assert header == [column["name"] for column in table["columns"]]
        assert all(column["comment"] for column in table["columns"])
        for file_name, about in table["files"].items():
            files.add(file_name)
            data = (folder / file_name).read_bytes()
            assert about == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert {path.name for path in folder.iterdir()} == files
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_keys_are_unique_and_references_whole(company: Installation) -> None:
    carry(company)
    assert broken(lambda statement: company.query(f"SET search_path TO bi; {statement}")) == []


def test_the_files_hold_what_the_views_show(company: Installation, tmp_path: Path) -> None:
    carry(company)
    export(company, tmp_path / "out")
    for name in ("deal", "fact_order", "dim_customer", "fact_stage_visit", "fact_credit"):
        rows = company.query(f"SELECT * FROM bi.{name}")
        assert rows
        wanted = sorted(str([_plain(value) for value in row]) for row in rows)
        table = pq.read_table(tmp_path / "out" / f"{name}.parquet")
        assert (
            table.schema.metadata[b"position"]
            == str(manifest(tmp_path / "out")["position"]).encode()
        )
        columns = [column.to_pylist() for column in table.columns]
        found = sorted(str([_plain(value) for value in row]) for row in zip(*columns, strict=True))
        assert found == wanted, name


def _plain(value: Any) -> str:
    if isinstance(value, Decimal):
        return f"{round(value, 12):.12f}"
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    return str(value)


def test_some_tables_in_one_format(company: Installation, tmp_path: Path) -> None:
    carry(company)
    export(company, tmp_path / "out", tables=["dim_date", "deal"], formats=["csv"])
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"manifest.json", "dim_date.csv", "deal.csv"}


def test_read_models_that_are_not_equally_far(company: Installation, tmp_path: Path) -> None:
    carry(company, step=400)
    export(company, tmp_path / "even")
    carry(company, ["funnel", "attribution"])
    export(company, tmp_path / "uneven")
    even, uneven = manifest(tmp_path / "even"), manifest(tmp_path / "uneven")
    assert (even["position"], uneven["position"]) == (400, 400)
    assert uneven["read_models"]["funnel"]["position"] > 400
    for name in set(VIEWS) - {"freshness"}:
        lines = [
            sorted((tmp_path / folder / f"{name}.csv").read_text().splitlines())
            for folder in ("even", "uneven")
        ]
        assert lines[0] == lines[1], name


def test_rows_come_in_batches_by_their_keys(
    company: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    carry(company)
    company.query("ANALYZE")  # which changes how, and in which order, rows are found
    export(company, tmp_path / "whole", tables=["dim_date", "deal"])
    monkeypatch.setattr(run, "_BATCH", 7)
    export(company, tmp_path / "parts", tables=["dim_date", "deal"])
    _, *lines = (tmp_path / "whole" / "deal.csv").read_text().splitlines()
    keys = [line.partition(",")[0] for line in lines]
    assert manifest(tmp_path / "parts")["tables"]["deal"]["rows"] == len(keys) > 7
    assert keys == sorted(keys)
    for name in ("dim_date.csv", "deal.csv"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


class TestRefusals:
    def test_read_models_that_are_not_there(
        self, installation: Installation, tmp_path: Path
    ) -> None:
        with pytest.raises(NotBuilt):
            export(installation, tmp_path / "out")
        assert list(tmp_path.glob("*out*")) == []

    def test_a_table_that_is_not_there(self, empty: Installation, tmp_path: Path) -> None:
        with pytest.raises(UnknownTable, match="dim_deal; there are campaign_cost, "):
            export(empty, tmp_path / "out", tables=["dim_deal"])
        assert list(tmp_path.glob("*out*")) == []

    def test_a_folder_that_is_not_empty(self, empty: Installation, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine.txt").write_text("mine")
        for overwrite in (False, True):
            with pytest.raises(InTheWay):
                export(empty, tmp_path / "out", overwrite=overwrite)
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_an_earlier_export_is_replaced_if_that_is_wanted(
    empty: Installation, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    export(empty, folder)
    with pytest.raises(InTheWay, match="--overwrite"):
        export(empty, folder)
    export(empty, folder, overwrite=True, tables=["dim_date"], formats=["csv"])
    assert {path.name for path in folder.iterdir()} == {"manifest.json", "dim_date.csv"}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("how", ["an error", "a signal"])
def test_what_ends_early_leaves_the_folder_as_it_was(
    empty: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    folder = tmp_path / "out"
    export(empty, folder, tables=["dim_date"])
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fail(_: Path) -> dict[str, Any]:
        if how == "a signal":
            os.kill(os.getpid(), signal.SIGTERM)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run, "checksum", fail)
    attempt: Callable[[], int] = lambda: run_export(  # noqa: E731
        empty.settings(), folder, overwrite=True, console=Console(file=io.StringIO())
    )
    if how == "a signal":
        assert attempt() == 130
    else:
        with pytest.raises(InTheWay, match="No space left"):
            attempt()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
