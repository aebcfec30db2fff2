"""The topic and the log are not always those of yesterday."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

import pytest

from infra.kafka import ensure_topic
from projections.projector import LogBehind, OtherLog
from tests.integration.consuming.conftest import PARTITIONS, Group, told
from tests.integration.projections.story import Story
from workers.membership import WrongPartitions

pytestmark = [
    pytest.mark.database,
    # A client that is closed while it connects leaves that socket to the collector.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket"),
]

GroupOf = Callable[[Story], Group]


def topic_ids(group: Group) -> set[UUID]:
    return {UUID(str(row[0])) for row in group.models.run("SELECT topic_id FROM kafka_offset")}


def test_a_topic_made_anew_while_a_worker_runs(group_of: GroupOf) -> None:
    story = told(31, 90)
    later, story.events[60:] = story.events[60:], []
    group = group_of(story)
    worker = group.worker()
    group.relay.send_all()
    group.carry(worker)
    before = topic_ids(group)
    group.relay.make_anew()
    story.events += later
    group.relay.send_all()  # the relay publishes all of it again
    group.carry(worker)
    after = ensure_topic(group.settings).topic_id
    group.until(lambda: topic_ids(group) == {after}, worker)
    assert after not in before
    group.check()


def test_a_topic_made_anew_while_no_worker_runs(group_of: GroupOf) -> None:
    story = told(32, 90)
    later, story.events[60:] = story.events[60:], []
    group = group_of(story)
    worker = group.worker()
    group.relay.send_all()
    group.carry(worker)
    worker.close()
    group.relay.make_anew()
    story.events += later
    # As many records as before, so that the old offsets would be good ones.
    group.relay.send_all()
    group.relay.send(group.relay.records())
    group.carry(group.worker())
    group.check()


def test_an_offset_that_the_topic_does_not_have_means_its_beginning(group_of: GroupOf) -> None:
    group = group_of(told(33, 60))
    records = group.relay.records()
    group.relay.send(records[:30])
    group.relay.send(group.relay.watermarks(30))
    worker = group.worker()
    group.until(lambda: set(group.positions().values()) == {30}, worker)
    group.kill(worker)
    group.models.run("UPDATE kafka_offset SET next_offset = next_offset + 1000000")
    group.relay.send(records[30:])
    group.relay.send(group.relay.watermarks(60))
    group.carry(group.worker())
    group.check()


def test_another_log_ends_the_worker_and_says_what_to_do(group_of: GroupOf) -> None:
    group = group_of(told(34, 60))
    group.relay.send_all()
    worker = group.worker()
    group.carry(worker)
    group.story.epoch = UUID(int=77)
    with pytest.raises(OtherLog, match="crm rebuild funnel"):
        group.until(lambda: False, worker)


def test_another_log_is_noticed_by_its_records_before_any_is_passed_over(
    group_of: GroupOf,
) -> None:
    group = group_of(told(35, 60))
    records = group.relay.records()
    group.relay.send(records[:30])
    group.relay.send(group.relay.watermarks(30))
    worker = group.worker()
    group.until(lambda: set(group.positions().values()) == {30}, worker)
    worker.close()
    offsets = group.offsets()
    group.relay.send(group.relay.records(epoch=UUID(int=78))[30:])
    again = group.worker()
    group.until(lambda: set(again.positions) == set(range(PARTITIONS)), again)
    group.story.epoch = UUID(int=78)
    with pytest.raises(OtherLog):
        group.until(lambda: False, again)
    assert group.offsets() == offsets


def test_an_empty_read_model_takes_up_the_log_there_is(group_of: GroupOf) -> None:
    group = group_of(told(36, 60))
    worker = group.worker()
    group.until(lambda: set(worker.positions) == set(range(PARTITIONS)), worker)
    group.story.epoch = UUID(int=79)  # another log took its place before anything was applied
    group.relay.send_all()
    group.carry(worker)
    group.check()


def test_a_log_restored_behind_the_read_model_ends_the_worker(group_of: GroupOf) -> None:
    group = group_of(told(37, 60))
    group.relay.send_all()
    worker = group.worker()
    group.carry(worker)
    del group.story.events[40:]
    with pytest.raises(LogBehind, match="crm rebuild funnel"):
        group.until(lambda: False, worker)


def test_a_topic_of_another_number_of_partitions_is_refused(group_of: GroupOf) -> None:
    group = group_of(told(38, 10))
    group.settings = group.settings.model_copy(update={"partitions": PARTITIONS + 1})
    with pytest.raises(WrongPartitions, match="CRM_PARTITIONS"):
        group.worker().step()
