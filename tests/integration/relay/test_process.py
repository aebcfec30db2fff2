"""``crm relay`` as a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from infra.migrations import LOG_SCHEMAS, READ_SCHEMAS, migrate
from tests.integration.relay.ground import PARTITIONS, Ground
from tests.integration.relay.ground import ground as on_ground
from workers.relay import set_cursor
from workers.resuming import NoSuchPosition, OtherPartitions

CRM = [str(Path(sys.executable).parent / "crm")]
PATIENCE = 60.0


@pytest.fixture
def distributed(new_database: Callable[[], str], broker: Any, topic: str) -> Iterator[Ground]:
    """A database of one's own, with the schemas' real names."""
    url = new_database()
    migrate(url, {**LOG_SCHEMAS, **READ_SCHEMAS})
    with on_ground(url, "log", broker.bootstrap, topic) as ground:
        yield ground


def environment(ground: Ground, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CRM_")}
    return {
        **kept,
        "CRM_DATABASE_URL": ground.url,
        "CRM_KAFKA_BOOTSTRAP": str(ground.settings.kafka_bootstrap),
        "CRM_KAFKA_TOPIC": ground.settings.kafka_topic,
        "CRM_PARTITIONS": str(PARTITIONS),
        **more,
    }


def crm(ground: Ground, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*CRM, *arguments],
        env=environment(ground, **more),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def carried(ground: Ground, relay: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE
    while (cursor := ground.cursor()) is None or cursor.position < ground.end():
        assert relay.poll() is None, "it ended"
        assert time.monotonic() < deadline, f"carried up to {cursor}"
        time.sleep(0.02)


def test_it_carries_until_it_is_told_to_stop_and_then_gives_the_lease_up(distributed: Ground):
    ground = distributed
    ground.append(0, 1, 2)
    with subprocess.Popen([*CRM, "relay"], env=environment(ground)) as relay:
        carried(ground, relay)
        ground.append(0, 0, 1)
        carried(ground, relay)
        relay.send_signal(signal.SIGTERM)
        assert relay.wait(PATIENCE) == 0
    assert ground.sql("SELECT expires_at <= clock_timestamp() FROM relay") == [(True,)]
    cursor, state = ground.cursor(), ground.state()
    assert cursor is not None
    assert state is not None
    assert cursor.offsets == state.ends
    assert ground.applied() == ground.in_log()


@pytest.mark.slow
def test_wherever_it_is_killed_every_event_is_applied_once(distributed: Ground):
    ground = distributed
    for point in ("relay.after_fetch", "relay.after_send:2", "relay.after_ack:2"):
        ground.append(0, 1, 0)
        with subprocess.Popen(
            [*CRM, "relay"], env=environment(ground, CRM_CRASHPOINT=point)
        ) as relay:
            deadline = time.monotonic() + PATIENCE
            while relay.poll() is None:
                assert time.monotonic() < deadline
                ground.append(2, 0)
                time.sleep(0.1)
        assert relay.returncode == -signal.SIGKILL
        ground.holder_died()
    ground.carry(ground.relay())
    assert ground.applied() == ground.in_log()


@pytest.mark.slow
def test_the_cursor_is_set_by_command(distributed: Ground):
    ground = distributed
    ground.append(0, 1, 0, 2)
    relay = ground.relay()
    ground.carry(relay)
    relay.close()

    done = crm(ground, "relay", "--from", "3")
    assert done.returncode == 0, done.stderr
    assert "after position 3 of 4" in done.stdout
    cursor = ground.cursor()
    assert cursor is not None
    assert (cursor.position, cursor.previous) == (3, [3, 2, 0])
    assert crm(ground, "relay", "--from", "5").returncode == 2

    ground.sql("DELETE FROM events WHERE position > 1")
    ground.sql("UPDATE head SET position = 1")
    refused = crm(ground, "relay")
    assert refused.returncode == 1
    assert "crm relay --from" in refused.stderr
    done = crm(ground, "relay", "--from", "0")
    assert done.returncode == 0, done.stderr
    assert "new identity" in done.stdout
    assert str(ground.sql("SELECT store_epoch FROM head")[0][0]) in done.stdout


def test_a_cursor_that_is_refused_leaves_the_lease_with_its_holder(distributed: Ground):
    ground = distributed
    ground.append(0, 1)
    holder = ground.outbox()
    ground.carry(ground.relay(outbox=holder))
    here = ground.settings.model_copy(update={"database_url": SecretStr(ground.url)})

    with pytest.raises(NoSuchPosition):
        set_cursor(here, 3)
    with pytest.raises(OtherPartitions):
        set_cursor(here.model_copy(update={"partitions": 4}), 0)
    holder.renew()  # would raise LeaseLost
    assert holder.epoch is not None


def test_without_kafka_it_says_what_is_missing(distributed: Ground):
    done = crm(distributed, "relay", CRM_KAFKA_BOOTSTRAP="")
    assert done.returncode == 2
    assert "CRM_KAFKA_BOOTSTRAP" in done.stderr
