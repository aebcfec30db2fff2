"""API processes that die or stand still at the worst moments."""

from __future__ import annotations

import time

from tests.faults.distributed.load import Asked, Load
from tests.faults.distributed.trial import Trial
from tests.faults.proxy import Lost, Proxy


def killed_before_commit(trial: Trial) -> None:
    """What it had under way is not in the log; the retry, by another process, does it."""
    _killed_at(trial, "commit.before")


def killed_after_commit(trial: Trial) -> None:
    """What it had under way is in the log, unanswered; the retry gets the answer of the first."""
    for _ in range(4):  # a group may hold nothing but what is repeated or refused
        load = _killed_at(trial, "commit.after")
        if any(_was_done_before(trial, asked) for asked in load.asked):
            return
    raise AssertionError("no answer was lost")


def _killed_at(trial: Trial, point: str) -> Load:
    victim = trial.deployment.apis[-1]
    with trial.load() as load:
        for _ in trial.times(4):
            load.answered(trial.random.randrange(20, 60))
            victim.restart(CRASHPOINT=f"{point}:{trial.random.randrange(10, 60)}")
            victim.dies()
            trial.fault()
            load.answered(40)  # by the others
            victim.start()
            trial.deployment.ready()
    assert load.doubted
    trial.check()
    return load


def _was_done_before(trial: Trial, asked: Asked) -> bool:
    """Whether the try that was answered came after the events had been recorded."""
    if not asked.doubts or asked.answer is None:
        return False
    recorded = trial.deployment.database.value(
        "SELECT extract(epoch FROM recorded_at) FROM log.events WHERE position = %s",
        [asked.answer["position"]],
    )
    return float(recorded) < asked.tried_at


def cut_during_commit(trial: Trial) -> None:
    """The connection to the database breaks before the server has the group, or after it has
    carried it out; the client is told 503 and its retry ends in one result."""
    deployment = trial.deployment
    victim = deployment.apis[-1]
    proxy = Proxy(deployment.database.url)
    try:
        with trial.load() as load:
            deployment.behind(proxy, victim)
            victim.restart()
            deployment.ready()
            for number in trial.times(8, 2):
                load.answered(trial.random.randrange(10, 60))
                lost = Lost.REPLY if number % 2 else Lost.REQUEST
                proxy.lose(lost, b"EXECUTE append_group")
                assert proxy.cut.wait(30)
                trial.fault()
            load.answered(40)
            deployment.behind(None, victim)
            victim.restart()
            deployment.ready()
    finally:
        proxy.close()
    doubts = [doubt for asked in load.asked for doubt in asked.doubts]
    assert "503 urn:crm-ledger:problem:outcome-unknown" in doubts
    trial.check()


def stopped_with_the_lock(trial: Trial) -> None:
    """It stands still while it holds the head's lock: the server ends its session, and the others
    go on within the time-out. When it wakes up, what it had under way was not done."""
    deployment = trial.deployment
    victim = deployment.apis[-1]
    with trial.load() as load:
        for _ in trial.times(2):
            load.answered(30)
            victim.restart(CRASHPOINT="stop@commit.locked:2")
            victim.stands_still()
            trial.fault()
            stopped = time.monotonic()
            load.answered(30, patience=30)
            assert time.monotonic() - stopped < 20, "the others waited for too long"
            victim.resume()
            deployment.ready()
            load.answered(30)
    trial.check()
