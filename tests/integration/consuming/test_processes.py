"""``crm project`` as it is run: processes, their signals, their ends and their metrics."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from infra.migrations import migrate
from infra.postgres import Pool, connect
from infra.settings import Settings
from projections.catalogue import PROJECTIONS
from tests.integration.consuming.conftest import PARTITIONS, Relay, told
from tests.integration.projections.logged import write_log
from tests.integration.projections.story import Story

pytestmark = pytest.mark.database

Run = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def url(new_database: Callable[[], str]) -> str:
    url = new_database()
    migrate(url, member="crm")
    return url


@pytest.fixture
def story(url: str) -> Story:
    """A story that the log holds."""
    story = told(41, 90)
    with Pool(url, size=1) as pool:
        write_log(pool, "log", story)
    return story


@pytest.fixture
def project(url: str, settings: Settings, tmp_path: Any) -> Iterator[Run]:
    """Starts `crm project` with these arguments."""
    running: list[subprocess.Popen[str]] = []

    def start(*arguments: str, kafka: bool = True, **more: str) -> subprocess.Popen[str]:
        environment = {name: value for name, value in os.environ.items() if name[:4] != "CRM_"}
        environment |= {
            "CRM_DATA_DIR": str(tmp_path),
            "CRM_DATABASE_URL": url,
            "CRM_PARTITIONS": str(PARTITIONS),
            "CRM_LOG_FORMAT": "json",
            **more,
        }
        if kafka:
            environment["CRM_KAFKA_BOOTSTRAP"] = str(settings.kafka_bootstrap)
            environment["CRM_KAFKA_TOPIC"] = settings.kafka_topic
        running.append(
            subprocess.Popen(
                [sys.executable, "-m", "workers.cli", "project", *arguments],
                env=environment,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return running[-1]

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


def until(met: Callable[[], bool], what: str) -> None:
    """Waits for what other processes do."""
    end = time.monotonic() + 60
    while not met():
        if time.monotonic() > end:
            pytest.fail(f"{what}: not within a minute")
        time.sleep(0.05)


def positions(url: str) -> dict[tuple[str, int], int]:
    connection = connect(url, search_path=["read"])
    with connection.cursor() as cursor:
        cursor.execute("SELECT projection, partition, position FROM position")
        found = {(projection, partition): at for projection, partition, at in cursor.fetchall()}
    connection.close()
    return found


def complete(url: str, story: Story, *names: str) -> bool:
    ids = [PROJECTIONS[name].id for name in names]
    wanted = {(id_, p): len(story.events) for id_ in ids for p in range(PARTITIONS)}
    return positions(url) == wanted


def test_several_read_models_by_several_processes(
    url: str, story: Story, settings: Settings, project: Run
) -> None:
    relay = Relay(settings, story)
    process = project("funnel", "customers", "--workers", "2")
    relay.send_all()
    relay.close()
    until(lambda: complete(url, story, "funnel", "customers"), "both complete")
    process.send_signal(signal.SIGTERM)
    _, told_of = process.communicate(timeout=60)
    assert process.returncode == 0, told_of
    assert '"instance"' in told_of


def test_a_worker_that_dies_is_started_again(
    url: str, story: Story, settings: Settings, project: Run
) -> None:
    relay = Relay(settings, story)
    relay.send_all()
    relay.close()
    # Each child dies at its first batch: it goes on after the last one that was committed.
    process = project("funnel", "customers", CRM_CRASHPOINT="project.after_commit:1")
    until(lambda: complete(url, story, "funnel", "customers"), "both complete")
    process.send_signal(signal.SIGTERM)
    _, told_of = process.communicate(timeout=60)
    assert process.returncode == 0, told_of
    assert "starting it again" in told_of


def test_one_worker_without_kafka_reads_the_log(
    url: str, story: Story, project: Run, free_port: int
) -> None:
    process = project("funnel", kafka=False, CRM_METRICS_PORT=str(free_port))
    until(lambda: complete(url, story, "funnel"), "complete")

    def metrics() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{free_port}/metrics") as answer:
            return answer.read().decode()

    until(lambda: 'projection_lag_events{projection="funnel"} 0.0' in metrics(), "no lag")
    assert 'projection_incomplete_ranges{projection="funnel"} 0.0' in metrics()
    process.send_signal(signal.SIGTERM)
    _, told_of = process.communicate(timeout=60)
    assert process.returncode == 0, told_of


@pytest.mark.parametrize("kafka", [True, False])
def test_another_log_ends_it_with_the_way_out(
    url: str, story: Story, settings: Settings, project: Run, kafka: bool
) -> None:
    relay = Relay(settings, story)
    relay.send_all()
    relay.close()
    process = project("funnel", kafka=kafka)
    until(lambda: complete(url, story, "funnel"), "complete")
    connection = connect(url, search_path=["log"], autocommit=True)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE head SET store_epoch = gen_random_uuid()")
    connection.close()
    _, told_of = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "crm rebuild funnel" in told_of


def test_workers_that_would_share_nothing_are_refused(project: Run) -> None:
    process = project("funnel", "--workers", "2", kafka=False)
    _, told_of = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "KAFKA_BOOTSTRAP" in told_of


@pytest.fixture
def free_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port
