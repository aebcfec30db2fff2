"""`crm archive`: the older part of the log as files that give the same leaves, and prove it."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg2.extras import execute_values
from rich.console import Console

from infra.archive import Archive, ArchiveRefused, Contents, extend
from infra.migrations import LOG_SCHEMAS, migrate
from infra.postgres import Connection, connect
from infra.proof.leaves import COLUMNS, Row, leaf
from infra.proof.tree import leaf_hash, root_of
from tests.bench import company as long_log
from tests.integration.proof.leaf_sql import LEAF_SQL
from tests.integration.workers.conftest import Installation
from tests.integration.workers.test_backup import crm
from workers.archiving import run_archive, run_check

pytestmark = pytest.mark.database

BLOCK = 64


@pytest.fixture(scope="module")
def url(new_database: Callable[[], str]) -> str:
    """A log of a few hundred events."""
    url = new_database()
    migrate(url, LOG_SCHEMAS)
    assert long_log.fill(url, 300) > 4 * BLOCK
    return url


@pytest.fixture
def log(url: str) -> Iterator[Connection]:
    with closing(connect(url, role="crm_backup")) as connection:
        yield connection


@pytest.fixture
def archived(log: Connection, tmp_path: Path) -> Path:
    """An archive of three blocks."""
    extend(log, tmp_path / "archive", 4 * BLOCK - 1, block=BLOCK)
    return tmp_path / "archive"


def leaves_in_log(url: str) -> list[bytes]:
    with closing(connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT {LEAF_SQL} FROM log.events ORDER BY position")
        return [bytes(row[0]) for row in cursor.fetchall()]


def root_in_log(url: str, size: int) -> bytes:
    return root_of(b"".join(map(leaf_hash, leaves_in_log(url)[:size])))


def test_rows_and_leaves_are_those_of_the_log(archived: Path, url: str) -> None:
    archive = Archive(archived)
    assert archive.end == 3 * BLOCK
    leaves = leaves_in_log(url)[: archive.end]
    assert list(archive.leaves()) == leaves
    assert [leaf(row) for row in archive.rows()] == leaves
    with closing(connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {', '.join(COLUMNS)} FROM log.events WHERE position BETWEEN 60 AND 130"
            " ORDER BY position"
        )
        rows = [Row(*row[:-1], bytes(row[-1])) for row in cursor.fetchall()]
    assert list(archive.rows(60, 130)) == rows


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 100, 128, 191, 192])
def test_every_root_within_can_be_told_without_the_database(
    archived: Path, url: str, size: int
) -> None:
    assert Archive(archived).root(size) == root_in_log(url, size)


def test_what_is_not_archived_is_not_given(archived: Path) -> None:
    archive = Archive(archived)
    for ask in (
        lambda: archive.root(193),
        lambda: list(archive.rows(1, 193)),
        lambda: list(archive.leaves(0, 5)),
    ):
        with pytest.raises(ValueError, match=r"192|ends"):
            ask()


def test_files_can_be_read_by_anybody(archived: Path) -> None:
    [first, *_] = sorted(archived.glob("*.parquet"))
    assert first.name == "events-000000000001-000000000064.parquet"
    table = pq.read_table(first)
    assert table.column_names == list(COLUMNS)
    assert table.column("occurred_at").type.tz == "UTC"
    state = table.column("state")[0].as_py()
    assert isinstance(json.loads(state), dict)


def test_an_archive_goes_on_where_it_ended(
    log: Connection, archived: Path, url: str, tmp_path: Path
) -> None:
    before = {path.name: path.read_bytes() for path in archived.glob("*.parquet")}
    contents = extend(log, archived, 4 * BLOCK)
    assert contents.end == 4 * BLOCK
    assert Archive(archived).root(4 * BLOCK) == root_in_log(url, 4 * BLOCK)
    for name, content in before.items():
        assert (archived / name).read_bytes() == content
    assert extend(log, archived, 4 * BLOCK) == contents
    at_once = extend(log, tmp_path / "at once", 4 * BLOCK, block=BLOCK)
    assert [part.root for part in at_once.parts] == [part.root for part in contents.parts]


def test_an_archive_of_another_log_is_not_gone_on_with(
    archived: Path, new_database: Callable[[], str], log: Connection
) -> None:
    other = new_database()
    migrate(other, LOG_SCHEMAS)
    long_log.fill(other, 300, seed=8)
    with closing(connect(other)) as connection:
        for to in (200, 256):
            with pytest.raises(ArchiveRefused, match="of another log"):
                extend(connection, archived, to)
    assert Archive(archived).end == 3 * BLOCK
    extend(log, archived, 256)


def test_positions_that_the_log_does_not_have_are_refused(log: Connection, tmp_path: Path) -> None:
    with pytest.raises(ArchiveRefused, match="has positions from 1 to"):
        extend(log, tmp_path / "archive", 10_000)


# ---- any row ----

_ids = st.uuids()
_texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
_times = st.datetimes(
    datetime(1, 1, 2),  # noqa: DTZ001
    datetime(9999, 12, 30),  # noqa: DTZ001
    timezones=st.just(UTC),
)
_events = st.builds(
    Row,
    position=st.just(0),
    stream_id=_ids,
    version=st.integers(0, 2**31 - 1),
    class_version=st.integers(-(2**15), 2**15 - 1),
    partition_key=_ids,
    occurred_at=_times,
    recorded_at=_times,
    command_id=_ids,
    correlation_id=_ids,
    causation_id=st.none() | _ids,
    topic=_texts,
    actor=_texts,
    reason=st.none() | _texts,
    traceparent=st.none() | _texts,
    state=st.binary(max_size=3000),
)


@pytest.fixture(scope="module")
def any_log(new_database: Callable[[], str]) -> str:
    url = new_database()
    migrate(url, LOG_SCHEMAS)
    return url


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=st.lists(_events, min_size=4, max_size=11, unique_by=lambda row: row.stream_id))
def test_any_event_reads_back_byte_by_byte(any_log: str, tmp_path: Path, events: list[Row]) -> None:
    times = sorted(row.recorded_at for row in events)
    rows = [
        replace(row, position=position, recorded_at=at)
        for position, (row, at) in enumerate(zip(events, times, strict=True), 1)
    ]
    folder = tmp_path / uuid4().hex
    with closing(connect(any_log)) as connection:
        with connection, connection.cursor() as cursor:
            cursor.execute("TRUNCATE log.events")
            execute_values(
                cursor,
                f"INSERT INTO log.events ({', '.join(COLUMNS)}) VALUES %s",
                [tuple(getattr(row, name) for name in COLUMNS) for row in rows],
            )
            cursor.execute("UPDATE log.head SET position = %s", [len(rows)])
        extend(connection, folder, len(rows), block=4)
    archive = Archive(folder)
    archive.check()
    whole = rows[: len(rows) // 4 * 4]
    assert list(archive.rows()) == whole
    assert list(archive.leaves()) == leaves_in_log(any_log)[: len(whole)] == [*map(leaf, whole)]


# ---- changed, cut off, stopped ----


def test_a_whole_archive_is_said_to_be_whole(archived: Path, url: str) -> None:
    console = Console(file=io.StringIO(), width=400)
    assert run_check(archived, console=console) == 0
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert root_in_log(url, 3 * BLOCK).hex() in said


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("change", [flip, Path.unlink])
def test_a_changed_file_is_refused(archived: Path, change: Callable[[Path], Any]) -> None:
    change(sorted(archived.glob("*.parquet"))[1])
    with pytest.raises(ArchiveRefused, match="events-000000000065"):
        run_check(archived)


def edited(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "archive.json"
    contents = json.loads(path.read_text())
    change(contents)
    path.write_text(json.dumps(contents))


def test_an_event_that_was_changed_with_its_checksum_is_refused(archived: Path) -> None:
    path = sorted(archived.glob("*.parquet"))[1]
    table = pq.read_table(path)
    actors = [*table.column("actor").to_pylist()]
    actors[7] = "somebody else"
    at = table.schema.get_field_index("actor")
    pq.write_table(table.set_column(at, table.schema.field(at), [actors]), path)

    def change(contents: dict[str, Any]) -> None:
        contents["parts"][1]["bytes"] = path.stat().st_size
        contents["parts"][1]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()

    edited(archived, change)
    with pytest.raises(ArchiveRefused, match="are not those that were archived"):
        run_check(archived)


def test_a_root_that_was_changed_as_well_does_not_fit_the_checkpoint(
    archived: Path, url: str
) -> None:
    root = base64.b64encode(root_in_log(url, 150)).decode()
    note = f"crm-ledger/x\n150\n{root}\n\n— crm-ledger/x AAAA\n"
    edited(archived, lambda contents: contents.update(checkpoint=note))
    run_check(archived)
    shutil.copy(archived / "archive.json", archived / ".kept")
    edited(archived, lambda contents: contents["parts"][0].update(root="0" * 64))
    with pytest.raises(ArchiveRefused):
        run_check(archived)
    shutil.copy(archived / ".kept", archived / "archive.json")
    edited(
        archived, lambda contents: contents.update(checkpoint=note.replace("\n150\n", "\n149\n"))
    )
    with pytest.raises(ArchiveRefused, match="checkpoint of 149 events"):
        run_check(archived)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "crm-ledger backup"},
        {"block": 32},
        {"block": 63},
        {"parts": [{}]},
        {"checkpoint": "nothing"},
        {"checkpoint": "x\n193\nAAAA\n\n"},
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(archived: Path, change: dict[str, Any]) -> None:
    edited(archived, lambda contents: contents.update(change))
    with pytest.raises(ArchiveRefused, match="is not of an archive"):
        Archive(archived)


def test_a_folder_with_other_things_is_left(log: Connection, tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "a.txt").write_text("Dear")
    with pytest.raises(ArchiveRefused, match=r"not of an archive: a\.txt"):
        extend(log, tmp_path / "letters", BLOCK, block=BLOCK)


def test_a_gap_in_the_log_is_not_archived(new_database: Callable[[], str], tmp_path: Path) -> None:
    url = new_database()
    migrate(url, LOG_SCHEMAS)
    long_log.fill(url, 300)
    with closing(connect(url)) as connection:
        with connection, connection.cursor() as cursor:
            cursor.execute("DELETE FROM log.events WHERE position = 70")
        with pytest.raises(ArchiveRefused, match="position 71 stands where 70 should"):
            extend(connection, tmp_path / "archive", 4 * BLOCK, block=BLOCK)
    assert Archive(tmp_path / "archive").end == BLOCK
    assert [path.name for path in (tmp_path / "archive").glob(".events*")] == []


def test_who_was_killed_goes_on(installation: Installation, tmp_path: Path) -> None:
    long_log.fill(installation.url, 300)
    folder = tmp_path / "archive"
    with closing(connect(installation.url)) as connection:
        extend(connection, folder, BLOCK, block=BLOCK)
    killed = crm(
        installation, "archive", str(folder), "--to", "256", CRM_CRASHPOINT="archive.written:2"
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert Archive(folder).end == 2 * BLOCK
    done = crm(installation, "archive", str(folder), "--to", "256")
    assert done.returncode == 0, done.stderr
    assert crm(installation, "archive", str(folder), "--check").returncode == 0
    assert Archive(folder).root(256) == root_in_log(installation.url, 256)
    assert len(os.listdir(folder)) == 5


def test_less_than_a_block_is_for_later(installation: Installation, tmp_path: Path) -> None:
    long_log.fill(installation.url, 300)
    console = Console(file=io.StringIO(), width=400)
    assert run_archive(installation.settings(), tmp_path / "archive", 300, console=console) == 0
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "the first file is written up to position 262,144" in said


def test_contents_begin_empty() -> None:
    assert Contents(log_id=None, block=4, checkpoint=None, parts=[]).end == 0
