"""PostgreSQL stopped in every way; its disk full."""

from __future__ import annotations

from tests.faults.distributed.database import Shutdown
from tests.faults.distributed.deployment import Deployment
from tests.faults.distributed.trial import Trial


def stopped_fast(trial: Trial) -> None:
    _stopped(trial, Shutdown.FAST)


def stopped_immediately(trial: Trial) -> None:
    _stopped(trial, Shutdown.IMMEDIATE)


def killed(trial: Trial) -> None:
    """All its processes at once, by SIGKILL."""
    _stopped(trial, Shutdown.KILL)


def _stopped(trial: Trial, how: Shutdown) -> None:
    """Every acknowledged command is there afterwards, and no page or index is damaged."""
    database = trial.deployment.database
    with trial.load() as load:
        for _ in trial.times(3):
            load.answered(trial.random.randrange(60, 200))
            database.stop(how)
            trial.fault()
            load.answered(10, what="unknown")
            database.start()
            load.answered(60)
    assert load.doubted
    assert not (damage := database.amcheck()), damage
    trial.check()


def disk_full(trial: Trial) -> None:
    """Commands are told 503 while there is no space; with space again all goes on, and nothing was
    done by halves."""
    with Deployment(apis=1, relays=1, models=["customers"], disk=400) as deployment:
        trial.deployment = deployment
        with trial.load(rate=120) as load:
            for spare in trial.random.sample((0, 8_192, 65_536, 1_000_000), len(trial.times(3))):
                load.answered(100)
                deployment.database.fill_the_disk(spare)
                trial.fault()
                load.answered(20, what="unknown")
                deployment.database.empty_the_disk()
                if not deployment.database.processes():  # no space for its log of changes
                    deployment.database.start()
                load.answered(60)
        doubts = {doubt for asked in load.asked for doubt in asked.doubts}
        assert any(doubt.startswith("503") for doubt in doubts), doubts
        assert not (damage := deployment.database.amcheck()), damage
        trial.check()
