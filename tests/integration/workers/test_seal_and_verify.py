"""``crm seal`` and ``crm verify`` on an installation: what they say, and their exit codes."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from kafka import KafkaConsumer, TopicPartition

from infra.commands import LoopCRM
from infra.contract.asyncapi import asyncapi
from infra.proof.leaves import SELECT_COLUMNS, Row, json_of_row
from infra.proof.notes import SigningKey, origin_of, parse
from infra.proof.sealing import SealRefused
from infra.proof.sources import UnreadableExport
from tests.conftest import OutsideBroker
from tests.integration.workers.conftest import Installation
from tests.integration.workers.test_doctor import record
from workers.sealer import rotate_key
from workers.sealer import seal as run_seal
from workers.verifying import Asked, CannotVerify, run_verify
from workers.wiring import now

pytestmark = pytest.mark.database

ROOT = Path(__file__).parents[3]


@pytest.fixture
def installation(new_installation: Callable[[], Installation]) -> Installation:
    return new_installation()


def crm(installation: Installation, *words: str, **settings: str) -> tuple[int, str, str]:
    environment = {
        "PATH": "/usr/bin:/bin",
        "CRM_DATABASE_URL": installation.url,
        "CRM_DATA_DIR": str(installation.folder / "data"),
        **settings,
    }
    command = [sys.executable, "-m", "workers.cli", *words]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def verified(installation: Installation, asked: Asked | None = None) -> tuple[int, list[str]]:
    said: list[str] = []
    code = run_verify(installation.settings(), asked or Asked(), said.append)
    return code, said


def seal(installation: Installation, **settings: str) -> tuple[int, str]:
    said: list[str] = []
    code = run_seal(installation.settings(**settings), once=True, told=said.append)
    return code, "".join(f"{line}\n" for line in said)


def vkey(installation: Installation) -> str:
    ((log_id,),) = installation.query("SELECT log_id FROM log.seal")
    seed = (installation.folder / "data" / "seal.key").read_bytes()
    return str(SigningKey(origin_of(log_id), seed).verifying)


def exported(installation: Installation) -> Path:
    rows = installation.query(f"SELECT {SELECT_COLUMNS} FROM log.events ORDER BY position")
    path = installation.folder / "log.ndjson"
    lines = [orjson.dumps(json_of_row(Row(*row[:-1], bytes(row[-1])))) for row in rows]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def test_from_an_empty_log_to_a_rotated_key(installation: Installation) -> None:
    data = installation.folder / "data"
    assert seal(installation) == (0, "the log is empty: there is nothing to seal\n")
    assert verified(installation) == (0, ["ok     the log is empty: there is nothing to prove"])
    for _ in range(3):
        record(installation)
    code, said = verified(installation)
    assert (code, said[0][:5]) == (1, "WRONG")
    code, out = seal(installation)
    assert code == 0
    assert parse(out).checkpoint.size == 3
    folder = data / "checkpoints"
    assert (folder / "latest").read_text() == (folder / "3").read_text() == out
    assert (data / "seal.key").stat().st_mode & 0o777 == 0o600

    record(installation)
    code, said = verified(installation)
    assert code == 0
    assert said == [
        "ok     3 events are what was signed (2 checkpoints); 1 after them are not sealed yet"
    ]
    old = vkey(installation)
    out_lines: list[str] = []
    assert rotate_key(installation.settings(), out_lines.append) == 0
    assert vkey(installation) in out_lines
    assert vkey(installation) != old
    seal(installation)
    for keys in ([], [old], [vkey(installation)]):
        assert verified(installation, Asked([folder / "3"], keys))[0] == 0


def test_the_command_tells_by_its_exit_code(installation: Installation) -> None:
    for _ in range(5):
        record(installation)
    assert crm(installation, "seal", "--once")[0] == 0
    code, out, _ = crm(installation, "verify")
    assert (code, out) == (0, "ok     5 events are what was signed (2 checkpoints)\n")
    installation.query("UPDATE log.events SET actor = 'x' WHERE position = 4")
    code, out, _ = crm(installation, "verify")
    assert (code, out.splitlines()[0]) == (1, "WRONG  position 4: changed")
    code, _, error = crm(installation, "verify", "--checkpoint", "nowhere")
    assert (code, error.startswith("crm: nowhere cannot be read")) == (2, True)
    installation.query("DELETE FROM log.tile")
    code, _, error = crm(installation, "seal", "--once")
    assert (code, error.splitlines()[-1][:26]) == (1, "crm: the tree was changed:")
    assert crm(installation, "seal", "--once", "--rotate-key")[0] == 2


def test_what_the_database_hides_an_export_shows(installation: Installation) -> None:
    for _ in range(5):
        record(installation)
    seal(installation)
    saved = installation.folder / "data" / "checkpoints" / "5"
    installation.query("UPDATE log.events SET actor = 'x' WHERE position = 4")
    code, said = verified(installation, Asked([saved], export=exported(installation)))
    assert code == 1
    assert "a position from 1 to 5" in said[0]


def test_an_export_is_verified_without_the_database(installation: Installation) -> None:
    for _ in range(4):
        record(installation)
    seal(installation)
    asked = Asked(
        [installation.folder / "data" / "checkpoints" / "4"],
        [vkey(installation)],
        exported(installation),
    )
    nowhere = installation.settings(
        CRM_DATABASE_URL="postgresql://127.0.0.1:1/x", CRM_DATA_DIR=str(installation.folder / "no")
    )
    said: list[str] = []
    assert run_verify(nowhere, asked, said.append) == 0
    assert said == ["ok     4 events are what was signed (1 checkpoints)"]
    assert asked.export is not None
    lines = asked.export.read_bytes().splitlines()
    asked.export.write_bytes(b"\n".join(lines[:3]))
    said.clear()
    assert run_verify(nowhere, asked, said.append) == 1
    assert said[0].startswith("WRONG  position 4: missing")


def as_texts(row: Row) -> dict[str, Any]:
    """As the NDJSON has it."""
    return json_of_row(row)


def as_types(row: Row) -> dict[str, Any]:
    """As a program writes it that has types for all of it: bytes, timestamps, ids of 16 bytes."""
    values = {name: getattr(row, name) for name in json_of_row(row)}
    return {
        name: value.bytes if isinstance(value, UUID) else value for name, value in values.items()
    }


@pytest.mark.parametrize("form", [as_texts, as_types])
def test_an_export_may_be_parquet(
    installation: Installation, form: Callable[[Row], dict[str, Any]]
) -> None:
    for _ in range(4):
        record(installation)
    seal(installation)
    found = installation.query(f"SELECT {SELECT_COLUMNS} FROM log.events ORDER BY position")
    rows = [form(Row(*row[:-1], bytes(row[-1]))) for row in found]
    export = installation.folder / "log.parquet"
    asked = Asked(
        [installation.folder / "data" / "checkpoints" / "4"], [vkey(installation)], export
    )
    said: list[str] = []

    def told() -> int:
        said.clear()
        return run_verify(installation.settings(), asked, said.append)

    pq.write_table(pa.Table.from_pylist(rows), export)
    assert told() == 0, said
    assert said == ["ok     4 events are what was signed (1 checkpoints)"]
    rows[2]["actor"] = "another"
    pq.write_table(pa.Table.from_pylist(rows), export)
    assert told() == 1
    assert said[0].startswith("WRONG  ")
    del rows[2]["actor"]
    pq.write_table(pa.Table.from_pylist(rows), export)
    with pytest.raises(UnreadableExport, match=r"event 3: .*actor"):
        told()
    export.write_bytes(b"not Parquet")
    with pytest.raises(UnreadableExport, match="no Parquet file"):
        told()


def test_checkpoints_that_are_not_to_be_trusted(installation: Installation) -> None:
    record(installation)
    seal(installation)
    good = (installation.folder / "data" / "checkpoints" / "1").read_text()
    file = installation.folder / "checkpoint"
    strange = str(SigningKey(parse(good).checkpoint.origin, b"s" * 32).verifying)

    file.write_text(good.replace("\n1\n", "\n2\n"))
    code, said = verified(installation, Asked([file]))
    assert (code, "is wrong" in said[0]) == (1, True)
    file.write_text(re.sub("crm-ledger/[0-9a-f]", "crm-ledger/x", good))
    code, said = verified(installation, Asked([file]))
    assert (code, "of another log" in said[0]) == (1, True)
    file.write_text(good)
    code, said = verified(installation, Asked([file], [strange]))
    assert (code, "no key that is trusted" in said[0]) == (1, True)


@pytest.mark.parametrize(
    ("checkpoint", "key", "export"),
    [
        ("nowhere", None, None),
        ("pyproject.toml", None, None),
        (None, "x", None),
        (None, None, "pyproject.toml"),
        ("GOOD", None, "nowhere"),
        ("GOOD", None, "pyproject.toml"),
    ],
)
def test_what_cannot_be_verified_is_told(
    installation: Installation, checkpoint: str | None, key: str | None, export: str | None
) -> None:
    record(installation)
    seal(installation)
    good = installation.folder / "data" / "checkpoints" / "1"
    files = [] if checkpoint is None else [good if checkpoint == "GOOD" else ROOT / checkpoint]
    asked = Asked(files, [] if key is None else [key], None if export is None else ROOT / export)
    with pytest.raises((CannotVerify, UnreadableExport)):
        verified(installation, asked)


def test_without_any_key_nothing_is_verified(installation: Installation) -> None:
    record(installation)
    with pytest.raises(CannotVerify, match="no key to trust"):
        verified(installation)


def test_before_the_first_checkpoint_no_key_hands_over(installation: Installation) -> None:
    with pytest.raises(SealRefused, match="nothing is sealed yet"):
        rotate_key(installation.settings(), lambda _: None)


def test_snapshots_are_held_against_the_events(installation: Installation) -> None:
    installation.demo()
    seal(installation)
    assert verified(installation)[0] == 0
    ((stream,),) = installation.query(
        "SELECT stream_id FROM log.events WHERE topic LIKE 'crm.customer.%'"
        " GROUP BY stream_id HAVING count(*) > 3 LIMIT 1"
    )
    version = _snapshot(installation, stream)
    assert verified(installation)[0] == 0
    installation.query(
        "UPDATE log.snapshots SET state = convert_to(jsonb_set(convert_from(state, 'UTF8')::jsonb,"
        " '{last_occurred_on}', '\"2001-01-01T00:00:00Z\"')::text, 'UTF8')"
    )
    code, said = verified(installation)
    assert code == 1
    assert said[0] == (
        f"WRONG  snapshot {stream} version {version}:"
        " it differs from its events in last_occurred_on"
    )
    installation.query("UPDATE log.snapshots SET version = 100000")
    assert "has no such version" in verified(installation)[1][0]


def _snapshot(installation: Installation, stream: UUID) -> int:
    """As the product takes it, of what it has loaded; gives the version it is of."""
    crm = LoopCRM(
        {
            "PERSISTENCE_MODULE": "infra.eventstore.factory",
            "IS_SNAPSHOTTING_ENABLED": "yes",
            "LOG_DATABASE_URL": installation.url,
            "MASTER_KEY_FILE": str(installation.settings().master_key_file),
        },
        clock=now,
        timezone=ZoneInfo("UTC"),
    )
    aggregate = crm.repository.load(stream)
    assert aggregate is not None
    assert crm.snapshots is not None
    crm.snapshots.put([type(aggregate).Snapshot.take(aggregate)])
    crm.close()
    return int(aggregate.version)


def test_checkpoints_go_to_kafka(
    installation: Installation, broker: OutsideBroker, topic: str
) -> None:
    record(installation)
    kafka = {"CRM_KAFKA_BOOTSTRAP": broker.bootstrap, "CRM_KAFKA_TOPIC": topic}
    code, out = seal(installation, **kafka)
    assert code == 0
    consumer = KafkaConsumer(bootstrap_servers=broker.bootstrap, auto_offset_reset="earliest")
    consumer.assign([TopicPartition(f"{topic}.checkpoints", 0)])
    records: list[Any] = []
    while not records:
        records += [one for found in consumer.poll(1000).values() for one in found]
    consumer.close()
    (sent,) = records
    assert sent.value == out.encode()
    message = asyncapi()["components"]["messages"]["checkpoint"]
    assert sent.key.decode() == out.partition("\n")[0]
    assert dict(sent.headers) == {"content-type": message["contentType"].encode()}


def test_without_kafka_it_is_published_in_the_folder_all_the_same(
    installation: Installation,
) -> None:
    record(installation)
    code, out, _ = crm(installation, "seal", "--once", CRM_KAFKA_BOOTSTRAP="127.0.0.1:1")
    assert code == 1
    assert (installation.folder / "data" / "checkpoints" / "latest").read_text() == out
