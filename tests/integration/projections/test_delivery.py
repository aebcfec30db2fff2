"""Events that a broker delivered: owned partitions, offsets, late owners, the account."""

from __future__ import annotations

from random import Random
from typing import Any
from uuid import UUID

import psycopg2
import pytest

from infra.eventstore.feed import Recorded, Undecodable, partition_of
from projections import account, funnel
from projections.funnel import FunnelProjection
from projections.projection import Projection
from projections.projector import LateOwner, NewerProgram, Projector
from tests.integration.projections.conftest import Models
from tests.integration.projections.delivering import deliver, of_partition
from tests.integration.projections.story import START, Story, named, yuan
from tests.integration.projections.strategies import random_story
from tests.integration.projections.test_projector import (
    NOW,
    Fussy,
    FussyFunnel,
    drain,
    poisoned,
)

pytestmark = pytest.mark.database

TOPIC = UUID("11111111-0000-4000-8000-000000000000")


def positions(models: Models) -> dict[int, int]:
    return dict(models.run("SELECT partition, position FROM position"))


def accounted(models: Models) -> account.Sums:
    rows = models.run("SELECT partition, range, events, digest FROM applied")
    return {(partition, number): (events, digest) for partition, number, events, digest in rows}


def expected(story: Story, projection: Projection, partitions: int = 12) -> account.Sums:
    wanted = (event for event in story.events if event.topic in projection.topics)
    return account.summed(wanted, partitions)


@pytest.fixture
def story() -> Story:
    return random_story(31, 120)


def test_only_owned_partitions_move(models: Models, story: Story) -> None:
    projector = models.projector(FunnelProjection(), story, partitions=4)
    assert projector.own([1, 3]) == {1: 0, 3: 0}
    projector.apply(of_partition(story, 3, 4), {3: len(story.events)})
    assert positions(models) == {0: 0, 1: 0, 2: 0, 3: len(story.events)}
    assert {partition for partition, _ in accounted(models)} <= {3}
    with pytest.raises(LateOwner):
        projector.apply([], {2: 7})
    assert positions(models)[2] == 0
    assert projector.own([2]) == {2: 0}
    assert projector.own([]) == {}
    assert projector.step() == 0


def test_owners_of_disjoint_partitions_take_turns_without_hindrance(
    models: Models, story: Story
) -> None:
    first = models.projector(FunnelProjection(), story, partitions=4)
    second = models.projector(FunnelProjection(), story, partitions=4)
    end = len(story.events)
    first.own([0, 1])
    second.own([2, 3])
    for partition, owner in ((0, first), (2, second), (1, first), (3, second)):
        owner.apply(of_partition(story, partition, 4), {partition: end})
    assert set(positions(models).values()) == {end}
    assert accounted(models) == expected(story, FunnelProjection(), 4)
    assert first.counters.late_owner == second.counters.late_owner == 0


def test_a_partition_that_moved_to_another_owner_is_not_written_any_more(
    models: Models, story: Story
) -> None:
    late = models.projector(FunnelProjection(), story, partitions=2)
    new = models.projector(FunnelProjection(), story, partitions=2)
    late.own([0, 1])
    events = of_partition(story, 1, 2)
    end = len(story.events)
    new.own([1])
    new.apply(events[:5], {1: events[4].position})
    with pytest.raises(LateOwner):
        late.apply([*of_partition(story, 0, 2), *events], {0: end, 1: end})
    assert positions(models) == {0: 0, 1: events[4].position}
    # Until it asks again where it is, it may not go on: what it has may begin behind a hole.
    with pytest.raises(LateOwner):
        late.apply(events, {1: end})
    assert late.own([0]) == {0: 0}
    late.apply(of_partition(story, 0, 2), {0: end})
    new.apply(events, {1: end})
    assert accounted(models) == expected(story, FunnelProjection(), 2)


def test_what_comes_again_is_skipped_and_counted_once(models: Models, story: Story) -> None:
    projector = models.projector(FunnelProjection(), story, partitions=1)
    projector.own([0])
    for events in (story.events[:50], story.events[:30], story.events[10:80], story.events):
        projector.apply(events, {0: events[-1].position})
    projector.apply([], {0: 10})  # a watermark of long ago
    assert positions(models) == {0: len(story.events)}
    assert accounted(models) == expected(story, FunnelProjection(), 1)


def test_an_event_beyond_what_is_reached_is_an_error(models: Models, story: Story) -> None:
    projector = models.projector(FunnelProjection(), story, partitions=1)
    projector.own([0])
    with pytest.raises(ValueError, match="beyond"):
        projector.apply(story.events, {0: 10})
    assert positions(models) == {0: 0}


def test_a_lost_answer_to_a_commit_counts_nothing_twice(
    models: Models, story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    projector = models.projector(FunnelProjection(), story, partitions=1)
    projector.own([0])

    def lost(point: str) -> None:
        if point == "project.after_commit":
            raise psycopg2.OperationalError("connection lost")

    monkeypatch.setattr("projections.projector.reach", lost)
    with pytest.raises(psycopg2.OperationalError):
        projector.apply(story.events[:40], {0: 40})
    monkeypatch.undo()
    with pytest.raises(LateOwner):
        projector.apply(story.events[:40], {0: 40})
    assert projector.own([0]) == {0: 40}
    projector.apply(story.events, {0: len(story.events)})
    assert accounted(models) == expected(story, FunnelProjection(), 1)


def test_after_an_error_that_wrote_nothing_the_same_batch_goes_in(
    models: Models, story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    projector = models.projector(FunnelProjection(), story, partitions=1)
    projector.own([0])
    projector.apply(story.events[:20], {0: 20})

    def broken(*_: Any) -> None:
        raise psycopg2.OperationalError("gone")

    monkeypatch.setattr("projections.folding.send", broken)
    with pytest.raises(psycopg2.OperationalError):
        projector.apply(story.events[20:], {0: len(story.events)}, {0: (TOPIC, 120)})
    assert projector.offsets([0]) == {}
    monkeypatch.undo()
    projector.apply(story.events[20:], {0: len(story.events)}, {0: (TOPIC, 120)})
    assert accounted(models) == expected(story, FunnelProjection(), 1)


def test_offsets_are_kept_with_the_rows(models: Models, story: Story) -> None:
    projector = models.projector(FunnelProjection(), story, partitions=2)
    projector.own([0, 1])
    assert projector.offsets([0, 1]) == {}
    projector.apply([], {0: 5, 1: 5}, {0: (TOPIC, 17), 1: (TOPIC, 9)})
    projector.apply([], {0: 6}, {0: (TOPIC, 18)})
    assert projector.offsets([0, 1]) == {0: (TOPIC, 18), 1: (TOPIC, 9)}
    assert projector.offsets([1]) == {1: (TOPIC, 9)}
    late = models.projector(FunnelProjection(), story, partitions=2)
    late.own([0])
    projector.apply([], {0: 7}, {0: (TOPIC, 20)})
    with pytest.raises(LateOwner):
        late.apply([], {0: 8}, {0: (TOPIC, 30)})
    assert projector.offsets([0]) == {0: (TOPIC, 20)}


def test_memory_of_partitions_that_stay_is_kept_and_of_others_is_not(models: Models) -> None:
    story = Story()
    customer = story.customer("acme")
    deal = story.deal("d", customer, yuan("10.00"))
    mine = partition_of(customer, 2)
    projector = models.projector(FunnelProjection(), story, partitions=2)
    other = models.projector(FunnelProjection(), story, partitions=2)
    projector.own([mine])
    projector.apply(story.events, {mine: len(story.events)})
    kept = projector._folding.memory
    projector.own([0, 1])
    assert projector._folding.memory is kept
    projector.own([1 - mine])
    assert projector._folding.memory is not kept
    # Meanwhile another owner moved the deal on; back here its rows must not be those of before.
    story.advance(deal, "bid", START)
    other.own([mine])
    other.apply(story.events[2:], {mine: 3})
    story.advance(deal, "negotiation", START)
    projector.own([0, 1])
    projector.apply(story.events[3:], {mine: 4})
    rows = models.rows("deal_period")
    assert models.rebuild(FunnelProjection(), story, partitions=2).run().same
    assert models.rows("deal_period") == rows


def test_an_event_of_a_later_program_ends_this_one_and_parks_nothing(models: Models) -> None:
    story, victim = poisoned()
    victim.event = Undecodable(99, b"{}", "ValueError: of a later version")
    projector = models.projector(FunnelProjection(), story)
    with pytest.raises(NewerProgram, match="version 99"):
        projector.step()
    assert models.rows("parked") == []
    assert set(positions(models).values()) == {0}
    assert accounted(models) == {}


# ---- the account ----


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_the_account_holds_every_event_of_the_topics(
    models: Models, story: Story, batch: int
) -> None:
    drain(models.projector(FunnelProjection(), story, batch=batch))
    assert accounted(models) == expected(story, FunnelProjection())


def test_positions_are_told_apart_by_range(
    models: Models, story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projections.account.RANGE", 16)
    drain(models.projector(FunnelProjection(), story, batch=50))
    found = accounted(models)
    assert max(number for _, number in found) == (len(story.events) - 1) // 16
    assert found == expected(story, FunnelProjection())


def test_parked_events_count_when_they_are_taken_in_and_not_again(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Fussy, "better", False)
    story, _ = poisoned()
    projector = models.projector(FussyFunnel(), story, batch=3)
    drain(projector)
    assert len(projector.parked_keys()) == 3
    assert accounted(models) == expected(story, FunnelProjection())
    assert not projector.retry(named("a"))
    monkeypatch.setattr(Fussy, "better", True)
    for name in ("a", "b", "c"):
        assert projector.retry(named(name))
    assert accounted(models) == expected(story, FunnelProjection())
    assert models.ask(funnel.deal, named("a"), NOW).stage == "bid"


def test_a_refused_batch_that_goes_in_by_key_counts_once(models: Models, story: Story) -> None:
    victim = next(e for e in story.events if e.topic == "crm.opportunity.opened")
    victim.event.__dict__["name"] = "nul \x00 byte"
    projector = models.projector(FunnelProjection(), story, partitions=3)
    deliver(projector, story, 3, range(3), Random(5))
    assert projector.counters.refused_batches >= 1
    assert projector.counters.parked == 1
    assert accounted(models) == expected(story, FunnelProjection(), 3)


def test_a_rebuild_keeps_an_account_of_its_own(models: Models, story: Story) -> None:
    drain(models.projector(FunnelProjection(), story))
    models.run("UPDATE applied SET events = events + 1, digest = 0")
    models.rebuild(FunnelProjection(), story, partitions=5, batch=13).run()
    assert accounted(models) == expected(story, FunnelProjection(), 5)


def test_the_digest_is_that_of_the_event_s_id(models: Models) -> None:
    story = random_story(2, 20)
    rows: list[Recorded] = story.events
    for event in rows:
        values = f"(VALUES ('{event.stream_id}'::uuid, {event.version})) AS e(stream_id, version)"
        [(found,)] = models.run(f"SELECT {account.DIGEST_SQL} FROM {values}")
        assert found == account.digest_of(event.stream_id, event.version)


def test_both_feeds_may_take_turns(models: Models, story: Story) -> None:
    projector: Projector = models.projector(FunnelProjection(), story, partitions=3, batch=20)
    projector.step()
    found = projector.own(range(3))
    assert set(found.values()) == {20}
    projector.apply(story.events[20:60], dict.fromkeys(range(3), 60))
    drain(projector)
    assert accounted(models) == expected(story, FunnelProjection(), 3)
