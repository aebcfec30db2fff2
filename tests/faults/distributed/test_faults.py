"""The product as several processes, on a real PostgreSQL and a real Kafka, through every fault.

``make faults`` runs all of it, each fault several times; ``SEED=…`` repeats a run's choices. The
suite itself runs the short part: a few scenarios in a row, each fault once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.faults.distributed import (
    api_faults,
    clock_faults,
    database_faults,
    kafka_faults,
    mixed_faults,
    projector_faults,
    relay_faults,
    restore_faults,
    version_faults,
)
from tests.faults.distributed.deployment import Deployment
from tests.faults.distributed.trial import REPORT, Trial, chosen_seed

pytestmark = pytest.mark.database

Scenario = Callable[[Trial], None]

SCENARIOS: dict[str, Scenario] = {
    "api killed before commit": api_faults.killed_before_commit,
    "api killed after commit": api_faults.killed_after_commit,
    "api cut off during commit": api_faults.cut_during_commit,
    "api stopped with the lock": api_faults.stopped_with_the_lock,
    "postgresql stopped fast": database_faults.stopped_fast,
    "postgresql stopped immediately": database_faults.stopped_immediately,
    "postgresql killed": database_faults.killed,
    "disk full": database_faults.disk_full,
    "relay killed after fetch": relay_faults.killed_after_fetch,
    "relay killed after send": relay_faults.killed_after_send,
    "relay killed after acknowledgement": relay_faults.killed_after_acknowledgement,
    "relay stopped and woken": relay_faults.stopped_and_woken,
    "projector killed in a batch": projector_faults.killed_in_batch,
    "projector killed before commit": projector_faults.killed_before_commit,
    "projector killed after commit": projector_faults.killed_after_commit,
    "projector joins and leaves": projector_faults.joins_and_leaves,
    "projector slower than the deadline": projector_faults.slower_than_the_deadline,
    "poison event": projector_faults.poison_event,
    "kafka restarted": kafka_faults.restarted,
    "kafka unreachable": kafka_faults.unreachable,
    "kafka's data lost": kafka_faults.data_lost,
    "end of kafka's data lost": kafka_faults.end_of_data_lost,
    "delivered three times, anyhow": kafka_faults.delivered_anyhow,
    "connections to kafka break": kafka_faults.connections_break,
    "producer loses in flight": kafka_faults.losing_in_flight,
    "clocks off": clock_faults.off,
    "log restored": restore_faults.behind_the_read_models,
    "everything at once": mixed_faults.everything_at_once,
    "newer read model": version_faults.of_a_read_model,
    "newer event": version_faults.of_an_event,
}


class Ground:
    """The deployment that scenarios share. After a failure the next one gets a new one."""

    def __init__(self) -> None:
        self._deployment: Deployment | None = None

    def run(self, name: str, seed: str, *, short: bool) -> None:
        if self._deployment is None:
            self._deployment = Deployment().__enter__()
        trial = Trial(name, self._deployment, seed, short=short)
        try:
            SCENARIOS[name](trial)
        except BaseException as failure:
            REPORT.add(trial.end(failure))
            deployment, self._deployment = self._deployment, None
            deployment.__exit__(type(failure))
            raise
        REPORT.add(trial.end())
        if trial.spoilt:
            self.close()

    def close(self) -> None:
        deployment, self._deployment = self._deployment, None
        if deployment is not None:
            deployment.close()


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    ground = Ground()
    yield ground
    ground.close()


@pytest.fixture(scope="module")
def seed() -> str:
    return chosen_seed()


@pytest.mark.faults
@pytest.mark.parametrize("name", SCENARIOS)
def test_fault(ground: Ground, seed: str, name: str) -> None:
    ground.run(name, seed, short=False)


SHORT = [
    "api killed after commit",
    "relay killed after acknowledgement",
    "projector killed before commit",
    "postgresql killed",
    "kafka's data lost",
]


@pytest.mark.slow
def test_the_short_part(ground: Ground) -> None:
    for name in SHORT:
        ground.run(name, "1", short=True)
