"""Projector workers that die, join, leave, are slow, or meet an event that they cannot apply."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote
from uuid import UUID, uuid4

from tests.faults.distributed.checker import Watch
from tests.faults.distributed.deployment import wait_until
from tests.faults.distributed.trial import Trial

POINTS = ("project.in_batch", "project.before_commit", "project.after_commit")
SLOW = 0.1
"""Seconds that a slow worker takes for an event."""


def killed_in_batch(trial: Trial) -> None:
    _killed_at(trial, "project.in_batch")


def killed_before_commit(trial: Trial) -> None:
    _killed_at(trial, "project.before_commit")


def killed_after_commit(trial: Trial) -> None:
    """The rows are there, Kafka's group does not know: they are not applied again."""
    _killed_at(trial, "project.after_commit")


def _killed_at(trial: Trial, point: str) -> None:
    """No position ever goes back."""
    deployment = trial.deployment
    with watching(trial), trial.load() as load:
        for _ in trial.times(4):
            for workers in deployment.projectors.values():
                victim = trial.random.choice(workers)
                load.answered(20)
                victim.kill()
                victim.start(CRASHPOINT=f"{point}:{trial.random.randrange(1, 8)}")
                victim.dies()
                trial.fault(2)
                victim.start()
    trial.check()


def joins_and_leaves(trial: Trial) -> None:
    """20 of them while commands come in: no event is applied twice, and none is left out."""
    deployment = trial.deployment
    model = trial.random.choice(deployment.models)
    with watching(trial), trial.load(rate=30) as load:
        steps = 20 if not trial.short else 4
        for number in range(steps):
            load.answered(15)
            extra = len(deployment.projectors[model]) - 1
            if extra == 0 or (extra < 3 and trial.random.random() < 0.5 and number < steps - 3):
                joining = deployment.joins(model)
                joining.start()
                joining.says('"event": "partitions"')
            elif trial.random.random() < 0.3:
                deployment.projectors[model][-1].kill()
                deployment.leaves(model)
            else:
                deployment.leaves(model)
            trial.fault()
        while len(deployment.projectors[model]) > 1:
            deployment.leaves(model)
    trial.check()


def slower_than_the_deadline(trial: Trial) -> None:
    """A batch takes longer than the group waits for a sign of life; positions move all the same, in
    every partition."""
    deployment = trial.deployment
    model = deployment.models[0]
    (worker,) = deployment.projectors[model]
    with trial.load(heal=False) as load:
        worker.altered(f"slow={SLOW}")
        worker.restart()
        trial.fault()
        load.answered(100)
    # Ten events a second, and no more of them come: the last partition's turn does.
    before = _least(trial, model)
    patience = 60 + 2 * SLOW * (deployment.end() - before)
    wait_until(lambda: _least(trial, model) > before, patience, "the position moves")
    worker.altered()
    worker.restart()
    trial.check()


def poison_event(trial: Trial) -> None:
    """An event in the log that does not fit its class parks its key; the rest flows. When the log
    is mended, a rebuild brings the key back, and the proof tells that it was mended."""
    deployment = trial.deployment
    query = deployment.database.query
    with trial.load() as load:
        load.answered(30)
        name = f"Customer {uuid4()}"
        victim = UUID(trial.one("/v1/customers", name=name))
        other = trial.one("/v1/customers", name=name)
        trial.one(f"/v1/customers/{victim}/profile", industry="steel")
        good = _append(trial, victim, None)
        bad = _append(trial, victim, b'{"industry": {"no": "text"}}')
        _append(trial, victim, None)  # waits for the one before
        trial.fault()
        load.answered(60)
    trial.check(parked=[victim])
    status, told = trial.get(f"/v1/customers?name={quote(name)}")
    assert status == 200, told
    assert told["parked"] == 1, told
    assert other in {item["id"] for item in told["items"]}
    query(
        "UPDATE log.events SET state = (SELECT state FROM log.events WHERE position = %s)"
        " WHERE position = %s",
        [good, bad],
    )
    for model in deployment.models:
        code, said = deployment.crm("rebuild", model)
        assert code == 0, said
    trial.check(changed=bad)
    trial.spoils()


def _append(trial: Trial, customer: UUID, state: bytes | None) -> int:
    """Puts a change of profile into the log behind everybody's back, like the customer's first
    one or with another body; its position."""
    return int(
        trial.deployment.database.value(
            "WITH head AS (UPDATE log.head SET position = position + 1,"
            " recorded_at = greatest(clock_timestamp(), recorded_at) RETURNING *)"
            " INSERT INTO log.events (position, stream_id, version, topic, class_version,"
            " partition_key, occurred_at, recorded_at, actor, command_id, correlation_id, state)"
            " SELECT head.position, stream_id,"
            " (SELECT max(version) + 1 FROM log.events AS e WHERE e.stream_id = f.stream_id),"
            " topic, class_version, partition_key, occurred_at, head.recorded_at, actor,"
            " gen_random_uuid(), correlation_id, coalesce(%s, state)"
            " FROM log.events AS f, head WHERE stream_id = %s AND version = 2"
            " RETURNING position",
            [state, str(customer)],
        )
    )


def _least(trial: Trial, model: str) -> int:
    positions = trial.deployment.positions()
    return min(at for (projection, _), at in positions.items() if projection.startswith(model))


@contextmanager
def watching(trial: Trial) -> Iterator[None]:
    """Positions are looked at all the while."""
    watch = Watch(trial.deployment)
    over = threading.Event()
    failed: list[BaseException] = []

    def look() -> None:
        try:
            while not over.wait(0.05):
                watch.look()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    if failed:
        raise failed[0]
    assert watch.looks > 10
