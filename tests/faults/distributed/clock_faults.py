"""Processes whose clocks are wrong: only times differ, never order, versions or amounts."""

from __future__ import annotations

from tests.faults.distributed.trial import Trial

CLOCKS = ("3600", "-3600", "backwards")


def off(trial: Trial) -> None:
    """By an hour, forwards, backwards, and falling while the process works; each process in its
    own way. The read models are what the log says all the same: the times in it count."""
    deployment = trial.deployment
    with trial.load() as load:
        for _ in trial.times(3):
            for process in deployment.processes:
                process.altered(f"clock={trial.random.choice(CLOCKS)}")
                process.restart()
                trial.fault()
            deployment.ready()
            load.answered(120)
        deployment.unaltered()
    trial.check()
