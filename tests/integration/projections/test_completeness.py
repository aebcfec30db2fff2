"""What a position cannot tell is found: something left out, taken in twice, or exchanged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from infra.eventstore.doorbell import Doorbell
from infra.eventstore.feed import StoreFeed, partition_of
from infra.postgres import Pool
from projections import account
from projections.completeness import Completeness, RangeFinding, check
from projections.funnel import FunnelProjection
from projections.projector import Projector
from tests.integration.projections.conftest import Models
from tests.integration.projections.delivering import of_partition
from tests.integration.projections.logged import write_log
from tests.integration.projections.story import START
from tests.integration.projections.strategies import random_story
from tests.integration.projections.test_projector import drain

pytestmark = pytest.mark.database

FUNNEL = FunnelProjection()
PARTITIONS = 3
RANGE = 64


class Checked:
    """A story in a real log, a read model of it, and the check between the two."""

    def __init__(self, models: Models, log_pool: Pool, log_schema: str) -> None:
        self.models = models
        self.log_pool = log_pool
        self.log_schema = log_schema
        self.story = random_story(51, 300)
        self.record()

    def record(self) -> None:
        write_log(self.log_pool, self.log_schema, self.story)

    def projector(self, **options: Any) -> Projector:
        feed = StoreFeed(self.log_pool, Doorbell(), FUNNEL.topics)
        return self.models.projector(FUNNEL, feed, partitions=PARTITIONS, **options)

    def check(self) -> list[RangeFinding]:
        return check(
            self.log_pool,
            self.models.pool,
            FUNNEL,
            PARTITIONS,
            log_schema=self.log_schema,
            read_schema=self.models.read,
        )

    def checker(self) -> Completeness:
        return Completeness(
            self.log_pool,
            self.models.pool,
            FUNNEL,
            PARTITIONS,
            log_schema=self.log_schema,
            read_schema=self.models.read,
        )

    def wanted(self, first: int, last: int) -> int:
        topics = FUNNEL.topics
        return sum(e.topic in topics for e in self.story.events[first - 1 : last])


@pytest.fixture
def checked(
    models: Models,
    database_url: str,
    fresh_schemas: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Checked]:
    monkeypatch.setattr("projections.account.RANGE", RANGE)
    monkeypatch.setattr("projections.completeness.RANGE", RANGE)
    monkeypatch.setattr("projections.completeness._ROWS", 10)
    monkeypatch.setattr("projections.completeness._AT_ONCE", 2)
    with Pool(database_url, search_path=[fresh_schemas["log"]], autocommit=True) as log_pool:
        yield Checked(models, log_pool, fresh_schemas["log"])


@pytest.mark.parametrize("batch", [7, 1000])
def test_what_was_taken_in_by_the_feed_is_complete(checked: Checked, batch: int) -> None:
    assert checked.check() == []
    drain(checked.projector(batch=batch))
    assert len(checked.story.events) > 4 * RANGE
    assert checked.check() == []
    checker = checked.checker()
    assert checker.look() == []
    assert checker.position == len(checked.story.events)


def test_partitions_at_different_positions_are_each_compared_as_far_as_they_are(
    checked: Checked,
) -> None:
    projector = checked.projector()
    projector.own(range(PARTITIONS))
    for partition, position in ((0, 299), (1, 130), (2, 20)):
        events = of_partition(checked.story, partition, PARTITIONS)
        projector.apply([e for e in events if e.position <= position], {partition: position})
        assert checked.check() == []
    checker = checked.checker()
    checker.look()
    assert checker.position == 20


def test_a_rebuilt_read_model_is_complete(checked: Checked) -> None:
    feed = StoreFeed(checked.log_pool, Doorbell(), FUNNEL.topics)
    checked.models.rebuild(FUNNEL, feed, partitions=PARTITIONS, batch=11).run()
    assert checked.check() == []


def test_a_position_moved_past_an_event_is_found_though_nothing_lags(checked: Checked) -> None:
    drain(checked.projector(batch=100))
    assert checked.check() == []
    # One more event of the topics, which every partition's position is moved past by hand.
    deal = next(e for e in checked.story.events if e.topic == "crm.opportunity.opened")
    checked.story.advance(deal.stream_id, "bid", START)
    checked.record()
    end = len(checked.story.events)
    checked.models.run("UPDATE position SET position = %s", end)
    projector = checked.projector()
    assert projector.step() == 0
    assert projector.position() == end  # lag reads zero
    [finding] = checked.check()
    first = (end - 1) // RANGE * RANGE + 1
    assert (finding.first, finding.last) == (first, end)
    assert finding.expected == checked.wanted(first, end) == finding.applied + 1
    assert finding.partitions == (partition_of(deal.partition_key, PARTITIONS),)
    assert f"positions {first} to {end}:" in str(finding)


def test_a_hole_in_a_range_behind_all_is_found_and_located(checked: Checked) -> None:
    left_out = next(e for e in checked.story.events[RANGE:] if e.topic in FUNNEL.topics)
    projector = checked.projector()
    projector.own(range(PARTITIONS))
    for partition in range(PARTITIONS):
        events = [
            e
            for e in of_partition(checked.story, partition, PARTITIONS)
            if e.stream_id != left_out.stream_id or e.position != left_out.position
        ]
        projector.apply(events, {partition: len(checked.story.events)})
    [finding] = checked.check()
    assert (finding.first, finding.last) == (RANGE + 1, 2 * RANGE)
    assert finding.expected == finding.applied + 1
    assert finding.partitions == (partition_of(left_out.partition_key, PARTITIONS),)


def test_events_exchanged_for_others_are_found_though_they_are_as_many(checked: Checked) -> None:
    drain(checked.projector())
    checked.models.run(
        "UPDATE applied SET digest = digest # 12345 WHERE range = 1 AND partition ="
        " (SELECT min(partition) FROM applied WHERE range = 1)"
    )
    [finding] = checked.check()
    assert finding.first == RANGE + 1
    assert finding.expected == finding.applied
    assert len(finding.partitions) == 1


def test_events_of_a_log_that_is_not_there_any_more_are_found(checked: Checked) -> None:
    drain(checked.projector())
    del checked.story.events[100:]
    while len(checked.story.events) < 300:
        checked.story.customer(f"another {len(checked.story.events)}", START)
    checked.record()
    assert [finding.first for finding in checked.check()] == [65, 129, 193, 257]


def test_what_was_found_good_is_not_looked_at_again_but_for_the_newest_range(
    checked: Checked,
) -> None:
    story = checked.story
    told, story.events = story.events, story.events[:200]
    checked.record()
    projector = checked.projector()
    drain(projector)
    checker = checked.checker()
    looked: list[int] = []
    told_apart: list[int] = []
    summed, by_partition = checker._summed_by_the_log, checker._summed_by_partition

    def spied(ends: Any) -> Any:
        looked.extend(ends)
        return summed(ends)

    def spied_too(number: int, positions: dict[int, int]) -> Any:
        told_apart.append(number)
        return by_partition(number, positions)

    checker._summed_by_the_log = spied  # type: ignore[method-assign]
    checker._summed_by_partition = spied_too  # type: ignore[method-assign]
    assert checker.look() == []
    assert looked == [0, 1, 2, 3]
    looked.clear()
    assert checker.look() == []
    assert looked == [3]
    looked.clear()
    story.events = told
    checked.record()
    drain(projector)
    assert checker.look() == []
    assert looked == [3, 4]
    # What is not good is looked at until it is.
    checked.models.run("UPDATE applied SET events = events + 1 WHERE range = 4")
    assert told_apart == []
    assert [finding.first for finding in checker.look()] == [4 * RANGE + 1]
    assert told_apart == [4]
    looked.clear()
    checked.models.run("UPDATE applied SET events = events - 1 WHERE range = 4")
    assert checker.look() == []
    assert looked == [4]
    # A set filled anew has to show all of it again.
    feed = StoreFeed(checked.log_pool, Doorbell(), FUNNEL.topics)
    checked.models.rebuild(FUNNEL, feed, partitions=PARTITIONS).run()
    looked.clear()
    assert checker.look() == []
    assert sorted(looked) == [0, 1, 2, 3, 4]


def test_it_agrees_all_the_while_projectors_go_on(checked: Checked) -> None:
    """A projector commits between each of the check's steps."""
    projector = checked.projector(batch=9)
    checker = checked.checker()
    by_partition, in_log = checker._summed_by_partition, checker._summed_by_the_log

    def stepping(number: int, positions: dict[int, int]) -> Any:
        projector.step()
        found = by_partition(number, positions)
        projector.step()
        return found

    def stepping_too(ends: Any) -> Any:
        projector.step()
        return in_log(ends)

    checker._summed_by_partition = stepping  # type: ignore[method-assign]
    checker._summed_by_the_log = stepping_too  # type: ignore[method-assign]
    while projector.step():
        assert checker.look() == []
    assert checker.look() == []


def test_one_range_is_as_large_as_the_tables_say() -> None:
    assert [account.range_of(position) for position in (1, 65_536, 65_537)] == [0, 0, 1]
