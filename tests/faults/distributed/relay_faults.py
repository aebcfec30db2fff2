"""Relays that die between any two steps, or stand still while another takes over."""

from __future__ import annotations

from tests.faults.distributed.deployment import LEASE, wait_until
from tests.faults.distributed.topic import check_topic
from tests.faults.distributed.trial import Trial


def killed_after_fetch(trial: Trial) -> None:
    _killed_at(trial, "relay.after_fetch")


def killed_after_send(trial: Trial) -> None:
    _killed_at(trial, "relay.after_send")


def killed_after_acknowledgement(trial: Trial) -> None:
    """Kafka has the records, the cursor does not say so: they are sent again."""
    _killed_at(trial, "relay.after_ack")


def _killed_at(trial: Trial, point: str) -> None:
    """The standby, armed, takes over and dies in its turn; order per key is kept."""
    deployment = trial.deployment
    with trial.load() as load:
        for _ in trial.times(4):
            load.answered(30)
            active, standby = deployment.roles()
            standby.restart(CRASHPOINT=f"{point}:{trial.random.randrange(1, 12)}")
            active.kill()
            trial.fault()
            standby.dies()
            trial.fault()
            load.answered(30)
            active.start()
            standby.start()
            deployment.drained()
    trial.check()
    check_topic(deployment)


def stopped_and_woken(trial: Trial) -> None:
    """SIGSTOP of the relay, the standby is promoted, SIGCONT: order kept, nothing applied twice."""
    deployment = trial.deployment
    with trial.load() as load:
        for _ in trial.times(3):
            load.answered(30)
            active, standby = deployment.roles()
            epoch = _epoch(trial)
            active.pause()
            trial.fault()
            wait_until(lambda before=epoch: _epoch(trial) > before, 5 * LEASE + 10, "promotion")
            assert standby.alive
            load.answered(30)
            deployment.drained()
            active.resume()
            load.answered(60)
            assert active.alive
            assert deployment.roles()[0] is standby, "the one that woke up took over again"
    trial.check()
    check_topic(deployment)


def _epoch(trial: Trial) -> int:
    return int(trial.deployment.database.value("SELECT epoch FROM log.relay"))
