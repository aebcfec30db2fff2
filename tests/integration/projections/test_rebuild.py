"""A rebuild fills a new set beside the live one, compares the two and swaps them at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from infra.eventstore.feed import Batch, Head, Recorded
from projections import funnel
from projections.catalogue import PROJECTIONS
from projections.funnel import FunnelProjection
from projections.reading import Moment
from projections.rebuild import ReadersInTheWay, RebuildRunning, clean, shadow_schema
from tests.integration.projections.conftest import Models
from tests.integration.projections.story import PIPELINE, START, Story
from tests.integration.projections.strategies import random_story

pytestmark = pytest.mark.database

NOW = Moment(START + timedelta(days=20000), latest=True)


def projected(models: Models, story: Story) -> Any:
    projector = models.projector(FunnelProjection(), story, batch=50)
    while projector.step():
        pass
    return projector


def shadows(models: Models) -> int:
    like = f"{models.read}_shadow_%"
    count: int = models.run("SELECT count(*) FROM pg_namespace WHERE nspname LIKE %s", like)[0][0]
    return count


def test_what_differs_is_shown_and_mended(models: Models) -> None:
    story = random_story(11, 150)
    projected(models, story)
    good = models.rows("deal_period")
    models.run("UPDATE deal_period SET amount = amount + 1 WHERE known_to > 9000000")
    models.run("DELETE FROM visit_period WHERE visit = 1")
    result = models.rebuild(FunnelProjection(), story).run()
    assert not result.same
    by_table = {table.table: table for table in result.compared}
    assert by_table["deal_fact"].same
    deals = by_table["deal_period"]
    assert not deals.same
    assert deals.live_rows == deals.rebuilt_rows
    assert {line.split(":")[0] for line in deals.differing} == {"live", "rebuilt"}
    assert len(deals.differing) <= 10
    visits = by_table["visit_period"]
    assert visits.live_rows < visits.rebuilt_rows
    assert models.rows("deal_period") == good
    assert models.rebuild(FunnelProjection(), story).run().same


def test_a_live_set_that_lags_is_compared_where_it_is(models: Models) -> None:
    story = random_story(12, 200)
    projector = models.projector(FunnelProjection(), story, batch=70)
    projector.step()
    result = models.rebuild(FunnelProjection(), story).run()
    assert result.same
    assert result.position == 200
    assert models.projector(FunnelProjection(), story).position() == 200


def test_a_live_set_that_runs_ahead_is_caught_up_with(models: Models) -> None:
    story = random_story(13, 200)
    told, story.events = story.events, story.events[:150]
    projector = projected(models, story)

    class Slow:
        """Shows the rebuild the end of the log only after the live projector has seen it."""

        def by_key(self, *asked: Any) -> Iterator[list[Recorded]]:
            yield from story.by_key(*asked)
            story.events = told
            while projector.step():
                pass

        def read(self, after: int, limit: int) -> Batch:
            return story.read(after, limit)

        def head(self) -> Head:
            return story.head()

    result = models.rebuild(FunnelProjection(), Slow()).run()
    assert result.same
    assert result.position == 200


def test_reads_never_stop_while_it_runs(models: Models) -> None:
    story = random_story(14, 400)
    projected(models, story)
    deal = next(e for e in story.events if e.topic == "crm.opportunity.opened").stream_id
    expected = models.ask(funnel.deal, deal, NOW)
    done = threading.Event()
    seen: list[Any] = []

    def read() -> None:
        while not done.is_set():
            seen.append(models.ask(funnel.deal, deal, NOW) == expected)
            models.ask(funnel.funnel, NOW, pipeline_id=PIPELINE, currency="CNY")

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for _ in range(3):
            assert models.rebuild(FunnelProjection(), story, batch=40).run().same
    finally:
        done.set()
        for reader in readers:
            reader.join()
    assert len(seen) > 10
    assert all(seen)


def test_a_long_reader_only_delays_it(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    story = random_story(15, 100)
    projected(models, story)
    holding, release = threading.Event(), threading.Event()

    def hold() -> None:
        with models.pool.connection() as connection, connection.cursor() as cursor:
            cursor.execute(f"SELECT count(*) FROM {models.read}.deal_period")
            holding.set()
            release.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert holding.wait(60)
    monkeypatch.setattr("projections.rebuild.swapping._TRIES", 5)
    before = models.rows("deal_period")
    with pytest.raises(ReadersInTheWay):
        models.rebuild(FunnelProjection(), story).run()
    assert models.rows("deal_period") == before
    monkeypatch.undo()
    threading.Timer(1.0, release.set).start()
    result = models.rebuild(FunnelProjection(), story).run()
    assert result.same
    assert result.resumed  # what was filled is not filled again
    assert shadows(models) == 0
    holder.join()


def test_an_interrupted_one_leaves_the_live_set_and_is_cleaned_up(models: Models) -> None:
    story = random_story(16, 100)
    projected(models, story)
    before = models.rows("deal_period")

    class Breaks:
        def by_key(self, *asked: Any) -> Iterator[list[Recorded]]:
            yield next(story.by_key(*asked))
            raise ConnectionError("gone")

        def read(self, after: int, limit: int) -> Batch:
            return story.read(after, limit)

        def head(self) -> Head:
            return story.head()

    with pytest.raises(ConnectionError):
        models.rebuild(FunnelProjection(), Breaks(), batch=50).run()
    assert models.rows("deal_period") == before
    # A killed process has no chance to tidy up.
    models.run(f"CREATE SCHEMA {shadow_schema(FunnelProjection(), models.read)}")
    models.run(f"CREATE TABLE {shadow_schema(FunnelProjection(), models.read)}.deal_fact (x int)")
    clean(models.pool, FunnelProjection(), models.read)
    assert shadows(models) == 0
    models.run(f"CREATE SCHEMA {shadow_schema(FunnelProjection(), models.read)}")
    assert models.rebuild(FunnelProjection(), story).run().same
    assert shadows(models) == 0


def test_only_one_at_a_time(models: Models) -> None:
    story = random_story(17, 60)
    projected(models, story)
    refused: list[BaseException] = []

    def meanwhile(_: int) -> None:
        clean(models.pool, FunnelProjection(), models.read)  # leaves the running one alone
        try:
            models.rebuild(FunnelProjection(), story).run()
        except RebuildRunning as error:
            refused.append(error)

    result = models.rebuild(FunnelProjection(), story, batch=30, on_progress=meanwhile).run()
    assert result.same
    assert refused


def test_the_live_projector_goes_on_while_it_runs(models: Models) -> None:
    story = random_story(18, 400)
    told, story.events = story.events, story.events[:200]
    projector = projected(models, story)
    done = threading.Event()
    errors: list[BaseException] = []

    def live() -> None:
        while not done.is_set() or projector.step():
            try:
                story.events = told[: len(story.events) + 3]
                projector.step()
            except Exception as error:
                errors.append(error)
            time.sleep(0.005)

    thread = threading.Thread(target=live)
    thread.start()
    for _ in range(2):
        assert models.rebuild(FunnelProjection(), story, batch=50).run().same
    done.set()
    thread.join(60)
    assert [type(error).__name__ for error in errors if "LateOwner" not in repr(error)] == []
    story.events = told
    while projector.step():
        pass
    found = models.rows("deal_period")
    assert models.rebuild(FunnelProjection(), story).run().same
    assert models.rows("deal_period") == found


def test_parked_keys_are_those_of_the_new_set(models: Models) -> None:
    story = random_story(19, 60)
    projected(models, story)
    models.run(
        "INSERT INTO parked (projection, key, position, event, error)"
        " VALUES (%s, gen_random_uuid(), 3, '{}', 'mended since')",
        FunnelProjection().id,
    )
    models.rebuild(FunnelProjection(), story).run()
    assert models.rows("parked") == []


def test_every_view_and_column_has_a_comment_before_and_after(models: Models) -> None:
    story = random_story(20, 60)
    models.project(story)
    missing = (
        "SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid"
        " WHERE c.relnamespace = %s::regnamespace AND a.attnum >= 0 AND NOT a.attisdropped"
        " AND c.relkind IN ('v', 'r') AND c.relname <> 'migration'"
        " AND (col_description(c.oid, a.attnum) IS NULL OR obj_description(c.oid) IS NULL)"
    )
    views = sorted(view.name for one in PROJECTIONS.values() for view in one.views)

    def shown() -> Any:
        return models.run(
            "SELECT relname FROM pg_class WHERE relnamespace = %s::regnamespace"
            " AND relkind = 'v' ORDER BY 1",
            models.bi,
        )

    for _ in range(2):
        assert [row[0] for row in shown()] == views
        assert models.run(missing, models.bi) == []
        assert models.run(missing, models.read) == []
        for view in views:
            with models.pool.connection() as connection, connection.cursor() as cursor:
                cursor.execute(f"SELECT count(*) FROM {models.bi}.{view}")
        for one in PROJECTIONS.values():
            assert models.rebuild(one, story).run().same


def test_readers_may_read_the_new_tables(models: Models) -> None:
    story = random_story(21, 60)
    models.project(story)
    for one in PROJECTIONS.values():
        models.rebuild(one, story).run()
    for role, schema, kind in (
        ("crm_reader", models.read, "r"),
        ("crm_reader", models.bi, "v"),
        ("bi_reader", models.bi, "v"),
        ("crm_bi", models.bi, "v"),
    ):
        rows = models.run(
            "SELECT relname FROM pg_class WHERE relnamespace = %s::regnamespace AND relkind = %s"
            " AND NOT has_table_privilege(%s, oid, 'SELECT')",
            schema,
            kind,
            role,
        )
        assert [row for row in rows if "migration" not in row[0]] == []
