"""What ``crm doctor`` says where several processes share a database and a Kafka."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from infra.kafka import KafkaUnavailable, ensure_topic
from infra.migrations import migrate
from infra.postgres import Pool
from infra.settings import Settings, load
from infra.vault import open_vault
from projections.catalogue import PROJECTIONS
from tests.integration.workers.conftest import Installation
from workers import carriage
from workers.doctor import examine

pytestmark = pytest.mark.database

PARTITIONS = 3
NOWHERE = "127.0.0.1:1"
READ_MODELS = [f"read model {name}" for name in PROJECTIONS]


def said(settings: Settings) -> dict[str, tuple[bool, str]]:
    """By subject, the first finding of each."""
    found: dict[str, tuple[bool, str]] = {}
    for one in examine(settings):
        found.setdefault(one.subject, (one.good, one.text))
    return found


def record(installation: Installation, topic: str = "crm.customer.registered") -> None:
    installation.query(
        "WITH head AS (UPDATE log.head SET position = position + 1, recorded_at = clock_timestamp()"
        " RETURNING position) INSERT INTO log.events (position, stream_id, version, topic,"
        " class_version, partition_key, occurred_at, recorded_at, actor, command_id,"
        " correlation_id, state)"
        f" SELECT position, '{uuid4()}', 1, '{topic}', 1, '{uuid4()}', now(), clock_timestamp(),"
        f" 'tester', '{uuid4()}', '{uuid4()}', '{{}}' FROM head"
    )


def minutes_pass(installation: Installation) -> None:
    installation.query("UPDATE log.events SET recorded_at = recorded_at - interval '5 minutes'")


def wrap_a_key(installation: Installation, key_file: Path) -> None:
    with Pool(installation.url, size=1, search_path=["vault"], autocommit=True) as pool:
        open_vault(pool, key_file).prepare([uuid4()])


@pytest.fixture
def broken(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """With a Kafka that is not there."""

    def refuse(settings: Settings) -> None:
        raise KafkaUnavailable(f"{settings.kafka_bootstrap}: refused")

    monkeypatch.setattr(carriage, "Topic", refuse)
    return installation.settings(CRM_KAFKA_BOOTSTRAP=NOWHERE, CRM_PARTITIONS=str(PARTITIONS))


class TestMasterKey:
    def test_a_process_without_the_master_key_is_told_of(
        self, installation: Installation, tmp_path: Path
    ) -> None:
        settings = installation.settings()
        assert said(settings)["keys of personal data"] == (True, "none yet")
        wrap_a_key(installation, tmp_path / "first.key")
        good, text = said(settings)["keys of personal data"]
        assert not good
        assert f"{settings.master_key_file} is not there" in text
        assert not settings.master_key_file.exists()
        settings.master_key_file.parent.mkdir(parents=True)
        settings.master_key_file.write_bytes(b"o" * 32)
        good, text = said(settings)["keys of personal data"]
        assert not good
        assert "CRM_MASTER_KEY_FILE" in text
        settings.master_key_file.write_bytes((tmp_path / "first.key").read_bytes())
        assert said(settings)["keys of personal data"][0]

    def test_keys_of_two_master_keys_are_told_of(
        self, installation: Installation, tmp_path: Path
    ) -> None:
        wrap_a_key(installation, tmp_path / "other.key")
        installation.query("ALTER TABLE vault.keys RENAME TO others")
        installation.query("CREATE TABLE vault.keys (LIKE vault.others INCLUDING ALL)")
        installation.query("GRANT SELECT ON vault.keys TO crm_vault")
        installation.query("DELETE FROM vault.master")
        settings = installation.settings(CRM_MASTER_KEY_FILE=str(tmp_path / "first.key"))
        wrap_a_key(installation, settings.master_key_file)
        installation.query(
            "INSERT INTO vault.keys SELECT subject, wrapped, now() FROM vault.others"
        )
        good, text = said(settings)["keys of personal data"]
        assert not good
        assert text.startswith("1 of 2 were wrapped with another master key")

    def test_an_api_with_another_one_ends_and_makes_none(
        self, installation: Installation, tmp_path: Path
    ) -> None:
        wrap_a_key(installation, tmp_path / "first.key")
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CRM_")}
        data = tmp_path / "second"
        settings = {"CRM_DATABASE_URL": installation.url, "CRM_DATA_DIR": str(data)}
        done = subprocess.run(
            [sys.executable, "-m", "workers.cli", "api"],
            cwd=Path(__file__).parents[3],
            env={**kept, **settings, "CRM_PORT": "0"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 1, done.stderr
        assert f"crm: {data / 'master.key'} is not there" in done.stderr
        assert "Traceback" not in done.stderr
        assert not (data / "master.key").exists()


class TestKafka:
    def test_an_empty_log_without_a_relay(
        self, installation: Installation, broken: Settings
    ) -> None:
        found = said(broken)
        assert found["relay"] == (False, "no relay publishes: start crm relay")
        assert found["outbox"] == (True, "every event is published")
        good, text = found["kafka"]
        assert not good
        assert text.endswith(f"{NOWHERE}: refused")
        for subject in READ_MODELS:
            good, text = found[subject]
            assert good
            assert "crm project" in text

    def test_events_that_nobody_carries_on(
        self, installation: Installation, broken: Settings
    ) -> None:
        record(installation)
        found = said(broken)
        assert found["outbox"][0]
        assert found["read model customers"][0]
        minutes_pass(installation)
        found = said(broken)
        good, text = found["outbox"]
        assert not good
        assert text == "1 events wait to be published, the oldest for 5 min: start crm relay"
        good, text = found["read model customers"]
        assert not good
        assert text.endswith("waited for 5 min: start crm project customers")

    def test_the_lease_counts_by_the_databases_clock(
        self, installation: Installation, broken: Settings
    ) -> None:
        lease = "UPDATE log.relay SET holder = 'b-1', expires_at = now() + interval '%s minutes'"
        installation.query(lease % 5)
        assert said(broken)["relay"] == (True, "b-1 publishes")
        record(installation)
        minutes_pass(installation)
        assert said(broken)["outbox"][1].endswith("see the log of crm relay")
        installation.query(lease % -5)
        good, text = said(broken)["relay"]
        assert not good
        assert text.endswith("start crm relay; the last one's lease ended 5 min ago")

    def test_a_broker_that_answers_nothing_is_not_waited_for(
        self, broken: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        waits = threading.Event()

        class Stuck:
            def __init__(self, settings: Settings) -> None:
                waits.wait()
                raise RuntimeError

        monkeypatch.setattr(carriage, "Topic", Stuck)
        monkeypatch.setattr(carriage, "PATIENCE", 0.05)
        good, text = said(broken)["kafka"]
        waits.set()
        assert not good
        assert "no answer within" in text

    def test_the_topic(self, installation: Installation, broker: Any, topic: str) -> None:
        names = {"CRM_KAFKA_BOOTSTRAP": broker.bootstrap, "CRM_KAFKA_TOPIC": topic}
        settings = installation.settings(**names, CRM_PARTITIONS=str(PARTITIONS))
        found = said(settings)
        assert found["kafka"] == (True, broker.bootstrap)
        assert found["topic"] == (True, f"{topic} is not there yet; crm relay makes it")
        installation.query(f"UPDATE log.relay SET topic = '{topic}'")
        assert not said(settings)["topic"][0]
        ensure_topic(settings)
        assert said(settings)["topic"] == (True, f"{topic}, 3 partitions")
        good, text = said(installation.settings(**names, CRM_PARTITIONS="5"))["topic"]
        assert not good
        assert "has 3 partitions, CRM_PARTITIONS is 5: set CRM_PARTITIONS to 3" in text


class TestReadModels:
    @pytest.fixture
    def stands(self, installation: Installation) -> Callable[[int], None]:
        """Has a read model without events stand at a position, in all partitions."""

        def stand(position: int) -> None:
            id_ = PROJECTIONS["customers"].id
            installation.query(f"DELETE FROM read.position WHERE projection = '{id_}'")
            installation.query(
                "INSERT INTO read.position (projection, partition, position)"
                f" SELECT '{id_}', n, {position} FROM generate_series(0, {PARTITIONS - 1}) AS n"
            )

        return stand

    def test_an_event_that_is_not_taken_in_for_long(
        self,
        installation: Installation,
        broken: Settings,
        stands: Callable[[int], None],
    ) -> None:
        record(installation)
        stands(0)
        assert said(broken)["read model customers"][0]
        minutes_pass(installation)
        good, text = said(broken)["read model customers"]
        assert not good
        assert text == (
            "1 positions behind, the oldest event has waited for 5 min:"
            " see the log of crm project customers, or start it"
        )
        alone = installation.settings(CRM_PARTITIONS=str(PARTITIONS))
        good, text = said(alone)["read model customers"]
        assert not good
        assert text.endswith("run crm up, or crm project customers")

    def test_partitions_without_events_of_their_own_may_lie_behind(
        self,
        installation: Installation,
        broken: Settings,
        stands: Callable[[int], None],
    ) -> None:
        record(installation, "crm.nothing.of-interest")
        minutes_pass(installation)
        stands(0)
        assert said(broken)["read model customers"] == (True, "1 positions behind")

    def test_another_number_of_partitions(
        self,
        installation: Installation,
        broken: Settings,
        stands: Callable[[int], None],
    ) -> None:
        stands(0)
        other = broken.model_copy(update={"partitions": 5})
        good, text = said(other)["read model customers"]
        assert not good
        assert "has 3 partitions, CRM_PARTITIONS is 5" in text
        assert "crm project customers" in text


class TestFiles:
    def test_what_was_not_applied(self, new_database: Callable[[], str], tmp_path: Path) -> None:
        url = new_database()
        settings = load({"CRM_DATABASE_URL": url, "CRM_DATA_DIR": str(tmp_path)})
        last = list(examine(settings))[-1]
        assert not last.good
        assert last.text.endswith("has not been applied yet; crm api or crm up applies it")
        migrate(url)
        assert said(settings)["schemas"][0]

    @pytest.mark.parametrize(
        ("mode", "ours", "good"),
        [
            (0o600, True, True),
            (0o400, True, True),
            (0o640, True, False),
            (0o440, True, False),
            (0o440, False, True),
            (0o460, False, False),
            (0o444, False, False),
        ],
    )
    def test_who_may_read_a_key(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        mode: int,
        ours: bool,
        good: bool,
    ) -> None:
        settings = load({"CRM_DATA_DIR": str(tmp_path)})
        settings.master_key_file.write_bytes(b"m" * 32)
        settings.master_key_file.chmod(mode)
        owner = settings.master_key_file.stat().st_uid
        monkeypatch.setattr("workers.doctor.os.geteuid", lambda: owner if ours else owner + 1)
        found = {one.subject: one.good for one in examine(settings)}
        assert found["master key"] is good
