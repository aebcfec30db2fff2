"""What is parked comes back as it was."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from psycopg2.errors import LockNotAvailable
from psycopg2.extensions import cursor as Cursor  # noqa: N812  (it is a class)

from projections import parking
from projections.funnel import FunnelProjection
from tests.integration.projections.conftest import Models
from tests.integration.projections.story import Story, named, yuan

pytestmark = pytest.mark.database

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def _use(cursor: Cursor, models: Models) -> None:
    cursor.execute("SELECT set_config('search_path', %s, true)", (models.read,))


@pytest.mark.parametrize("traceparent", [None, TRACE])
def test_an_event_comes_back_with_all_that_is_known_of_it(
    models: Models, traceparent: str | None
) -> None:
    story = Story()
    story.deal("a", story.customer("acme"), yuan("10.00"))
    event = replace(
        story.events[-1], reason="因为", causation_id=str(named("cause")), traceparent=traceparent
    )
    with models.pool.connection() as connection, connection.cursor() as cursor:
        _use(cursor, models)
        parking.park(cursor, FunnelProjection().id, [(event.stream_id, event, "poison")])
        [taken] = parking.taken(cursor, FunnelProjection().id, event.stream_id)
    assert replace(taken, event=None) == replace(event, event=None)
    assert vars(taken.event) == vars(event.event)


def test_what_was_parked_before_there_were_traces_comes_back(models: Models) -> None:
    story = Story()
    story.customer("acme")
    event = story.events[-1]
    with models.pool.connection() as connection, connection.cursor() as cursor:
        _use(cursor, models)
        parking.park(cursor, FunnelProjection().id, [(event.stream_id, event, "poison")])
        cursor.execute("UPDATE parked SET event = event - 'traceparent'")
        [taken] = parking.taken(cursor, FunnelProjection().id, event.stream_id)
    assert taken.traceparent is None


def test_a_key_is_locked_also_when_the_read_model_is_filled_anew_meanwhile(models: Models) -> None:
    story = Story()
    story.deal("a", story.customer("acme"), yuan("10.00"))
    event = story.events[-1]
    models.projector(FunnelProjection(), story, partitions=1).prepare()
    locked, looked = threading.Event(), threading.Event()

    def lock() -> None:
        with models.pool.connection() as connection, connection.cursor() as cursor:
            _use(cursor, models)
            parking.lock(cursor, FunnelProjection().id, event.stream_id, 1)
            locked.set()
            looked.wait(30)

    retrying = threading.Thread(target=lock)
    with models.pool.connection() as connection, connection.cursor() as cursor:
        _use(cursor, models)
        parking.park(cursor, FunnelProjection().id, [(event.stream_id, event, "poison")])
        connection.commit()
        _use(cursor, models)
        cursor.execute("CREATE TEMPORARY TABLE filled AS SELECT * FROM position FOR UPDATE")
        retrying.start()
        waiting = "SELECT FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))"
        while not models.run(waiting, connection.info.backend_pid):
            pass
        cursor.execute("DELETE FROM position")
        cursor.execute("INSERT INTO position SELECT * FROM filled")
        cursor.execute("DROP TABLE filled")
    assert locked.wait(30)
    try:
        with pytest.raises(LockNotAvailable):
            models.run("SELECT FROM position FOR UPDATE NOWAIT")
    finally:
        looked.set()
        retrying.join()
