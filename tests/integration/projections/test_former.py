"""What a rebuild took the place of is kept, and can be put back."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from infra.eventstore.feed import Head
from infra.postgres import quote
from projections import account, funnel
from projections.funnel import FunnelProjection
from projections.projector import Projector
from projections.rebuild import NoWayBack, back, forget, former, former_schema
from projections.summaries import Summarizer
from tests.integration.projections.conftest import Models
from tests.integration.projections.story import PIPELINE, Story
from tests.integration.projections.strategies import random_story
from tests.integration.projections.test_projector import drain
from tests.integration.projections.test_rebuild import NOW

pytestmark = pytest.mark.database

FUNNEL = FunnelProjection()
TABLES = ("position", "parked", "applied", "origin", "summarised")


def go_back(models: Models, story: Any, projection: FunnelProjection = FUNNEL) -> Any:
    return back(
        projection, models.pool, story.head, partitions=12, schema=models.read, bi_schema=models.bi
    )


def rows(models: Models) -> dict[str, list[Any]]:
    return {name: models.rows(name) for name in (*FUNNEL.tables(), *FUNNEL.sums())}


def shared(models: Models) -> dict[str, list[Any]]:
    columns = {"position": "projection, partition, position", "origin": "projection, store_epoch"}
    return {name: models.rows(name, columns.get(name, "*")) for name in TABLES}


def kept(models: Models) -> Any:
    with models.pool.connection() as connection, connection.cursor() as cursor:
        return former(cursor, FUNNEL, models.read)


def summed_up(models: Models) -> None:
    summarizer = Summarizer(FUNNEL, models.pool, schema=models.read, positions=8)
    while summarizer.step():
        pass


def live_and_rebuilt(models: Models, seed: int, told: int = 120) -> tuple[Story, Projector]:
    """A live set that was wrong in two places, at position `told`, and was rebuilt there."""
    story = random_story(seed, 200)
    story.later = story.events[told:]  # type: ignore[attr-defined]
    story.events = story.events[:told]
    projector = models.projector(FUNNEL, story, batch=30)
    drain(projector)
    summed_up(models)
    models.run("UPDATE deal_fact SET actor = 'somebody else' WHERE position < 40")
    return story, projector


def test_the_former_set_comes_back_with_all_that_belongs_to_it(models: Models) -> None:
    story, _ = live_and_rebuilt(models, 41)
    models.run(
        "INSERT INTO parked (projection, key, position, event, error)"
        " VALUES (%s, gen_random_uuid(), 3, '{}', 'then')",
        FUNNEL.id,
    )
    models.run("INSERT INTO kafka_offset VALUES ('funnel', 3, %s, 17)", str(uuid4()))
    before, around = rows(models), shared(models)
    offsets = models.rows("kafka_offset")
    assert not models.rebuild(FUNNEL, story, block=8).run().same
    rebuilt = rows(models)
    assert rebuilt != before
    assert models.rows("parked") == []
    found = kept(models)
    assert (found.id, found.position) == (FUNNEL.id, 120)
    assert found.size > 50_000

    assert go_back(models, story).position == 120
    assert rows(models) == before
    assert shared(models) == around
    assert models.rows("kafka_offset") == offsets
    assert models.ask(funnel.funnel, NOW, pipeline_id=PIPELINE, currency="CNY").stages

    go_back(models, story)  # what was rebuilt
    assert rows(models) == rebuilt


def test_a_projector_goes_on_from_where_the_former_set_was_left(models: Models) -> None:
    story, projector = live_and_rebuilt(models, 42)
    models.rebuild(FUNNEL, story, block=8).run()
    story.events += story.later  # type: ignore[attr-defined]
    drain(models.projector(FUNNEL, story, batch=30))
    expected = rows(models)
    go_back(models, story)
    assert models.run("SELECT DISTINCT position FROM position") == [(120,)]
    models.run("UPDATE deal_fact SET actor = 'tester'")
    # Its memory is of before the rebuild, and may not be of what is there now.
    with pytest.raises(Exception, match="another owner moved on"):
        projector.step()
    drain(projector)
    summed_up(models)
    found = rows(models)
    assert {name: found[name] for name in FUNNEL.tables()} == {
        name: expected[name] for name in FUNNEL.tables()
    }
    sums = account.summed((e for e in story.events if e.topic in FUNNEL.topics), 1)[0, 0]
    assert models.account() == [(FUNNEL.id, 0, *sums)]
    assert models.rebuild(FUNNEL, story, block=8).verify().same


def test_the_next_rebuild_takes_its_place(models: Models) -> None:
    story, _ = live_and_rebuilt(models, 43)
    models.rebuild(FUNNEL, story, block=8).run()
    good = rows(models)
    story.events += story.later  # type: ignore[attr-defined]
    assert models.rebuild(FUNNEL, story, block=8).run().same
    assert kept(models).position == 120
    go_back(models, story)
    assert rows(models) == good


def test_forgotten_it_is_gone(models: Models) -> None:
    story, _ = live_and_rebuilt(models, 44)
    models.rebuild(FUNNEL, story).run()
    assert forget(FUNNEL, models.pool, models.read) is not None
    assert kept(models) is None
    assert forget(FUNNEL, models.pool, models.read) is None
    before = rows(models)
    with pytest.raises(NoWayBack, match="no former set is kept"):
        go_back(models, story)
    assert rows(models) == before


class Later(FunnelProjection):
    version = FunnelProjection.version + 1


def test_another_version_of_the_program_is_refused(models: Models) -> None:
    story, _ = live_and_rebuilt(models, 45)
    models.rebuild(Later(), story).run()
    before = rows(models)
    with pytest.raises(NoWayBack, match=f"{FUNNEL.id} is there, {Later().id} is wanted"):
        go_back(models, story, Later())
    assert rows(models) == before
    # The former program, started again, puts its own set back.
    assert go_back(models, story).id == FUNNEL.id
    assert models.run("SELECT DISTINCT projection FROM position") == [(FUNNEL.id,)]
    with pytest.raises(NoWayBack, match="a later version"):
        go_back(models, story)


def test_another_log_or_one_that_ends_earlier_is_refused(models: Models) -> None:
    story, _ = live_and_rebuilt(models, 46)
    models.rebuild(FUNNEL, story).run()
    before = rows(models)

    class Restored:
        def __init__(self, head: Head) -> None:
            self._head = head

        def head(self) -> Head:
            return self._head

    with pytest.raises(NoWayBack, match="another log"):
        go_back(models, Restored(replace(story.head(), epoch=uuid4())))
    with pytest.raises(NoWayBack, match="more than the log"):
        go_back(models, Restored(replace(story.head(), position=119)))
    assert rows(models) == before


def test_one_that_is_not_whole_is_refused(models: Models) -> None:
    story, _ = live_and_rebuilt(models, 47)
    models.rebuild(FUNNEL, story).run()
    models.run(f"DROP TABLE {quote(former_schema(FUNNEL, models.read))}.visit_period")
    before = rows(models)
    with pytest.raises(NoWayBack, match="visit_period is missing"):
        go_back(models, story)
    assert rows(models) == before


def test_it_comes_back_from_before_a_migration(models: Models) -> None:
    story, _ = live_and_rebuilt(models, 49)
    before = rows(models)
    models.rebuild(FUNNEL, story, block=8).run()
    with models.admin() as cursor:
        cursor.execute(f"ALTER TABLE {quote(models.read)}.position ADD COLUMN note text DEFAULT ''")
    go_back(models, story)
    assert rows(models) == before
    assert models.run("SELECT DISTINCT position, note FROM position") == [(120, "")]


def test_reads_never_stop_while_sets_are_exchanged(models: Models) -> None:
    story = random_story(48, 200)
    drain(models.projector(FUNNEL, story, batch=30))
    deal = next(e for e in story.events if e.topic == "crm.opportunity.opened").stream_id
    expected = models.ask(funnel.deal, deal, NOW)
    models.rebuild(FUNNEL, story).run()
    done = threading.Event()
    seen: list[bool] = []

    def read() -> None:
        while not done.is_set():
            seen.append(models.ask(funnel.deal, deal, NOW) == expected)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for _ in range(6):
            go_back(models, story)
    finally:
        done.set()
        for reader in readers:
            reader.join()
    assert len(seen) > 10
    assert all(seen)
