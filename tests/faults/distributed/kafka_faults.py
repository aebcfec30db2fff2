"""Kafka restarted, unreachable, its data lost; producers and deliveries at their worst."""

from __future__ import annotations

import shutil
import time

from tests.faults.distributed.deployment import wait_until
from tests.faults.distributed.topic import check_topic
from tests.faults.distributed.trial import Trial

UNREACHABLE = 60.0
"""Seconds."""


def restarted(trial: Trial) -> None:
    """In good order and by SIGKILL."""
    deployment = trial.deployment
    broker = deployment.broker
    with trial.load() as load:
        for number in trial.times(3):
            load.answered(40)
            broker.kill() if number % 2 or trial.short else broker.stop()
            trial.fault()
            load.answered(60)
            deployment.broker.start()
            load.answered(40)
            deployment.drained()
    trial.check()
    check_topic(deployment)


def unreachable(trial: Trial) -> None:
    """It answers nothing for a minute: commands go on, the backlog shows, and is then drained."""
    deployment = trial.deployment
    with trial.load() as load:
        load.answered(40)
        deployment.drained()
        deployment.way.block()
        trial.fault()
        try:
            until = time.monotonic() + (8 if trial.short else UNREACHABLE)
            before = load.told["unknown"]
            while time.monotonic() < until:
                load.answered(50, patience=10)
            assert load.told["unknown"] == before, "commands were held up"
            backlog = deployment.end() - deployment.published()
            assert backlog > 50, f"the backlog is {backlog}"
            shown = deployment.backlog_shown()
            assert shown > 50, f"the backlog is {backlog}, and is shown as {shown}"
        finally:
            deployment.way.unblock()
        deployment.drained()
        load.answered(20)
    trial.check()
    check_topic(deployment)


def data_lost(trial: Trial) -> None:
    """A new cluster at the same address: what was lost is noticed and published again."""
    deployment = trial.deployment
    with trial.load() as load:
        for _ in trial.times(2):
            load.answered(60)
            deployment.broker.kill()
            trial.fault()
            load.answered(40)
            deployment.broker.wipe()
            deployment.broker.start()
            load.answered(40)
            deployment.drained()
            wait_until(lambda: _complete(trial), 90, "all of the log is in Kafka again")
    trial.check()
    check_topic(deployment)


def end_of_data_lost(trial: Trial) -> None:
    """Kafka comes back as it was some time ago, under the same identity."""
    deployment = trial.deployment
    data = deployment.directory / "kafka" / "data"
    kept = deployment.directory / "kafka-before"
    with trial.load() as load:
        load.answered(40)
        deployment.broker.stop()
        shutil.copytree(data, kept)
        deployment.broker.start()
        load.answered(100)
        deployment.drained()
        deployment.broker.kill()
        trial.fault()
        shutil.rmtree(data)
        kept.rename(data)
        deployment.broker.start()
        load.answered(40)
        wait_until(lambda: _complete(trial), 90, "all of the log is in Kafka again")
    trial.check()
    check_topic(deployment)


def delivered_anyhow(trial: Trial) -> None:
    """Every record is sent three times, later ones in between; readers are given partitions in any
    order and in small pieces."""
    deployment = trial.deployment
    seed = trial.random.randrange(10**6)
    with trial.load(rate=120) as load:
        for relay in deployment.relays:
            relay.altered(f"thrice={seed}")
            relay.restart()
        for workers in deployment.projectors.values():
            for worker in workers:
                worker.altered(f"interleaved={seed}")
                worker.restart()
        load.answered(80 if trial.short else 800)
        deployment.drained()
        trial.fault(load.told["ok"])
    trial.check()
    repetitions = check_topic(deployment)
    assert repetitions > load.told["ok"], f"only {repetitions} repetitions"
    deployment.unaltered()
    trial.check()


def connections_break(trial: Trial) -> None:
    """Those of relays and workers to Kafka, again and again, whatever is under way on them."""
    deployment = trial.deployment
    with trial.load(rate=120) as load:
        for _ in trial.times(15, 3):
            load.answered(trial.random.randrange(20, 80))
            deployment.way.cut()
            trial.fault()
        load.answered(40)
        deployment.drained()
    trial.check()
    check_topic(deployment, in_order=False)


def losing_in_flight(trial: Trial) -> None:
    """Now and then the producer loses a record while those behind it arrive: no hole is jumped."""
    deployment = trial.deployment
    seed = trial.random.randrange(10**6)
    with trial.load(rate=120) as load:
        for relay in deployment.relays:
            relay.altered(f"lossy={seed}")
            relay.restart()
        load.answered(100 if trial.short else 1000)
        deployment.drained()
        lost = sum(relay.text.count("publishing failed") for relay in deployment.relays)
        assert lost, "nothing was lost"
        trial.fault(lost)
    deployment.unaltered()
    trial.check()
    check_topic(deployment, in_order=False)


def _complete(trial: Trial) -> bool:
    check_topic(trial.deployment, in_order=False)
    return True
