"""`crm backup` and `crm restore`: what was acknowledged comes back, whole, or not at all."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import date
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg2
import pyarrow as pa
import pytest
from rich.console import Console

from domain.values import CustomerKind
from infra.backup import restoring
from infra.backup.manifest import Backup, LogDamaged, NotEmpty, NotWhole, OtherSchema
from infra.backup.restoring import numbers, restore
from infra.backup.tables import CARRIED, EVENTS, MADE_ANEW, SCHEMAS
from infra.backup.writing import write
from infra.commands import Request
from infra.embedded import EmbeddedPostgres
from infra.master_keys import MasterKey
from infra.migrations import LOG_SCHEMAS, migrate, migrations
from infra.postgres import connect
from infra.proof.leaves import COLUMNS
from infra.vault import WrongMasterKey
from projections.catalogue import PROJECTIONS
from projections.origin import OtherLog
from projections.projector import Projector
from tests.bench import company as long_log
from tests.integration.workers.conftest import Installation
from workers.backup import run_adopt, run_backup, run_check, run_restore
from workers.demo import customers
from workers.exporting import InTheWay
from workers.rebuilding import How, rebuild_models
from workers.wiring import databases, ledger, read_side

pytestmark = pytest.mark.database

NewInstallation = Callable[[], Installation]


@pytest.fixture(scope="module")
def first_company(
    new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Installation:
    """A small one, with persons."""
    url = new_database()
    migrate(url)
    company = Installation(url, tmp_path_factory.mktemp("company"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(customers, "CUSTOMERS", 12)
        assert company.demo(seed=5, until=date(2025, 3, 1)) == 0
    return company


@pytest.fixture
def company(first_company: Installation, server: EmbeddedPostgres, tmp_path: Path) -> Installation:
    """A copy of it."""
    name = f"company_{uuid4().hex[:12]}"
    with closing(connect(server.admin_url, autocommit=True)) as connection:
        template = psycopg2.extensions.parse_dsn(first_company.url)["dbname"]
        connection.cursor().execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        connection.cursor().execute(f"GRANT CREATE ON DATABASE {name} TO crm_projector")
    shutil.copytree(first_company.folder, tmp_path / name)
    return Installation(server.admin_url.replace("/crm?", f"/{name}?"), tmp_path / name)


@pytest.fixture(scope="module")
def first_kept(first_company: Installation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return backup_of(first_company, tmp_path_factory.mktemp("kept") / "kept")


@pytest.fixture
def empty(new_database: Callable[[], str], tmp_path: Path) -> Installation:
    """A database without anything, and a data directory of its own."""
    folder = tmp_path / "restored"
    folder.mkdir()
    return Installation(new_database(), folder)


def said(run: Callable[..., int], *arguments: Any) -> str:
    """What it says; it has to succeed."""
    console = Console(file=io.StringIO(), width=400)
    assert run(*arguments, console=console) == 0
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def backup_of(installation: Installation, folder: Path) -> Path:
    said(run_backup, installation.settings(), folder)
    return folder


def hand_over_master_key(old: Installation, new: Installation) -> None:
    key = new.settings().master_key_file
    key.parent.mkdir(exist_ok=True)
    key.write_bytes(old.settings().master_key_file.read_bytes())


def digest(installation: Installation, table: str) -> Any:
    """Of all rows and columns."""
    return installation.query(
        f"SELECT count(*), md5(string_agg(row::text, '|' ORDER BY row::text)) FROM {table} AS row"
    )


def tables(installation: Installation) -> list[str]:
    rows = installation.query(
        "SELECT schemaname || '.' || tablename FROM pg_tables"
        f" WHERE schemaname IN {SCHEMAS} ORDER BY 1"
    )
    return [name for (name,) in rows]


def epoch(installation: Installation) -> UUID:
    found: UUID = installation.query("SELECT store_epoch FROM log.head")[0][0]
    return found


def is_empty(installation: Installation) -> bool:
    with closing(connect(installation.url)) as connection:
        return all(restoring.is_empty(connection, schema) for schema in SCHEMAS)


# ---- what is in it ----


def test_every_table_comes_along_or_is_made_anew_on_purpose(installation: Installation) -> None:
    assert not CARRIED.keys() & MADE_ANEW.keys()
    assert set(tables(installation)) <= CARRIED.keys() | MADE_ANEW.keys()
    columns = installation.query(
        "SELECT column_name FROM information_schema.columns"
        " WHERE table_schema = 'log' AND table_name = 'events'"
    )
    assert {name for (name,) in columns} == set(COLUMNS)


def test_everything_comes_back(company: Installation, empty: Installation, tmp_path: Path) -> None:
    company.query("INSERT INTO log.tracking VALUES ('another', 5)")
    company.query("INSERT INTO log.policy_position VALUES ('levels/1', 9, 2)")
    company.query(
        "INSERT INTO log.policy_state VALUES ('levels/1', gen_random_uuid(), '{\"a\": 1}')"
    )
    company.query(f"UPDATE vault.keys SET wrapped = NULL, destroyed_at = now() WHERE {FIRST}")
    folder = backup_of(company, tmp_path / "backup")
    assert folder.stat().st_mode & 0o077 == 0
    hand_over_master_key(company, empty)
    text = said(run_restore, empty.settings(), folder)
    carried = [name for name in tables(company) if name in CARRIED]
    for name in carried:
        assert digest(company, name) == digest(empty, name), name
    counts = {name: digest(company, name)[0][0] for name in carried}
    for name in (EVENTS, "log.receipts", "vault.keys", "log.policy_position", "log.policy_state"):
        assert counts[name] > 0, name
    heads = [one.query("SELECT position, recorded_at FROM log.head") for one in (company, empty)]
    assert heads[0] == heads[1]
    assert epoch(company) != epoch(empty)
    assert f"{counts[EVENTS]:,} events" in text
    secrets = [company.settings().master_key_file, company.folder / "data" / "signing.key"]
    written = b"".join(path.read_bytes() for path in folder.iterdir())
    assert all(path.read_bytes() not in written for path in secrets if path.exists())


FIRST = "subject = (SELECT subject FROM vault.keys ORDER BY subject LIMIT 1)"


def test_indexes_are_as_they_were(
    company: Installation, empty: Installation, tmp_path: Path
) -> None:
    statement = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'log' ORDER BY 1"
    said(run_restore, empty.settings(), backup_of(company, tmp_path / "backup"))
    assert empty.query(statement) == company.query(statement)
    with pytest.raises(psycopg2.errors.UniqueViolation):
        empty.query(
            "INSERT INTO log.events SELECT (SELECT max(position) + 1 FROM log.events), stream_id,"
            " version, topic, class_version, partition_key, occurred_at, recorded_at, actor,"
            " command_id, correlation_id, causation_id, reason, state FROM log.events LIMIT 1"
        )


def test_an_empty_log_comes_back(
    installation: Installation, empty: Installation, tmp_path: Path
) -> None:
    folder = backup_of(installation, tmp_path / "backup")
    assert "0 events" in said(run_check, folder)
    said(run_restore, empty.settings(), folder)
    assert empty.query("SELECT position FROM log.head") == [(0,)]
    Office(empty).register(3)


class Office:
    """Registers persons, in a product that is run for it."""

    def __init__(self, installation: Installation) -> None:
        self.acknowledged: list[tuple[int, UUID]] = []
        self._settings = installation.settings()

    def register(self, count: int, key: Callable[[], str] = lambda: uuid4().hex) -> list[Any]:
        return asyncio.run(self._register(count, key))

    async def _register(self, count: int, key: Callable[[], str]) -> list[Any]:
        with databases(self._settings) as addresses, ledger(self._settings, addresses) as book:
            await book.prepare()
            answers = []
            for _ in range(count):
                answers.append(await self.one(book, key()))
            await book.commands.close()
        return answers

    async def one(self, book: Any, key: str) -> Any:
        id_ = uuid4()
        answer = await book.commands.execute(
            lambda: book.crm.register_customer(
                id_, kind=CustomerKind.PERSON, name="Zaphod Beeblebrox"
            ),
            target=id_,
            request=Request("tester", key, b"#"),
        )
        self.acknowledged.append((answer.position, answer.id))
        return answer

    def names(self) -> set[str | None]:
        """Of all persons, in the clear."""
        return asyncio.run(self._names())

    async def _names(self) -> set[str | None]:
        with databases(self._settings) as addresses, ledger(self._settings, addresses) as book:
            streams = [await book.commands.stream(id_) for _, id_ in self.acknowledged]
            sealed = [stream[0].personal_name.sealed for stream in streams]  # type: ignore[attr-defined]
            found = book.vault.open_tokens(sealed)
            await book.commands.close()
        return set(found.values())


def test_a_command_sent_again_gets_its_first_answer_and_texts_can_be_read(
    installation: Installation, empty: Installation, tmp_path: Path
) -> None:
    old, new = Office(installation), Office(empty)
    [first] = old.register(1, lambda: "the key")
    folder = backup_of(installation, tmp_path / "backup")
    hand_over_master_key(installation, empty)
    said(run_restore, empty.settings(), folder)
    [again] = new.register(1, lambda: "the key")
    assert (again.id, again.version, again.position) == (first.id, first.version, first.position)
    assert new.names() == {"Zaphod Beeblebrox"}


# ---- beside writers ----


@contextmanager
def busy(office: Office) -> Iterator[Callable[[], None]]:
    """Registers persons all the while; gives a function that waits until another one is done."""
    changed, stop = threading.Condition(), threading.Event()

    async def go_on() -> None:
        with databases(office._settings) as addresses, ledger(office._settings, addresses) as book:
            await book.prepare()

            async def one_after_the_other() -> None:
                while not stop.is_set():
                    await office.one(book, uuid4().hex)
                    with changed:
                        changed.notify_all()

            await asyncio.gather(*(one_after_the_other() for _ in range(8)))
            await book.commands.close()

    def wait_for_another() -> None:
        with changed:
            count = len(office.acknowledged)
            assert changed.wait_for(lambda: len(office.acknowledged) > count, timeout=60)

    thread = threading.Thread(target=lambda: asyncio.run(go_on()))
    thread.start()
    try:
        yield wait_for_another
    finally:
        stop.set()
        thread.join(60)
    assert not thread.is_alive()


def test_beside_writers_everything_acknowledged_comes_back_up_to_the_position(
    installation: Installation, empty: Installation, tmp_path: Path
) -> None:
    office = Office(installation)
    folder = tmp_path / "backup"
    folder.mkdir()
    with busy(office) as wait_for_another:
        for _ in range(20):
            wait_for_another()
        with closing(connect(installation.url, role="crm_backup")) as connection:

            def told(_done: int, _total: int) -> None:
                wait_for_another()  # in the midst of the backup: nobody is held up

            manifest = write(connection, folder, tmp_path / "none", block=16, told=told)
        wait_for_another()
    for file in manifest.tables[EVENTS].files:
        assert file.rows <= 16
    before = [id_ for position, id_ in office.acknowledged if position <= manifest.position]
    assert 20 <= len(before) < len(office.acknowledged)
    hand_over_master_key(installation, empty)
    restored = Office(empty)
    restored.acknowledged = [(0, id_) for id_ in before]
    said(run_restore, empty.settings(), folder)
    there = {event.stream_id for event in empty.events("crm.customer.")}
    assert set(before) <= there
    assert len(empty.events("")) == manifest.position
    receipts = empty.query("SELECT id FROM log.receipts WHERE scope = 'tester'")
    assert {id_ for (id_,) in receipts} >= set(before)
    assert restored.names() == {"Zaphod Beeblebrox"}


# ---- what was changed, cut off or mixed up ----


@pytest.fixture
def kept(first_kept: Path, tmp_path: Path) -> Path:
    """A backup of the company."""
    return shutil.copytree(first_kept, tmp_path / "kept")


def test_a_whole_backup_is_said_to_be_whole(kept: Path) -> None:
    manifest = Backup(kept).manifest
    assert f"{manifest.position:,} events" in said(run_check, kept)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("name", [f"{EVENTS}-{1:012}", "vault.keys", "log.receipts"])
@pytest.mark.parametrize("change", [flip, cut, Path.unlink])
def test_a_changed_file_is_refused(
    kept: Path, empty: Installation, name: str, change: Callable[[Path], Any]
) -> None:
    change(kept / f"{name}.copy.zst")
    for run in (lambda: run_check(kept), lambda: run_restore(empty.settings(), kept)):
        with pytest.raises(NotWhole, match=name):
            run()
    assert is_empty(empty)


def repacked(folder: Path, table: str, change: Callable[[bytes], bytes]) -> None:
    """As who changes a file and its checksum in the manifest would do it."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for file in manifest["tables"][table]["files"]:
        path = folder / file["name"]
        with pa.CompressedInputStream(pa.OSFile(str(path)), "zstd") as stream:
            content = stream.read()
        with pa.CompressedOutputStream(pa.OSFile(str(path), "wb"), "zstd") as stream:
            stream.write(change(content))
        file["bytes"] = path.stat().st_size
        file["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_an_event_that_was_changed_with_its_checksum_is_refused(
    kept: Path, empty: Installation
) -> None:
    repacked(
        kept,
        EVENTS,
        lambda content: content.replace(b"crm.customer.registered", b"crm.customer.deregister"),
    )
    with pytest.raises(NotWhole, match="its events are not those that were written"):
        run_check(kept)
    with pytest.raises(NotWhole, match="the events are not those that were backed up"):
        run_restore(empty.settings(), kept)
    assert is_empty(empty)


def test_rows_that_are_missing_are_refused(kept: Path, empty: Installation) -> None:
    repacked(kept, "log.receipts", lambda content: content[:19] + b"\xff\xff")
    for run in (lambda: run_check(kept), lambda: run_restore(empty.settings(), kept)):
        with pytest.raises(NotWhole, match="receipts"):
            run()
    assert is_empty(empty)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "crm-ledger export"},
        {"version": 2},
        {"position": 1},
        {"root": "0" * 64},
        {"checkpoint": "crm-ledger/x\n1\nAAAA\n\n"},
        {"checkpoint": "nothing"},
        {"block": 3},
        {"more": 1},
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(kept: Path, change: dict[str, Any]) -> None:
    manifest = json.loads((kept / "manifest.json").read_text())
    (kept / "manifest.json").write_text(json.dumps(manifest | change))
    with pytest.raises(NotWhole):
        run_check(kept)


def test_a_file_elsewhere_is_never_read(kept: Path) -> None:
    manifest = json.loads((kept / "manifest.json").read_text())
    manifest["tables"]["vault.keys"]["files"][0]["name"] = "../../etc/passwd"
    (kept / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(NotWhole, match="is not of a backup"):
        run_check(kept)


def test_the_events_are_held_against_the_checkpoint(kept: Path, company: Installation) -> None:
    """A checkpoint of half the log."""
    hashes = leaf_hashes(company)
    size = len(hashes) // 2
    for root, fits in ((root_of(hashes[:size]), True), (root_of(hashes[: size - 1]), False)):
        note = f"crm-ledger/x\n{size}\n{b64(root)}\n\n"
        manifest = json.loads((kept / "manifest.json").read_text())
        (kept / "manifest.json").write_text(json.dumps(manifest | {"checkpoint": note}))
        if fits:
            said(run_check, kept)
        else:
            with pytest.raises(NotWhole, match="signed checkpoint"):
                run_check(kept)


def b64(root: bytes) -> str:
    import base64

    return base64.b64encode(root).decode()


def leaf_hashes(installation: Installation) -> list[bytes]:
    """By the server's own functions, as the leaf is defined."""
    sized = " || ".join(
        f"coalesce(int4send(octet_length({one})) || {one}, int4send(-1))"
        for one in (
            "uuid_send(causation_id)",
            *(f"convert_to({c}, 'UTF8')" for c in ("topic", "actor", "reason", "traceparent")),
            "state",
        )
    )
    rows = installation.query(
        "SELECT sha256('\\x0001'::bytea || int8send(position) || uuid_send(stream_id)"
        " || int4send(version) || int2send(class_version) || uuid_send(partition_key)"
        " || timestamptz_send(occurred_at) || timestamptz_send(recorded_at)"
        f" || uuid_send(command_id) || uuid_send(correlation_id) || {sized})"
        " FROM log.events ORDER BY position"
    )
    return [bytes(one) for (one,) in rows]


def root_of(hashes: list[bytes]) -> bytes:
    """As RFC 9162 defines it."""
    if len(hashes) == 1:
        return hashes[0]
    split = 1 << ((len(hashes) - 1).bit_length() - 1)
    left, right = root_of(hashes[:split]), root_of(hashes[split:])
    return hashlib.sha256(b"\x01" + left + right).digest()


def test_the_root_is_that_of_the_log_by_the_definition(kept: Path, company: Installation) -> None:
    assert Backup(kept).manifest.root == root_of(leaf_hashes(company)).hex()


def test_a_restore_into_what_holds_something_is_refused(
    kept: Path, company: Installation, empty: Installation
) -> None:
    before = digest(company, EVENTS)
    with pytest.raises(NotEmpty, match="another by CRM_DATABASE_URL"):
        run_restore(company.settings(), kept)
    assert digest(company, EVENTS) == before
    Office(empty).register(0)  # the default pipeline is there
    with pytest.raises(NotEmpty):
        run_restore(empty.settings(), kept)


def test_a_wrong_master_key_is_noticed(
    kept: Path, company: Installation, empty: Installation
) -> None:
    key = empty.settings().master_key_file
    key.parent.mkdir()
    key.write_bytes(os.urandom(32))
    with pytest.raises(WrongMasterKey, match="nothing was restored"):
        run_restore(empty.settings(), kept)
    assert is_empty(empty)
    hand_over_master_key(company, empty)
    said(run_restore, empty.settings(), kept)


def test_a_master_key_that_is_missing_is_asked_for(kept: Path, empty: Installation) -> None:
    text = said(run_restore, empty.settings(), kept)
    for name in ("master.key", "signing.key"):
        assert f"{name} is not there: put that of the backup's time there" in text
    assert not empty.settings().master_key_file.exists()
    with pytest.raises(WrongMasterKey):
        Office(empty).register(1)


def test_a_folder_that_holds_something_is_left(company: Installation, kept: Path) -> None:
    before = {path.name: path.read_bytes() for path in kept.iterdir()}
    with pytest.raises(InTheWay, match="each backup goes into one of its own"):
        run_backup(company.settings(), kept)
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == before


def test_a_damaged_log_is_not_backed_up(company: Installation, tmp_path: Path) -> None:
    company.query("DELETE FROM log.events WHERE position = 40")
    with pytest.raises(LogDamaged, match="position 41 stands where 40 should"):
        run_backup(company.settings(), tmp_path / "backup")
    company.query("DELETE FROM log.events WHERE position >= 40")
    with pytest.raises(LogDamaged, match="it ends at position 39"):
        run_backup(company.settings(), tmp_path / "backup")
    assert not (tmp_path / "backup").exists()


# ---- killed ----


def crm(
    installation: Installation, *arguments: str, **settings: str
) -> subprocess.CompletedProcess[str]:
    others = {name: value for name, value in os.environ.items() if name[:4] != "CRM_"}
    ours = {"CRM_DATABASE_URL": installation.url, "CRM_DATA_DIR": str(installation.folder / "data")}
    return subprocess.run(
        [sys.executable, "-m", "workers.cli", *arguments],
        env=others | ours | settings,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("point", ["restore.copied", "restore.before_commit"])
def test_a_restore_that_was_killed_can_be_run_again(
    company: Installation, empty: Installation, kept: Path, point: str
) -> None:
    killed = crm(empty, "restore", str(kept), CRM_CRASHPOINT=point)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert is_empty(empty)
    done = crm(empty, "restore", str(kept))
    assert done.returncode == 0, done.stderr
    assert digest(empty, EVENTS) == digest(company, EVENTS)
    again = crm(empty, "restore", str(kept))
    assert again.returncode == 1
    assert again.stderr.startswith("crm: the database is not empty")
    assert again.stderr.count("\n") == 1


def test_a_backup_that_was_killed_is_none(company: Installation, tmp_path: Path) -> None:
    folder = tmp_path / "backup"
    killed = crm(company, "backup", str(folder), CRM_CRASHPOINT="backup.before_manifest")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not folder.exists()
    [left] = tmp_path.glob(".backup.new-*")
    with pytest.raises(NotWhole, match="holds no whole backup"):
        Backup(left)
    assert crm(company, "backup", str(folder)).returncode == 0
    assert crm(company, "restore", str(folder), "--check").returncode == 0


# ---- read models of before ----


def carry(installation: Installation, **settings: str) -> None:
    """The log into the read models."""
    with databases(installation.settings(**settings)) as addresses, read_side(addresses) as side:
        for one in PROJECTIONS.values():
            projector = Projector(one, side.feed(one), side.pool)
            while projector.step():
                pass
            projector.close()


def test_read_models_of_before_are_refused_until_they_are_rebuilt(
    company: Installation, empty: Installation, kept: Path
) -> None:
    carry(company)
    read = {"CRM_READ_DATABASE_URL": company.url}
    hand_over_master_key(company, empty)
    text = said(run_restore, empty.settings(**read), kept)
    for name in PROJECTIONS:
        assert f"If this log is the right one: crm rebuild {name}" in text
    with pytest.raises(OtherLog):
        carry(empty, **read)
    settings = empty.settings(**read)
    assert rebuild_models(settings, list(PROJECTIONS), How(), lambda _: None) == 0
    carry(empty, **read)
    text = said(run_adopt, empty.settings(**read))
    assert text.count("was filled from another log") == len(PROJECTIONS)


# ---- other ways, other versions ----


def test_a_log_that_was_brought_back_otherwise_gets_another_epoch(company: Installation) -> None:
    carry(company)
    before = epoch(company)
    text = said(run_adopt, company.settings())
    assert epoch(company) != before
    assert str(epoch(company)) in text
    assert text.count("was filled from another log") == len(PROJECTIONS)
    with pytest.raises(OtherLog):
        carry(company)


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM log.events WHERE position = 40",
        "UPDATE log.head SET position = position + 1",
        "UPDATE log.events SET version = 77 WHERE position = 40",
        "UPDATE log.head SET recorded_at = 'epoch'",
    ],
)
def test_a_damaged_log_is_not_adopted(company: Installation, damage: str) -> None:
    company.query(damage)
    before = epoch(company)
    with pytest.raises(LogDamaged):
        run_adopt(company.settings())
    assert epoch(company) == before


def test_a_backup_of_an_earlier_version_is_brought_up_to_date(
    new_database: Callable[[], str], empty: Installation, tmp_path: Path
) -> None:
    """Its rows go through the migrations that came since."""
    url, folder = new_database(), tmp_path / "backup"
    folder.mkdir()
    through = {"log": 4, "vault": 1}
    migrate(url, LOG_SCHEMAS, through=through)
    long_log.fill(url, 200)
    with closing(connect(url)) as connection:
        manifest = write(connection, folder, tmp_path / "none")
    assert "log.policy_state" not in manifest.tables
    assert numbers(manifest) == through
    said(run_restore, empty.settings(), folder)
    assert len(empty.events("")) == manifest.position
    [(number,)] = empty.query("SELECT max(number) FROM log.migration")
    assert number == len(migrations("log"))


def test_what_another_program_has_written_is_refused(kept: Path, empty: Installation) -> None:
    manifest = json.loads((kept / "manifest.json").read_text())
    [*_, last] = manifest["migrations"]["log"]
    for changed, says in (
        ({**last, "number": last["number"] + 1}, "by a later version"),
        ({**last, "checksum": "0" * 64}, "by another program"),
    ):
        listed = manifest["migrations"] | {"log": [*manifest["migrations"]["log"][:-1], changed]}
        (kept / "manifest.json").write_text(json.dumps(manifest | {"migrations": listed}))
        with pytest.raises(OtherSchema, match=says):
            run_restore(empty.settings(), kept)
    assert empty.query("SELECT to_regclass('log.events')") == [(None,)]


def test_a_database_that_is_further_than_the_backup_is_refused(
    kept: Path, installation: Installation, new_installation: NewInstallation
) -> None:
    manifest = json.loads((kept / "manifest.json").read_text())
    manifest["migrations"]["log"].pop()
    (kept / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(OtherSchema, match="DROP SCHEMA log CASCADE"):
        run_restore(new_installation().settings(), kept)


# ---- rights, and the ledger of erasures ----


def test_the_role_of_backups_reads_all_of_it_and_changes_nothing(
    installation: Installation, tmp_path: Path
) -> None:
    with closing(connect(installation.url, role="crm_backup", autocommit=True)) as connection:
        for name in tables(installation):
            with connection.cursor() as cursor:
                cursor.execute(f"SELECT count(*) FROM {name}")
                for statement in (f"DELETE FROM {name}", f"TRUNCATE {name}"):
                    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                        cursor.execute(statement)


def test_erased_stays_erased(company: Installation, empty: Installation, tmp_path: Path) -> None:
    """The ledger that lies there knows of an erasure of after the backup."""
    theirs, ours = (one.settings().data_dir / "erasures.ndjson" for one in (company, empty))
    theirs.write_text('{"subject": 1}\n{"subject": 2}\n{"sub')  # the last is being written
    ours.parent.mkdir()
    ours.write_text('{"subject": 1}\n{"subject": 3}\n')
    folder = backup_of(company, tmp_path / "backup")
    assert (folder / "erasures.ndjson").read_text() == '{"subject": 1}\n{"subject": 2}\n'
    said(run_restore, empty.settings(), folder)
    assert ours.read_text() == '{"subject": 1}\n{"subject": 3}\n{"subject": 2}\n'


def test_a_ledger_that_is_not_there_is_made_for_its_owner_alone(
    company: Installation, empty: Installation, tmp_path: Path
) -> None:
    theirs, ours = (one.settings().data_dir / "erasures.ndjson" for one in (company, empty))
    theirs.write_text('{"subject": 1}\n')
    said(run_restore, empty.settings(), backup_of(company, tmp_path / "backup"))
    assert ours.read_bytes() == theirs.read_bytes()
    assert ours.stat().st_mode & 0o077 == 0


# ---- a vault of its own ----


@pytest.fixture
def apart(
    installation: Installation, new_database: Callable[[], str], tmp_path: Path
) -> tuple[Path, list[str]]:
    """A backup of a log and a vault in two databases, and two empty databases to restore to."""
    Office(installation).register(5)
    folder = tmp_path / "apart"
    folder.mkdir()
    vault = new_database()
    migrate(vault, {"vault": "vault"})
    keys = installation.query("SELECT subject, encode(wrapped, 'hex'), created_at FROM vault.keys")
    with closing(connect(vault)) as elsewhere, elsewhere, elsewhere.cursor() as cursor:
        for key in keys:
            cursor.execute("INSERT INTO vault.keys VALUES (%s, decode(%s, 'hex'), %s)", key)
    installation.query("TRUNCATE vault.keys")
    with (
        closing(connect(installation.url, role="crm_backup")) as connection,
        closing(connect(vault, role="crm_backup")) as elsewhere,
    ):
        write(connection, folder, tmp_path / "none", vault=elsewhere)
    urls = [new_database(), new_database()]
    for url, schema in zip(urls, SCHEMAS, strict=True):
        migrate(url, {schema: schema})
    return folder, urls


def restore_apart(folder: Path, urls: list[str], master_key: bytes) -> int:
    log, vault = (connect(url) for url in urls)
    with closing(log), closing(vault):
        return restore(
            log,
            Backup(folder),
            folder.parent / "none",
            fits=lambda subject, wrapped: (
                MasterKey(master_key).unwrap(subject, wrapped) is not None
            ),
            vault=vault,
        ).keys


def test_a_vault_of_its_own_comes_along(
    apart: tuple[Path, list[str]], installation: Installation
) -> None:
    folder, urls = apart
    key = installation.settings().master_key_file.read_bytes()
    assert restore_apart(folder, urls, key) == 5


def test_a_vault_that_was_not_lost_is_kept(
    apart: tuple[Path, list[str]], installation: Installation
) -> None:
    """Also what a restore leaves that is killed between the two commits."""
    folder, urls = apart
    key = installation.settings().master_key_file.read_bytes()
    restore_apart(folder, urls, key)
    with closing(connect(urls[0])) as log, log, log.cursor() as cursor:
        cursor.execute("TRUNCATE log.events, log.receipts")
    with closing(connect(urls[1])) as vault, vault, vault.cursor() as cursor:
        cursor.execute(f"UPDATE vault.keys SET wrapped = NULL, destroyed_at = now() WHERE {FIRST}")
    assert restore_apart(folder, urls, key) == 4


def test_a_vault_of_another_log_is_refused(
    apart: tuple[Path, list[str]], installation: Installation
) -> None:
    folder, urls = apart
    with closing(connect(urls[1])) as vault, vault, vault.cursor() as cursor:
        cursor.execute("INSERT INTO vault.keys VALUES (gen_random_uuid(), 'x')")
    with pytest.raises(NotEmpty, match="not those of 5 persons"):
        restore_apart(folder, urls, installation.settings().master_key_file.read_bytes())
