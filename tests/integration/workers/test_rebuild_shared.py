"""A rebuild whose work processes share makes the same set as any other way."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.values import Personal
from infra.eventstore.doorbell import Doorbell
from infra.eventstore.feed import StoreFeed, crc32_sql, partition_of
from infra.postgres import Pool, connect, quote
from infra.settings import load
from projections.catalogue import PROJECTIONS
from projections.funnel import FunnelProjection
from projections.projection import Projection
from projections.rebuild import FillingFailed, Rebuild, shadow_schema
from projections.rebuild.filling import shares
from tests.integration.projections.conftest import Models
from tests.integration.projections.logged import write_log
from tests.integration.projections.story import Story
from tests.integration.projections.strategies import random_story
from tests.integration.projections.test_projector import drain, emptied, everything
from workers.filling import Processes

pytestmark = pytest.mark.database


@dataclass
class Workshop:
    """Read models over a log in the database, and processes that can read it."""

    models: Models
    log_pool: Pool
    log_schema: str
    processes: dict[int, Processes]

    def write(self, story: Story) -> None:
        for event in story.events:
            for name, value in vars(event.event).items():
                if isinstance(value, Personal):  # which the log holds sealed for its place
                    place = f"{value.subject}.{event.stream_id}:{event.version}.{name}"
                    event.event.__dict__[name] = Personal(value.subject, None, f"1.{place}.x")
        write_log(self.log_pool, self.log_schema, story)

    def feed(self, projection: Projection) -> StoreFeed:
        return StoreFeed(self.log_pool, Doorbell(), projection.topics)

    def rebuild(self, projection: Projection, workers: int, partitions: int) -> Rebuild:
        return self.models.rebuild(
            projection,
            self.feed(projection),
            partitions=partitions,
            fillers=self.processes.get(workers),
        )


@pytest.fixture
def workshop(
    database_url: str, fresh_schemas: dict[str, str], tmp_path: Path
) -> Iterator[Workshop]:
    models = Models(database_url, fresh_schemas)
    schema = fresh_schemas["log"]
    settings_of_them = load({"CRM_DATA_DIR": str(tmp_path)})
    running = {
        number: Processes(database_url, database_url, settings_of_them, number, schema)
        for number in (2, 3)
    }
    with Pool(database_url, size=4, search_path=[schema], autocommit=True) as log_pool:
        yield Workshop(models, log_pool, schema, running)
        for processes in running.values():
            processes.close()
        models.close()


@settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10**9),
    late=st.sampled_from([0.0, 0.4, 0.9]),
    size=st.integers(1, 60),
    partitions=st.integers(2, 7),
)
def test_however_many_processes_share_it_the_rows_are_the_same(
    workshop: Workshop, seed: int, late: float, size: int, partitions: int
) -> None:
    """As one by one, in batches, and for another number of partitions."""
    story = random_story(seed, 160, late=late)
    workshop.write(story)
    models = workshop.models

    def project(batch: int) -> None:
        for projection in PROJECTIONS.values():
            feed = workshop.feed(projection)
            drain(models.projector(projection, feed, partitions=partitions, batch=batch))
        assert models.rows("parked") == []

    def rebuilt(workers: int, partitions: int) -> None:
        for projection in PROJECTIONS.values():
            result = workshop.rebuild(projection, workers, partitions).run()
            assert result.same
            assert {table.table for table in result.compared} >= {*projection.tables()}

    emptied(models)
    project(1)
    expected = everything(models)
    emptied(models)
    project(size)
    assert everything(models) == expected, "in batches"
    for workers, into in ((1, partitions), (2, partitions), (3, partitions), (2, partitions + 1)):
        rebuilt(workers, into)
        assert everything(models) == expected, f"{workers} workers, {into} partitions"
        assert models.run("SELECT DISTINCT position FROM position") == [(len(story.events),)]


def test_every_partition_is_in_one_share() -> None:
    for through in (1, 1_000_000, 2_500_000, 60_000_000):
        for workers in (1, 2, 3, 8):
            parts = shares(range(12), through, workers)
            assert sorted(partition for share in parts for partition in share) == list(range(12))
            assert len(parts) >= min(workers, 12)
    assert shares([], 10, 2) == []


@pytest.mark.parametrize("since", [0, 10**9], ids=["with its own function", "without one"])
def test_the_server_tells_partitions_apart_as_everybody_does(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, since: int
) -> None:
    monkeypatch.setattr("infra.eventstore.feed._CRC32_SINCE", since)
    story = random_story(5, 120, customers=20)
    workshop.write(story)
    feed = workshop.feed(FunnelProjection())
    for share in ([0, 3], [1], [2, 4]):
        told = chain(*feed.by_key(share, 5, 110, 7))
        assert sorted(event.position for event in told) == [
            event.position for event in story.events[:110]
            if event.topic in FunnelProjection().topics
            and partition_of(event.partition_key, 5) in share
        ]  # fmt: skip


@given(st.lists(st.binary(min_size=16, max_size=16), max_size=50))
@settings(max_examples=30)
def test_the_servers_crc(database_url: str, octets: list[bytes]) -> None:
    connection = connect(database_url)
    with closing(connection), connection.cursor() as cursor:
        cursor.execute(f"SELECT {crc32_sql('octets')} FROM unnest(%s::bytea[]) AS octets", [octets])
        assert [row[0] for row in cursor.fetchall()] == [zlib.crc32(one) for one in octets]


def test_a_key_is_told_in_one_piece(workshop: Workshop) -> None:
    story = random_story(6, 200, customers=6)
    workshop.write(story)
    pieces = list(workshop.feed(FunnelProjection()).by_key(range(3), 3, 200, 5))
    keys = [{event.partition_key for event in piece} for piece in pieces]
    assert len(pieces) > 2
    assert sum(len(some) for some in keys) == len(set().union(*keys))


def poison(workshop: Workshop, story: Story) -> tuple[str, list[int]]:
    """Spoil an event of a deal; its id, and the positions from there on that are about it."""
    deal = next(e for e in story.events if e.topic == "crm.opportunity.opened").stream_id
    own = [event.position for event in story.events if event.stream_id == deal]
    with workshop.log_pool.connection() as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE events SET state = '{\"name\": 7}' WHERE position = %s", [own[1]])
    return str(deal), own[1:]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_poison_event_parks_its_key_alone(workshop: Workshop, workers: int) -> None:
    story = random_story(21, 160)
    workshop.write(story)
    deal, waiting = poison(workshop, story)
    models, projection = workshop.models, FunnelProjection()
    drain(models.projector(projection, workshop.feed(projection), partitions=4, batch=20))
    live = {name: models.rows(name) for name in projection.tables()}
    result = workshop.rebuild(projection, workers, 4).run()
    assert result.same
    assert (result.parked, result.live_parked) == (1, 1)
    assert {name: models.rows(name) for name in projection.tables()} == live
    parked = models.run("SELECT key::text, position, error <> '' FROM parked ORDER BY position")
    assert parked == [(deal, position, position == waiting[0]) for position in waiting]
    assert models.run("SELECT count(DISTINCT deal_id) > 1 FROM deal_fact") == [(True,)]


@pytest.mark.parametrize("workers", [1, 2])
def test_rows_that_the_database_refuses_park_their_key_alone(
    workshop: Workshop, workers: int
) -> None:
    story = random_story(22, 160)
    deal = next(e for e in story.events if e.topic == "crm.opportunity.opened")
    deal.event.__dict__["name"] = "a\x00b"  # jsonb and text cannot hold it
    workshop.write(story)
    models, projection = workshop.models, FunnelProjection()
    drain(models.projector(projection, workshop.feed(projection), partitions=4, batch=20))
    live = {name: models.rows(name) for name in projection.tables()}
    assert workshop.rebuild(projection, workers, 4).run().same
    assert {name: models.rows(name) for name in projection.tables()} == live
    assert {row[0] for row in models.run("SELECT key FROM parked")} == {deal.stream_id}


def test_processes_that_died_unheard_are_still_put_away(workshop: Workshop) -> None:
    workshop.write(random_story(23, 20))
    fillers = workshop.processes[2]
    running = list(fillers._running)
    fillers.kill()
    for process in running:
        process.wait()  # so that what is sent meets nobody
    rebuild = workshop.models.rebuild(
        FunnelProjection(), workshop.feed(FunnelProjection()), fillers=fillers
    )
    with pytest.raises(FillingFailed):
        rebuild.run()
    fillers.close()
    for process in running:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdin.closed
        assert process.stdout.closed


def test_a_process_that_dies_leaves_what_the_others_filled(workshop: Workshop) -> None:
    story = random_story(23, 160, customers=30)
    workshop.write(story)
    models, projection = workshop.models, FunnelProjection()
    drain(models.projector(projection, workshop.feed(projection)))
    before = models.rows("deal_period")
    fillers = workshop.processes[2]
    many = [[partition] for partition in range(12)]
    told: list[int] = []

    class Dying:
        """After some shares."""

        workers = 2

        def fill(self, *asked: object) -> None:
            given = list(asked)
            given[2] = many[:5]
            fillers.fill(*given)  # type: ignore[arg-type]
            fillers.kill()
            given[2] = many[5:]
            fillers.fill(*given)  # type: ignore[arg-type]

    rebuild = models.rebuild(projection, workshop.feed(projection), fillers=Dying())
    with pytest.raises(FillingFailed):
        rebuild.run()
    assert models.rows("deal_period") == before
    shadow = quote(shadow_schema(projection, models.read))
    filled = models.run(f"SELECT partition FROM {shadow}.position WHERE position > 0")
    assert {row[0] for row in filled} == set(range(5))
    result = models.rebuild(projection, workshop.feed(projection), on_progress=told.append).run()
    assert result.resumed
    assert result.same
    assert models.rows("deal_period") == before
    assert len(told) > 0
