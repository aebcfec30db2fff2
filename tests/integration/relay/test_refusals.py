"""Where publishing on would leave something out, the relay refuses and names the way out."""

from __future__ import annotations

import pytest

from infra.eventstore.outbox import GapInLog
from infra.kafka import Topic
from tests.integration.relay.ground import Ground
from workers.resuming import (
    CursorAhead,
    CursorMissing,
    NoSuchPosition,
    OtherLog,
    OtherPartitions,
    RelayRefused,
    TopicAhead,
    rewind,
)


def refused(ground: Ground, why: type[Exception], **options: object) -> str:
    relay = ground.relay(**options)  # type: ignore[arg-type]
    with pytest.raises(why) as error:
        relay.step()
    assert ground.sql("SELECT expires_at <= clock_timestamp() FROM relay") == [(True,)]
    return str(error.value)


def begin_at(ground: Ground, position: int) -> bool:
    """What crm relay --from does; whether the log got another identity."""
    outbox = ground.outbox()
    outbox.seize()
    with Topic(ground.settings) as topic:
        _, anew = rewind(ground.settings, outbox, topic, ground.pool("crm_writer"), position)
    outbox.release()
    return anew


def restore(ground: Ground, position: int) -> None:
    """The log is what it was at that position."""
    ground.sql("DELETE FROM events WHERE position > %s", [position])
    ground.sql("UPDATE head SET position = %s", [position])


def published(ground: Ground, *partitions: int) -> None:
    ground.append(*partitions)
    relay = ground.relay()
    ground.carry(relay)
    relay.close()


def test_without_a_cursor_a_topic_that_holds_records_is_refused(ground: Ground):
    published(ground, 0, 1)
    ground.sql("UPDATE relay SET position = NULL")

    assert "crm relay --from" in refused(ground, CursorMissing)
    begin_at(ground, 1)
    ground.carry(ground.relay())
    assert ground.applied() == ground.in_log()
    assert ground.events() == {0: [1], 1: [2, 2], 2: []}


def test_a_cursor_ahead_of_the_log_is_refused_until_told_where_to_go_on(ground: Ground):
    published(ground, 0, 1, 0, 2)
    former = ground.sql("SELECT store_epoch FROM head")[0][0]
    restore(ground, 2)

    assert "crm relay --from" in refused(ground, CursorAhead)
    assert begin_at(ground, 0)
    ground.append(0)
    ground.carry(ground.relay())
    epoch = ground.sql("SELECT store_epoch FROM head")[0][0]
    assert epoch != former
    assert {
        n: [one.position for one in records if not one.watermark and one.epoch == epoch]
        for n, records in ground.records().items()
    } == {0: [1, 3], 1: [2], 2: []}


def test_a_log_restored_with_its_cursor_is_told_by_the_topic_that_it_is_behind(ground: Ground):
    published(ground, 0, 1)
    backup = "CREATE TEMPORARY TABLE backup AS SELECT * FROM relay"
    ground.sql(backup)
    published(ground, 0, 2, 0)
    restore(ground, 2)
    ground.sql(
        "UPDATE relay SET (position, previous, offsets)"
        " = (SELECT position, previous, offsets FROM backup)"
    )

    assert "crm relay --from" in refused(ground, TopicAhead)
    ground.append(1, 1, 1, 1)  # goes on before anybody looks
    assert "position 3" in refused(ground, TopicAhead)
    assert begin_at(ground, 0)
    ground.carry(ground.relay())


def test_a_cursor_of_another_log_is_refused(ground: Ground):
    published(ground, 0)
    ground.sql("UPDATE head SET store_epoch = gen_random_uuid()")

    assert "crm relay --from 0" in refused(ground, OtherLog)
    assert not begin_at(ground, 0)
    ground.carry(ground.relay())


def test_a_topic_with_other_partitions_is_refused(ground: Ground):
    published(ground, 0)
    more = ground.settings.model_copy(update={"partitions": 4})

    assert "CRM_PARTITIONS" in refused(ground, OtherPartitions, settings=more)


def test_another_topic_is_filled_from_the_beginning(ground: Ground, topic: str):
    published(ground, 0, 1)
    ground.settings = ground.settings.model_copy(
        update={"kafka_topic": f"{topic}.more", "partitions": 5}
    )
    relay = ground.relay()
    relay.step()
    relay.close()

    cursor = ground.cursor()
    assert cursor is not None
    assert (cursor.topic, cursor.position, len(cursor.previous)) == (f"{topic}.more", 2, 5)


def test_a_gap_in_the_log_is_not_jumped(ground: Ground):
    ground.append(0, 1, 2)
    ground.sql("DELETE FROM events WHERE position = 2")

    assert "crm doctor" in refused(ground, GapInLog)


def test_going_on_from_a_position_reckons_what_came_before_it(ground: Ground):
    published(ground, 0, 1, 0, 1, 2, 0)
    assert not begin_at(ground, 4)
    cursor = ground.cursor()
    assert cursor is not None
    assert (cursor.position, cursor.previous) == (4, [3, 4, 0])

    ground.carry(ground.relay())
    assert ground.applied() == ground.in_log()
    assert ground.events() == {0: [1, 3, 6, 6], 1: [2, 4], 2: [5, 5]}


def test_a_position_that_the_log_does_not_have_is_refused(ground: Ground):
    published(ground, 0)
    with pytest.raises(NoSuchPosition, match="0 to 1"):
        begin_at(ground, 2)


def test_a_relay_that_publishes_loses_its_lease_to_who_sets_the_cursor(ground: Ground):
    ground.append(0, 1, 2)
    relay = ground.relay()
    ground.carry(relay)
    begin_at(ground, 1)
    relay.keep()
    assert not relay.step()
    ground.carry(relay)

    assert ground.events() == {0: [1], 1: [2, 2], 2: [3, 3]}


def test_every_refusal_names_a_way_out():
    assert {one.__name__ for one in RelayRefused.__subclasses__()} == {
        "CursorAhead",
        "CursorMissing",
        "OtherLog",
        "OtherPartitions",
        "TopicAhead",
    }
