"""Another master key: killed at any step, a rotation loses no key, and the next run ends it."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from domain.values import Personal
from infra import crashpoints
from infra.master_keys import MasterKey, former_of, new_of
from infra.postgres import Pool
from infra.rotation import rotate
from infra.vault import Vault, WrongMasterKey, open_vault

pytestmark = pytest.mark.database

PERSONS = 25
PLACE = f"{UUID(int=1)}:1"
POINTS = (
    "keys.made",
    "keys.in_force",
    "keys.batch:1",
    "keys.batch:2",
    "keys.wrapped",
    "keys.former",
    "keys.replaced",
)


class Keys:
    """A vault of one's own and the file of its master key."""

    def __init__(self, url: str, schema: str, path: Path) -> None:
        self._url, self._schema, self.path = url, schema, path
        self.pool = self.new_pool()
        self.tokens: dict[str, str] = {}
        self.running = open_vault(self.pool, path)
        self.add(self.running, PERSONS)
        self.first = path.read_bytes()

    def new_pool(self) -> Pool:
        return Pool(
            self._url, size=2, role="crm_vault", search_path=[self._schema], autocommit=True
        )

    def add(self, vault: Vault, count: int = 1) -> None:
        for number in range(count):
            subject = uuid4()
            vault.prepare([subject])
            text = f"person {number}"
            token = vault.seal(Personal(subject, text), event=PLACE, field="name")
            self.tokens[token] = text

    def rows(self, statement: str) -> list[Any]:
        with self.pool.connection() as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def all_open(self) -> None:
        """In a process that runs since before, which forgets nothing but keys, and in a new one."""
        self.running.forget_all()
        for vault in (self.running, open_vault(self.pool, self.path)):
            assert vault.open_tokens(self.tokens) == self.tokens
            self.add(vault)

    def killed_at(self, point: str) -> None:
        """A process that rotates and kills itself there."""

        def run() -> None:
            crashpoints.arm(point)
            with self.new_pool() as pool:
                rotate(pool, self.path)

        process = multiprocessing.get_context("fork").Process(target=run)
        process.start()
        process.join(120)
        assert process.exitcode == -signal.SIGKILL

    def ended(self) -> None:
        """All is under one new master key, and the first one opens nothing."""
        assert not new_of(self.path).exists()
        assert not former_of(self.path).exists()
        present, first = MasterKey(self.path.read_bytes()), MasterKey(self.first)
        assert present.fingerprint != first.fingerprint
        assert self.rows("SELECT fingerprint FROM master") == [(present.fingerprint,)]
        rows = self.rows("SELECT subject, wrapped, master FROM keys WHERE wrapped IS NOT NULL")
        assert len(rows) == len(self.tokens)
        for subject, wrapped, master in rows:
            assert master == present.fingerprint
            assert first.unwrap(subject, bytes(wrapped)) is None
            assert present.unwrap(subject, bytes(wrapped)) is not None


@pytest.fixture
def keys(
    database_url: str,
    fresh_schemas: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Keys]:
    monkeypatch.setattr("infra.rotation.BATCH", 10)
    keys = Keys(database_url, fresh_schemas["vault"], tmp_path / "master.key")
    yield keys
    keys.pool.close()


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_any_step_no_key_is_lost(keys: Keys, point: str) -> None:
    keys.all_open()
    keys.killed_at(point)
    keys.all_open()
    rotate(keys.pool, keys.path)
    keys.ended()
    keys.all_open()


def test_killed_again_and_again(keys: Keys) -> None:
    for point in ("keys.batch:1", "keys.in_force", "keys.batch:1", "keys.former", "keys.former"):
        keys.killed_at(point)
        keys.all_open()
    rotate(keys.pool, keys.path)
    keys.ended()


def test_beside_a_process_that_adds_keys(keys: Keys) -> None:
    stopped = threading.Event()
    errors: list[BaseException] = []

    def work() -> None:
        try:
            while not stopped.is_set():
                keys.add(keys.running)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        rotate(keys.pool, keys.path)
        rotate(keys.pool, keys.path)
    finally:
        stopped.set()
        thread.join()
    assert errors == []
    keys.ended()
    keys.all_open()


def test_a_destroyed_key_stays_so(keys: Keys) -> None:
    token, _ = keys.tokens.popitem()
    subject = Vault.unopened(token).subject
    keys.rows(f"UPDATE keys SET wrapped = NULL, destroyed_at = now() WHERE subject = '{subject}'")
    rotate(keys.pool, keys.path)
    keys.ended()
    assert open_vault(keys.pool, keys.path).shown_tokens([token]) == {token: "[erased]"}


def test_keys_of_before_there_were_fingerprints(keys: Keys) -> None:
    keys.rows("UPDATE keys SET master = NULL")
    keys.all_open()
    rotate(keys.pool, keys.path)
    keys.ended()


def test_a_backup_of_before_needs_the_former_key(
    keys: Keys, database_url: str, fresh_schemas: dict[str, str]
) -> None:
    schema = fresh_schemas["vault"]
    with Pool(database_url, size=1, search_path=[schema], autocommit=True) as owner:

        def run(*statements: str) -> None:
            with owner.connection() as connection, connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)

        run("CREATE TABLE backup AS TABLE keys", "CREATE TABLE backup_master AS TABLE master")
        restore = (
            "TRUNCATE keys, master",
            "INSERT INTO keys TABLE backup",
            "INSERT INTO master TABLE backup_master",
        )
        rotate(keys.pool, keys.path, keep_former=True)
        assert former_of(keys.path).read_bytes() == keys.first
        run(*restore)
        assert open_vault(keys.pool, keys.path).open_tokens(keys.tokens) == keys.tokens
        rotate(keys.pool, keys.path)  # ends it: the restored keys are wrapped anew first
        keys.ended()
        run(*restore)
        with pytest.raises(WrongMasterKey):
            open_vault(keys.pool, keys.path)


def test_a_master_key_of_another_vault_changes_nothing(keys: Keys, tmp_path: Path) -> None:
    other = tmp_path / "other.key"
    other.write_bytes(b"o" * 32)
    before = keys.rows("SELECT * FROM keys ORDER BY subject")
    with pytest.raises(WrongMasterKey, match="is not the master key in force"):
        rotate(keys.pool, other)
    assert keys.rows("SELECT * FROM keys ORDER BY subject") == before
    assert not new_of(other).exists()
    keys.all_open()
