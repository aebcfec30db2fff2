"""Rows and positions move together; each event counts once; what is poisoned waits alone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from random import Random
from typing import Any

import psycopg2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.opportunity import Opportunity
from domain.values import ExternalId
from infra.eventstore.feed import Batch, Head, Undecodable, partition_of
from projections import account, customers, funnel
from projections.catalogue import PROJECTIONS
from projections.customers import CustomersProjection
from projections.funnel import FunnelProjection
from projections.funnel.deals import DealFold
from projections.projection import Fact, Row, State
from projections.projector import LateOwner, NewerProgram, Projector, RebuildNeeded
from projections.reading import Moment
from projections.writing import StaleRows
from tests.integration.projections.conftest import Models
from tests.integration.projections.delivering import deliver
from tests.integration.projections.story import START, Story, named, yuan
from tests.integration.projections.strategies import random_story

pytestmark = pytest.mark.database

TABLES = [table for projection in PROJECTIONS.values() for table in projection.tables()]
NOW = Moment(START + timedelta(days=20000), latest=True)


def everything(models: Models) -> dict[str, list[Any]]:
    """All rows, and the account of each read model, however many partitions it has."""
    return {**{table: models.rows(table) for table in TABLES}, "account": models.account()}


def drain(projector: Projector, limit: int | None = None) -> None:
    while projector.step(limit):
        pass


def emptied(models: Models) -> None:
    for projection in PROJECTIONS.values():
        for view in projection.views:
            models.run(f"DROP VIEW IF EXISTS {view.name}")
        for table in projection.tables():
            models.run(f"DROP TABLE IF EXISTS {table}")
    models.run("DELETE FROM position")
    models.run("DELETE FROM parked")


def end_of(story: Story) -> list[Any]:
    """What the accounts say when everything was taken in."""
    sums = {
        projection.id: account.summed(
            (event for event in story.events if event.topic in projection.topics), 1
        )[0, 0]
        for projection in PROJECTIONS.values()
    }
    return sorted((id_, 0, events, digest) for id_, (events, digest) in sums.items())


@settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10**9),
    late=st.sampled_from([0.0, 0.4, 0.9]),
    sizes=st.tuples(*[st.integers(1, 60)] * 4),
    partitions=st.integers(2, 7),
)
def test_however_the_log_is_cut_the_rows_are_the_same(
    models: Models, seed: int, late: float, sizes: tuple[int, ...], partitions: int
) -> None:
    story = random_story(seed, 160, late=late)

    def project(**options: Any) -> None:
        for projection in PROJECTIONS.values():
            drain(models.projector(projection, story, **options))

    def repartitioned() -> None:
        """Each of three owners goes at its own pace."""
        for projection in PROJECTIONS.values():
            for first in (2, 0, 1):
                owned = list(range(first, partitions, 3))
                if owned:
                    options = {"partitions": partitions, "owned": owned, "batch": sizes[first]}
                    drain(models.projector(projection, story, **options))

    def delivered() -> None:
        """Two owners, each of which gets its partitions cut and mixed in some way."""
        random = Random(seed)
        for projection in PROJECTIONS.values():
            for first in (1, 0):
                projector = models.projector(projection, story, partitions=partitions)
                deliver(projector, story, partitions, range(first, partitions, 2), random)

    def rebuilt() -> None:
        project(batch=sizes[0])
        for projection in PROJECTIONS.values():
            assert models.rebuild(projection, story, batch=sizes[1]).run().same

    ways: dict[str, Callable[[], None]] = {
        "one by one": lambda: project(batch=1),
        "in batches": lambda: project(batch=sizes[3]),
        "at once": lambda: project(batch=1000),
        "without a cache": lambda: project(batch=sizes[2], cached_facts=0),
        "repartitioned": repartitioned,
        "delivered": delivered,
        "rebuilt": rebuilt,
    }
    expected = None
    emptied(models)
    for way, run in ways.items():
        run()
        found = everything(models)
        expected = expected or found
        assert found == expected, way
        assert found["account"] == end_of(story), way
        assert models.rows("parked") == []
        emptied(models)


@pytest.mark.parametrize("name", list(PROJECTIONS))
def test_a_rebuild_finds_the_same(models: Models, name: str) -> None:
    story = random_story(5, 300)
    projection = PROJECTIONS[name]
    projector = models.projector(projection, story, batch=20)
    drain(projector)
    before = {table: models.rows(table) for table in projection.tables()}
    result = models.rebuild(projection, story, batch=64).run()
    assert result.same
    assert result.position == len(story.events)
    assert {table.table for table in result.compared} == set(before)
    assert {table: models.rows(table) for table in projection.tables()} == before
    # The live projector, which may have known rows that were wrong, notices and goes on.
    story.customer("one more", START)
    with pytest.raises(LateOwner):
        projector.step()
    drain(projector)
    assert projector.position() == len(story.events)


def test_events_at_or_below_the_position_are_skipped(models: Models) -> None:
    story = random_story(9, 60)

    class Again:
        """A feed that repeats itself."""

        def read(self, after: int, limit: int) -> Batch:
            batch = story.read(after, limit)
            return Batch(story.events[: batch.through], batch.through, batch.head)

        def head(self) -> Head:
            return story.head()

    projector = models.projector(FunnelProjection(), Again(), batch=10, partitions=3)
    # One partition lags behind the others, so that batches begin before the others' positions.
    lagging = models.projector(FunnelProjection(), story, batch=7, partitions=3, owned=[0, 1])
    drain(lagging)
    drain(projector)
    found = models.rows("deal_fact")
    emptied(models)
    drain(models.projector(FunnelProjection(), story))
    assert models.rows("deal_fact") == found


def test_a_late_owner_writes_nothing(models: Models) -> None:
    story = random_story(3, 80)
    first = models.projector(FunnelProjection(), story, batch=20)
    second = models.projector(FunnelProjection(), story, batch=20)
    first.step()
    second.position()
    first.step()
    with pytest.raises(LateOwner):
        second.step()
    assert second.counters.late_owner == 1
    drain(second)  # starts from where the other was
    drain_error = None
    try:
        drain(first)
    except LateOwner as error:  # it had not seen the other's moves
        drain_error = error
    assert drain_error is None or first.counters.late_owner == 1
    found = models.rows("deal_period")
    emptied(models)
    drain(models.projector(FunnelProjection(), story))
    assert models.rows("deal_period") == found


def test_a_crash_between_batches_counts_nothing_twice(models: Models) -> None:
    story = random_story(4, 90)
    for _ in range(30):
        models.projector(FunnelProjection(), story, batch=4).step()
    found = models.rows("deal_period")
    emptied(models)
    drain(models.projector(FunnelProjection(), story))
    assert models.rows("deal_period") == found


def test_a_batch_that_fails_is_as_if_it_never_was(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    story = random_story(6, 60)
    projector = models.projector(FunnelProjection(), story, batch=10)  # the next is folded ahead
    projector.step()

    def broken(*_: Any) -> None:
        raise psycopg2.OperationalError("gone")

    monkeypatch.setattr("projections.folding.send", broken)
    with pytest.raises(psycopg2.OperationalError):
        projector.step()
    monkeypatch.undo()
    assert projector.position() == 10
    drain(projector)
    found = models.rows("deal_period")
    emptied(models)
    drain(models.projector(FunnelProjection(), story))
    assert models.rows("deal_period") == found


def test_rows_that_are_not_there_are_noticed(models: Models) -> None:
    story = Story()
    deal = story.deal("d", story.customer("acme"), yuan("1.00"))
    projector = models.projector(FunnelProjection(), story)
    drain(projector)
    models.run("DELETE FROM deal_period")
    story.advance(deal, "bid", START + timedelta(1))
    with pytest.raises(StaleRows):
        projector.step()


def test_positions_appear_at_zero(models: Models) -> None:
    projector = models.projector(FunnelProjection(), Story(), partitions=4)
    assert projector.step() == 0
    assert models.run("SELECT partition, position FROM position ORDER BY 1") == [
        (partition, 0) for partition in range(4)
    ]
    assert projector.position_of(named("anything")) == 0


def test_another_version_asks_for_a_rebuild(models: Models) -> None:
    class Next(FunnelProjection):
        version = FunnelProjection.version + 1

    story = random_story(7, 50)
    drain(models.projector(FunnelProjection(), story))
    with pytest.raises(RebuildNeeded):
        models.projector(Next(), story).step()
    result = models.rebuild(Next(), story).run()
    assert result.compared == []
    assert models.projector(Next(), story).position() == len(story.events)
    # The earlier program ends; it goes back only if it is told to.
    with pytest.raises(NewerProgram, match="crm rebuild funnel"):
        models.projector(FunnelProjection(), story).step()
    with pytest.raises(NewerProgram):
        models.rebuild(FunnelProjection(), story).run()
    assert models.rebuild(FunnelProjection(), story, backwards=True).run().compared == []
    assert models.projector(FunnelProjection(), story).step() == 0


def test_another_number_of_partitions_asks_for_a_rebuild(models: Models) -> None:
    story = random_story(7, 50)
    drain(models.projector(FunnelProjection(), story, partitions=3))
    before = models.rows("deal_period")
    with pytest.raises(RebuildNeeded):
        models.projector(FunnelProjection(), story, partitions=5).step()
    result = models.rebuild(FunnelProjection(), story, partitions=5).run()
    assert result.same
    assert len(result.compared) == len(FunnelProjection().tables())
    assert models.rows("deal_period") == before
    assert models.projector(FunnelProjection(), story, partitions=5).position() == 50


# ---- parking ----


def poisoned() -> tuple[Story, Any]:
    """Three deals; the second event of the second cannot be decoded."""
    story = Story()
    customer = story.customer("acme")
    for name in ("a", "b", "c"):
        story.deal(name, customer, yuan("10.00"))
    for name in ("a", "b", "c"):
        story.of_deal(
            named(name),
            Opportunity.AmountChanged,
            START + timedelta(1),
            previous=yuan("10.00"),
            amount=yuan("20.00"),
        )
    for name in ("a", "b", "c"):
        story.advance(named(name), "bid", START + timedelta(2))
    victim = next(e for e in story.events if e.stream_id == named("b") and e.version == 2)
    return story, victim


@pytest.mark.parametrize("batch", [1, 2, 5, 100])
def test_poison_holds_back_its_own_key_only(models: Models, batch: int) -> None:
    story, victim = poisoned()
    victim.event = Undecodable(1, b'{"nonsense": "\\u0000"}', "ValidationError: no amount")
    projector = models.projector(FunnelProjection(), story, batch=batch)
    drain(projector)
    assert projector.position() == len(story.events)
    for name, stage in (("a", "bid"), ("b", "prospect"), ("c", "bid")):
        assert models.ask(funnel.deal, named(name), NOW).stage == stage
    [parked] = projector.parked_keys()
    assert (parked.key, parked.position, parked.events) == (named("b"), victim.position, 2)
    assert parked.error == "ValidationError: no amount"
    assert parked.topic == "crm.opportunity.amount-changed"
    assert projector.counters.parked == 1
    assert not projector.retry(named("b"))  # it is as bad as before
    assert [p.events for p in projector.parked_keys()] == [2]
    with pytest.raises(KeyError):
        projector.retry(named("a"))


class Fussy(DealFold):
    """Refuses an amount of 20 until it is told better."""

    better = False

    def step(self, state: State, fact: Fact) -> tuple[State, tuple[Row, ...]]:
        if fact[2] == "amount-changed" and not Fussy.better:
            raise ZeroDivisionError("cannot take amounts")
        return super().step(state, fact)


class FussyFunnel(FunnelProjection):
    folds = (Fussy(), *FunnelProjection.folds[1:])


def test_a_key_tried_again_has_the_rows_it_would_have_had(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Fussy, "better", False)
    story, _ = poisoned()
    live = models.projector(FussyFunnel(), story, batch=3)
    drain(live)
    assert len(live.parked_keys()) == 3
    monkeypatch.setattr(Fussy, "better", True)
    helper = models.projector(FussyFunnel(), story)  # as `crm parked` does, from outside
    for name in ("a", "b", "c"):
        assert helper.retry(named(name))
    assert helper.parked_keys() == []
    # The live projector has seen nothing of this, and must notice.
    for name in ("a", "b", "c"):
        story.advance(named(name), "negotiation", START + timedelta(3))
    drain(live)
    assert live.parked_keys() == []
    assert live.counters.parked == 0
    found = {table: models.rows(table) for table in FunnelProjection().tables()}
    emptied(models)
    drain(models.projector(FunnelProjection(), story))
    assert {table: models.rows(table) for table in FunnelProjection().tables()} == found


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_what_the_database_refuses_is_narrowed_down_to_its_key(models: Models, batch: int) -> None:
    story = Story()
    for name in ("a", "b", "c", "d", "e"):
        story.customer(name)
    victim = story.events[2]
    # As no command would let it through: the class checks its fields only when it is built.
    victim.event.__dict__["name"] = "nul \x00 byte"
    story.respond(named("c"), named("campaign"), START)
    story.respond(named("d"), named("campaign"), START)
    projector = models.projector(CustomersProjection(), story, batch=batch)
    drain(projector)
    names = sorted(row.name or "" for row in models.ask(customers.customers, NOW).rows)
    assert names == ["a", "b", "d", "e"]
    [parked] = projector.parked_keys()
    assert (parked.key, parked.events) == (named("c"), 2)
    assert "\x00" not in parked.error
    assert projector.counters.refused_batches >= 1
    assert not projector.retry(named("c"))
    assert projector.position() == len(story.events)


def test_a_lone_surrogate_parks_its_key(models: Models) -> None:
    story = Story()
    story.customer("a")
    story.customer("b")
    story.events[1].event.__dict__["external_id"] = ExternalId("old", "\ud800")
    projector = models.projector(CustomersProjection(), story)
    drain(projector)
    assert [row.name for row in models.ask(customers.customers, NOW).rows] == ["a"]
    assert [p.key for p in projector.parked_keys()] == [named("b")]


def test_partitions_are_told_apart_by_the_partition_key(models: Models) -> None:
    story, _ = poisoned()
    mine = partition_of(named("acme"), 12)
    drain(models.projector(FunnelProjection(), story, owned=[mine]))
    assert len(models.rows("deal_fact")) == 9
    others = [partition for partition in range(12) if partition != mine]
    drain(models.projector(FunnelProjection(), story, owned=others))
    assert len(models.rows("deal_fact")) == 9
