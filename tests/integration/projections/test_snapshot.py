"""The views for BI at one position, though the read models are not equally far."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from psycopg2.extensions import connection as Connection  # noqa: N812  (it is a class)

from infra.postgres import connect
from projections.catalogue import PROJECTIONS
from projections.projector import Projector
from projections.snapshot import NotBuilt, Snapshot, snapshot
from tests.integration.projections.conftest import Models
from tests.integration.projections.story import Story
from tests.integration.projections.strategies import random_story

pytestmark = pytest.mark.database

MODELS = list(PROJECTIONS.values())


@pytest.fixture
def reader(database_url: str) -> Iterator[Connection]:
    connection = connect(database_url, role="crm_reader")
    yield connection
    connection.close()


def rows(connection: Connection, shot: Snapshot) -> dict[str, list[Any]]:
    """Of every view but `freshness`, which tells how far the read models are."""
    found = {}
    with connection.cursor() as cursor:
        for view in shot.views:
            cursor.execute(f"SELECT row::text FROM ({shot.query(view)}) AS row ORDER BY 1")
            found[view.name] = cursor.fetchall()
    del found["freshness"]
    return found


@pytest.mark.parametrize("seed", range(4))
def test_what_came_later_to_some_of_them_is_left_out(
    models: Models, reader: Connection, seed: int
) -> None:
    story = random_story(seed, 160, customers=6)
    projectors = {one.name: models.projector(one, story) for one in MODELS}
    for projector in projectors.values():
        assert projector.step(90) == 90
    with snapshot(reader, MODELS, read=models.read, bi=models.bi) as shot:
        assert shot.position == 90
        wanted = rows(reader, shot)
    for name in wanted:
        shown = models.run(f"SELECT row::text FROM {models.bi}.{name} AS row ORDER BY 1")
        assert wanted[name] == shown, name
    for name in ("customers", "attribution", "lifecycle", "funnel"):
        _to_the_end(projectors[name])
        with snapshot(reader, MODELS, read=models.read, bi=models.bi) as shot:
            if name != "funnel":
                assert shot.position == 90
                assert rows(reader, shot) == wanted
            else:
                assert shot.position == len(story.events)
                assert rows(reader, shot) != wanted


def test_partitions_that_are_not_equally_far(models: Models, reader: Connection) -> None:
    story = random_story(5, 120, customers=6)
    for one in MODELS:
        models.projector(one, story).step(60)
    with snapshot(reader, MODELS, read=models.read, bi=models.bi) as shot:
        wanted = rows(reader, shot)
    for one in MODELS:
        _to_the_end(models.projector(one, story, owned=[0, 3, 5, 7, 11]))
    with snapshot(reader, MODELS, read=models.read, bi=models.bi) as shot:
        assert shot.position == 60
        assert rows(reader, shot) == wanted
        assert {one.position for one in shot.reached.values()} == {60}


def test_what_comes_in_meanwhile_is_not_in_it(models: Models, reader: Connection) -> None:
    story = random_story(6, 120)
    models.project(random_story(6, 60))
    with snapshot(reader, MODELS, read=models.read, bi=models.bi) as shot:
        wanted = rows(reader, shot)
        models.project(story)
        assert rows(reader, shot) == wanted


def test_the_tables_cannot_be_replaced_meanwhile(models: Models, reader: Connection) -> None:
    models.project(random_story(7, 60))
    with snapshot(reader, MODELS, read=models.read, bi=models.bi):
        assert models.run(
            "SELECT count(DISTINCT relation) >= %s FROM pg_locks WHERE pid = %s"
            " AND mode = 'AccessShareLock' AND relation IN"
            " (SELECT oid FROM pg_class WHERE relnamespace = %s::regnamespace)",
            sum(len(one.tables()) for one in MODELS),
            reader.info.backend_pid,
            models.read,
        ) == [(True,)]


class TestNotBuilt:
    def test_nothing_is_there(self, models: Models, reader: Connection) -> None:
        with (
            pytest.raises(NotBuilt, match="has not been built yet"),
            snapshot(reader, MODELS, read=models.read, bi=models.bi),
        ):
            pass

    def test_another_version_is_there(self, models: Models, reader: Connection) -> None:
        models.project(Story())
        models.run("UPDATE position SET projection = 'funnel/0' WHERE projection LIKE 'funnel/%%'")
        with (
            pytest.raises(NotBuilt, match="funnel/0 is there, funnel/"),
            snapshot(reader, MODELS, read=models.read, bi=models.bi),
        ):
            pass


def _to_the_end(projector: Projector) -> None:
    while projector.step():
        pass
