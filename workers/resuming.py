"""Where publishing goes on: the saved cursor, held against the log and against the topic."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from uuid import UUID

import structlog

from infra.eventstore.feed import Head
from infra.eventstore.outbox import Cursor, Outbox, begin_epoch
from infra.ids import event_id
from infra.kafka import Arrived, NotOurs, Topic, TopicState, arrived, read_range
from infra.postgres import Pool
from infra.settings import Settings
from workers.publishing import IN_FLIGHT

log = structlog.get_logger(__name__)

TAIL = 200
"""Records at the end of a partition that are held against the log."""


class RelayRefused(RuntimeError):
    """Publishing on would leave events out, or mix two logs: somebody has to decide.

    The message names the way out.

    - `OtherPartitions`: the topic has not as many partitions as the program reckons with
    - `CursorMissing`: the topic holds records, and where they end in the log is not known
    - `CursorAhead`: the log ends before the cursor
    - `TopicAhead`: the topic holds events that the log does not
    - `OtherLog`: the cursor is of another log
    """


class OtherPartitions(RelayRefused):
    pass


class CursorMissing(RelayRefused):
    pass


class CursorAhead(RelayRefused):
    pass


class TopicAhead(RelayRefused):
    pass


class OtherLog(RelayRefused):
    pass


class NoSuchPosition(ValueError):
    """A position that the log does not have."""


_REWIND = (
    "`crm relay --from 0` publishes all of it again, `crm relay --from POSITION` what comes after"
    " that position"
)


def resume(settings: Settings, outbox: Outbox, topic: Topic) -> Cursor:
    """The cursor to go on from, saved, with the lease held.

    It is the one that was saved, unless Kafka has lost what lay before it: then an earlier one, so
    that what was lost is published again. Never a later one. Raises `RelayRefused`, `LeaseLost`,
    `KafkaUnavailable` and what the database raises.
    """
    state = _usable(settings, topic)
    cursor = outbox.cursor()
    known = _known(settings, state, cursor)
    tail = _tail(settings, state, known)
    head = outbox.head()
    if cursor is None:
        if any(state.ends):
            raise CursorMissing(
                f"topic {settings.kafka_topic} holds records, but how much of the log that is was"
                f" never saved here. {_REWIND}; or name an empty topic by CRM_KAFKA_TOPIC."
            )
        cursor = beginning(settings, state, head)
        outbox.save(cursor)
        return cursor
    if cursor.store_epoch != head.epoch:
        raise OtherLog(
            f"the cursor is of log {cursor.store_epoch}, this is log {head.epoch}. {_REWIND};"
            " read models of the other log are rebuilt by `crm rebuild`."
        )
    if cursor.position > head.position:
        raise CursorAhead(
            f"position {cursor.position:,} was published, but the log ends at"
            f" {head.position:,}: it was restored to an earlier point. {_REWIND}, both under a new"
            " identity of the log; read models are rebuilt by `crm rebuild`."
        )
    _refuse_foreign(settings, outbox, head, tail)
    found = _after_losses(settings, outbox, state, cursor, head)
    if found != cursor:
        outbox.save(found)
    return found


def demand_rewindable(settings: Settings, outbox: Outbox, topic: Topic, position: int) -> None:
    """What `rewind` refuses, refused without the lease: nobody's work is interrupted for it.

    Raises `NoSuchPosition`, `OtherPartitions`, `KafkaUnavailable` and what the database raises.
    """
    state = _usable(settings, topic)
    _known(settings, state, outbox.cursor())
    _demand_position(outbox.head(), position)


def rewind(
    settings: Settings, outbox: Outbox, topic: Topic, writers: Pool, position: int
) -> tuple[Cursor, bool]:
    """Set the cursor to `position`, with the lease held; whether the log got another identity,
    as it does when the positions after its end were published already for other events.

    Raises `NoSuchPosition`, `OtherPartitions`, `LeaseLost`, `KafkaUnavailable` and what the
    database raises.
    """
    state = _usable(settings, topic)
    cursor = outbox.cursor()
    tail = _tail(settings, state, _known(settings, state, cursor))
    head = outbox.head()
    _demand_position(head, position)
    previous = outbox.previous(position, state.partitions, lambda _: outbox.renew())
    outbox.renew()
    anew = cursor is not None and cursor.position > head.position
    if not anew:
        try:
            _refuse_foreign(settings, outbox, head, tail)
        except TopicAhead:
            anew = True
    epoch = begin_epoch(writers) if anew else head.epoch
    found = Cursor(
        position, epoch, settings.kafka_topic, state.topic_id, previous, list(state.ends)
    )
    outbox.save(found)
    return found, anew


def beginning(settings: Settings, state: TopicState, head: Head) -> Cursor:
    """Before the first event."""
    return Cursor(
        0,
        head.epoch,
        settings.kafka_topic,
        state.topic_id,
        [0] * state.partitions,
        list(state.ends),
    )


def _demand_position(head: Head, position: int) -> None:
    if not 0 <= position <= head.position:
        raise NoSuchPosition(f"the log has positions from 0 to {head.position:,}")


def _usable(settings: Settings, topic: Topic) -> TopicState:
    state = topic.ensure()
    if state.partitions != settings.partitions:
        raise OtherPartitions(
            f"topic {settings.kafka_topic} has {state.partitions} partitions, CRM_PARTITIONS is"
            f" {settings.partitions}. Set CRM_PARTITIONS to {state.partitions}, or name a topic"
            f" that is not there yet by CRM_KAFKA_TOPIC: the relay makes it and publishes the log"
            " there from its beginning."
        )
    return state


def _known(settings: Settings, state: TopicState, cursor: Cursor | None) -> Sequence[int]:
    """The ends up to which the cursor speaks for the topic. Raises `OtherPartitions`."""
    if cursor is None or not _same_topic(settings, state, cursor):
        return [0] * state.partitions
    if len(cursor.offsets) != state.partitions:
        raise OtherPartitions(
            f"topic {settings.kafka_topic} was given {state.partitions} partitions, it had"
            f" {len(cursor.offsets)}: its keys are no longer where they were. Name a topic that is"
            " not there yet by CRM_KAFKA_TOPIC: the relay makes it and publishes the log there"
            " from its beginning."
        )
    return cursor.offsets


def _same_topic(settings: Settings, state: TopicState, cursor: Cursor) -> bool:
    return cursor.topic == settings.kafka_topic and cursor.topic_id == state.topic_id


def _tail(settings: Settings, state: TopicState, known: Sequence[int]) -> list[Arrived]:
    """The last records of each partition that the cursor does not speak for."""
    ranges = {
        partition: (max(state.begins[partition], known[partition], end - TAIL), end)
        for partition, end in enumerate(state.ends)
    }
    found = read_range(settings, ranges)
    return [one for records in found.values() for one in _ours(records)]


def _ours(records: Iterable[object]) -> Iterable[Arrived]:
    for record in records:
        try:
            yield arrived(record)
        except NotOurs:
            continue


def _refuse_foreign(settings: Settings, outbox: Outbox, head: Head, tail: list[Arrived]) -> None:
    """A log that was restored to an earlier point and has gone on since has other events than the
    topic at the same positions."""
    same_log = [one for one in tail if one.epoch == head.epoch]
    events = [one for one in same_log if not one.watermark and one.position <= head.position]
    identities = outbox.identities([one.position for one in events])
    foreign = [one for one in same_log if one.position > head.position]
    foreign += [one for one in events if one.id not in _ids(identities, one.position)]
    if foreign:
        first = min(one.position for one in foreign)
        raise TopicAhead(
            f"topic {settings.kafka_topic} holds at position {first:,} what the log does not: the"
            f" log, which ends at {head.position:,}, was restored to an earlier point. {_REWIND},"
            " both under a new identity of the log; read models are rebuilt by `crm rebuild`."
        )


def _ids(identities: Mapping[int, tuple[UUID, int]], position: int) -> list[str]:
    found = identities.get(position)
    return [] if found is None else [str(event_id(*found))]


def _after_losses(
    settings: Settings, outbox: Outbox, state: TopicState, cursor: Cursor, head: Head
) -> Cursor:
    if not _same_topic(settings, state, cursor):
        log.warning(
            "another topic than before: publishing the log from its beginning",
            topic=settings.kafka_topic,
            topic_id=str(state.topic_id),
            published=cursor.position,
        )
        return beginning(settings, state, head)
    left = {  # partition → up to where it is what it was
        partition: min(end, was if was >= 0 else ~was)
        for partition, (end, was) in enumerate(zip(state.ends, cursor.offsets, strict=True))
        if end < was or was < 0
    }
    if not left:
        return cursor
    position = min(cursor.position, _proved(settings, state, left, head))
    log.warning(
        "Kafka has lost records: publishing again",
        topic=settings.kafka_topic,
        partitions=sorted(left),
        published=cursor.position,
        after=position,
    )
    previous = outbox.previous(position, state.partitions, lambda _: outbox.renew())
    return replace(cursor, position=position, previous=previous, offsets=list(state.ends))


def _proved(settings: Settings, state: TopicState, left: Mapping[int, int], head: Head) -> int:
    """The position up to which partitions certainly hold every event before the offsets in `left`.

    When a record was sent, at most `IN_FLIGHT` positions before its own were not acknowledged yet:
    what lies further back lies before it in its partition.
    """
    last = {
        partition: (max(state.begins[partition], end - 1), end) for partition, end in left.items()
    }
    proved = []
    for records in read_range(settings, last).values():
        found = [one.position for one in _ours(records) if one.epoch == head.epoch]
        proved.append(max(0, found[0] - IN_FLIGHT) if found else 0)
    return min(proved)
