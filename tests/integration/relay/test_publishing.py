"""What the relay makes of the log: every event, in order, linked to the one before."""

from __future__ import annotations

from datetime import UTC, datetime

from infra.eventstore.doorbell import Doorbell
from infra.eventstore.feed import StoreFeed
from infra.ids import event_id
from tests.integration.relay.ground import PARTITIONS, Ground, key


def test_each_partition_holds_its_events_in_order_each_linked_to_the_one_before(ground: Ground):
    ground.append(0, 1, 0, 2, 2, 0, 1)
    ground.carry(ground.relay())

    assert ground.events() == {0: [1, 3, 6], 1: [2, 7], 2: [4, 5]}
    for records in ground.records().values():
        last = 0
        for one in records:
            assert one.previous == last
            last = last if one.watermark else one.position


def test_a_record_reads_as_the_row_it_came_from(ground: Ground):
    ground.append(0, at="1970-01-01T00:00:00Z")
    ground.append(1, at="2026-01-31T09:00:00.000001+08:00", body=b'{"a": 1}')
    ground.append(2, at="9999-12-31T23:59:59.999999Z")
    ground.sql(
        "UPDATE events SET reason = E'\\u00e9 \\n', traceparent = '00-1-2-01' WHERE version = 1"
    )
    ground.carry(ground.relay())

    rows = StoreFeed(ground.pool("crm_projector"), Doorbell()).read(0, 10).events
    records = [one for n in range(PARTITIONS) for one in ground.records()[n] if not one.watermark]
    assert [one.recorded() for one in records] == rows
    epoch = ground.sql("SELECT store_epoch FROM head")[0][0]
    for one, row in zip(records, rows, strict=True):
        assert one.id == str(event_id(row.stream_id, row.version))
        assert one.epoch == epoch
    assert [one.id for one in records] == [
        str(found) for (found,) in ground.sql("SELECT id FROM outbox ORDER BY position")
    ]


def test_kafka_s_own_time_is_that_of_the_recording(ground: Ground):
    ground.append(1)
    ground.carry(ground.relay())

    at = ground.sql("SELECT recorded_at FROM events")[0][0]
    headers = ground.records()[1][0]
    assert headers.recorded().recorded_at == at
    assert abs((datetime.now(UTC) - at).total_seconds()) < 600


def test_watermarks_say_how_far_every_quiet_partition_is(ground: Ground):
    ground.append(0, 1)
    relay = ground.relay()
    ground.carry(relay)
    ground.append(1)
    ground.carry(relay)

    ends = {
        n: [(one.position, one.previous, one.watermark) for one in records]
        for n, records in ground.records().items()
    }
    assert ends == {
        0: [(1, 0, False), (2, 1, True), (3, 1, True)],
        1: [(2, 0, False), (3, 2, False)],
        2: [(2, 0, True), (3, 0, True)],
    }


def test_nothing_is_sent_while_nothing_is_new(ground: Ground):
    ground.append(0)
    relay = ground.relay()
    ground.carry(relay)
    before = ground.records()
    for _ in range(20):
        ground.clock.now += 1
        assert not relay.step()
    assert {n: len(records) for n, records in ground.records().items()} == {
        n: len(records) for n, records in before.items()
    }


def test_a_relay_that_starts_again_goes_on_at_the_cursor(ground: Ground):
    ground.append(0, 1, 2)
    first = ground.relay()
    ground.carry(first)
    first.close()
    ground.append(2, 0)
    ground.carry(ground.relay())

    assert ground.events() == {0: [1, 5], 1: [2], 2: [3, 4]}
    cursor = ground.cursor()
    assert cursor is not None
    assert (cursor.position, cursor.previous) == (5, [5, 2, 4])


def test_more_than_fits_in_flight_is_carried_over_as_well(ground: Ground):
    ground.sql(
        "INSERT INTO events SELECT n, gen_random_uuid(), 1, 'test.happened', 1,"
        " (%s::uuid[])[1 + n %% 3], now(), now(), 'tester', gen_random_uuid(), gen_random_uuid(),"
        " NULL, NULL, '{}' FROM generate_series(1, 9000) AS n",
        [[key(0), key(1), key(2)]],
    )
    ground.sql("UPDATE head SET position = 9000")
    ground.carry(ground.relay())

    assert ground.events() == ground.in_log()
    assert ground.applied() == ground.in_log()


def test_large_bodies_are_taken_up_a_few_at_a_time(ground: Ground):
    ground.append(0, 0, 0, body=b'"' + b"x" * 1_000 + b'"')
    ground.append(0)
    outbox = ground.outbox()

    assert [row.position for row in outbox.fetch(0, 10, 2_500)] == [1, 2]
    assert [row.position for row in outbox.fetch(0, 10, 10)] == [1]
    assert [row.position for row in outbox.fetch(2, 10, 2_500)] == [3, 4]
    assert [row.position for row in outbox.fetch(0, 3, 10_000)] == [1, 2, 3]
