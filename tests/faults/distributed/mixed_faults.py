"""All kinds of faults, one after the other and over each other, as the seed has it."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.faults.distributed.database import Shutdown
from tests.faults.distributed.deployment import MODELS, Deployment
from tests.faults.distributed.projector_faults import watching
from tests.faults.distributed.topic import check_topic
from tests.faults.distributed.trial import Trial


def everything_at_once(trial: Trial) -> None:
    """All four read models, two workers each: processes die and stand still while Kafka, the way
    to it, and PostgreSQL come and go."""
    with Deployment(models=MODELS, projectors=2) as deployment:
        trial.deployment = deployment
        with watching(trial), trial.load(rate=60) as load:
            for _ in trial.times(30, 6):
                load.answered(trial.random.randrange(10, 60))
                trial.random.choice(FAULTS)(trial)
                trial.fault()
        trial.check()
        check_topic(deployment, in_order=False)


def _kill_a_process(trial: Trial) -> None:
    victim = trial.random.choice(trial.deployment.processes)
    victim.kill()
    time.sleep(trial.random.random() * 4)
    victim.start()


def _stop_a_process_for_a_while(trial: Trial) -> None:
    victim = trial.random.choice([each for each in trial.deployment.processes if each.alive])
    victim.pause()
    time.sleep(trial.random.random() * 8)
    victim.resume()


def _cut_the_way_to_kafka(trial: Trial) -> None:
    trial.deployment.way.cut()


def _block_the_way_to_kafka(trial: Trial) -> None:
    trial.deployment.way.block()
    time.sleep(trial.random.random() * 10)
    trial.deployment.way.unblock()


def _crash_kafka(trial: Trial) -> None:
    trial.deployment.broker.kill()
    time.sleep(trial.random.random() * 5)
    trial.deployment.broker.start()


def _crash_postgresql(trial: Trial) -> None:
    trial.deployment.database.stop(trial.random.choice(list(Shutdown)))
    time.sleep(trial.random.random() * 3)
    trial.deployment.database.start()


FAULTS: list[Callable[[Trial], None]] = [
    _kill_a_process,
    _stop_a_process_for_a_while,
    _cut_the_way_to_kafka,
    _block_the_way_to_kafka,
    _crash_kafka,
    _crash_postgresql,
]
