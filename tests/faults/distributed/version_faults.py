"""An old and a new version of the program at work side by side."""

from __future__ import annotations

from uuid import UUID, uuid4

from infra.eventstore.feed import partition_of
from tests.faults.distributed.trial import Trial

TOPIC = "crm.customer.registered"


def of_a_read_model(trial: Trial) -> None:
    """The newer worker fills its read model anew beside the old one, which then ends, cleanly; it
    is never filled backwards."""
    deployment = trial.deployment
    model = deployment.models[0]
    old = list(deployment.projectors[model])
    with trial.load(heal=False) as load:
        load.answered(60)
        newer = deployment.joins(model)
        newer.altered(f"newer={model}")
        newer.start()
        trial.fault()
        for worker in old:
            code = worker.ended()
            assert code == 0, f"{worker.name} ended with {code}: {worker.last_words()}"
            deployment.projectors[model].remove(worker)
        load.answered(60)
        again = deployment.joins(model)
        again.start()
        assert again.ended() == 0, again.last_words()
        deployment.projectors[model].remove(again)
        load.answered(60)
    deployment.later = model
    trial.check()
    trial.spoils()


def of_an_event(trial: Trial) -> None:
    """An event that a later program wrote: the old workers that read such events end, cleanly,
    before it, and park nothing."""
    deployment = trial.deployment
    with trial.load(heal=False) as load:
        load.answered(60)
        customer = trial.one("/v1/customers", name=f"Customer {uuid4()}")
        deployment.database.query(
            "WITH head AS (UPDATE log.head SET position = position + 1,"
            " recorded_at = greatest(clock_timestamp(), recorded_at) RETURNING *)"
            " INSERT INTO log.events (position, stream_id, version, topic, class_version,"
            " partition_key, occurred_at, recorded_at, actor, command_id, correlation_id, state)"
            " SELECT head.position, stream_id, 2, topic, class_version + 1, partition_key,"
            " occurred_at, head.recorded_at, actor, gen_random_uuid(), correlation_id, state"
            " FROM log.events, head WHERE stream_id = %s",
            [customer],
        )
        trial.fault()
        load.answered(30)
        readers = [
            worker
            for model, workers in deployment.projectors.items()
            for worker in workers
            if TOPIC in deployment.projection(model).topics
        ]
        assert readers
        for worker in readers:
            code = worker.ended()
            assert code == 0, f"{worker.name} ended with {code}: {worker.last_words()}"
        load.answered(30)
    later = deployment.database.value(
        "SELECT position FROM log.events WHERE stream_id = %s AND version = 2", [customer]
    )
    partition = partition_of(UUID(customer), deployment.settings.partitions)
    reading = {p.id for p in map(deployment.projection, deployment.models) if TOPIC in p.topics}
    for (projection, number), position in deployment.positions().items():
        if projection in reading and number == partition:
            assert position < later, f"{projection} has passed it by"
    assert deployment.database.value("SELECT count(*) FROM read.parked") == 0
    trial.check_log()
    trial.spoils()
