"""One go at publishing: from the cursor on, in order, until something fails."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from kafka import KafkaProducer
from kafka.errors import KafkaError

from infra import tracing
from infra.crashpoints import reach
from infra.eventstore.feed import partition_of
from infra.eventstore.outbox import Cursor, GapInLog, LogChanged, Outbox
from infra.kafka import (
    Outgoing,
    Record,
    Topic,
    discard,
    event_record,
    watermark_record,
)
from infra.metrics import WorkerMetrics

IN_FLIGHT = 4_096
"""Records that are not acknowledged yet, at most. A topic whose end was lost is proved to hold
everything up to so many positions before its last record: never to be lowered while topics live
that were filled with more."""

IN_FLIGHT_BYTES = 33_554_432
FETCH = 1_000
FETCH_BYTES = 8_388_608

PACE = 0.05
"""Seconds between two rounds of watermarks, and between two savings of the cursor, at least."""

CHECK = 3.0
"""Seconds between two looks at the topic."""

DRAIN = 5.0
"""Seconds that records in flight are given at the end."""


class SendFailed(RuntimeError):
    """A record was not acknowledged. Those after it may have arrived all the same."""


class KafkaLost(RuntimeError):
    """The topic lacks what was acknowledged."""


class _Sent(NamedTuple):
    partition: int
    position: int  # 0: a watermark
    size: int
    answer: Any


class Publishing:
    """Sends the log from a cursor on by one producer and saves how far it is acknowledged.

    Whatever any method raises ends it: `abandon` it and begin again from the saved cursor, with
    another producer. For one thread.
    """

    def __init__(
        self,
        cursor: Cursor,
        *,
        outbox: Outbox,
        producer: KafkaProducer,
        topic: Topic,
        metrics: WorkerMetrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`cursor` is the saved one, and the topic was found to hold what it says."""
        self._outbox = outbox
        self._producer = producer
        self._topic = topic
        self._metrics = metrics
        self._clock = clock
        self._name = cursor.topic
        self._topic_id = cursor.topic_id
        self._epoch = cursor.store_epoch
        self._epoch_text = str(cursor.store_epoch).encode()
        self._saved = cursor
        self._acknowledged = cursor.position
        self._previous = list(cursor.previous)
        self._offsets = list(cursor.offsets)
        self._sent = cursor.position
        self._sent_previous = list(cursor.previous)
        self._marked = 0  # the one before may have died before its watermarks
        self._in_flight: deque[_Sent] = deque()
        self._bytes = 0
        now = clock()
        self._mark_at = self._save_at = now
        self._check_at = now + CHECK

    @property
    def acknowledged(self) -> int:
        """Every event up to here is in Kafka."""
        return self._acknowledged

    def step(self) -> bool:
        """Send what is new, take in what was acknowledged; whether there was anything to do.

        Raises `SendFailed`, `KafkaLost`, `KafkaUnavailable`, `LeaseLost`, `LogChanged`, `GapInLog`
        and what the database raises.
        """
        sent = self._send_next()
        acknowledged = self._settle()
        self._mark()
        self._save(self._save_at)
        self._check()
        return sent or acknowledged

    def wait(self, timeout: float) -> bool:
        """With records in flight: wait for an acknowledgement until something else is due; false
        at once if there are none."""
        if not self._in_flight:
            return False
        self._await(min(timeout, PACE))
        return True

    def due(self) -> float:
        """Seconds until watermarks are to be sent, the cursor to be saved or the topic to be
        looked at; at most `CHECK`."""
        at = self._check_at
        if self._sent > self._marked:
            at = min(at, self._mark_at)
        if self._cursor() != self._saved:
            at = min(at, self._save_at)
        return max(0.0, at - self._clock())

    def finish(self) -> None:
        """Wait for what is in flight, for `DRAIN` seconds at most, and save how far that goes."""
        until = self._clock() + DRAIN
        self._settle()
        while self._in_flight and (left := until - self._clock()) > 0:
            self._await(left)
            self._settle()
        self._save(self._clock())

    def abandon(self) -> None:
        """Send nothing more and wait for nothing."""
        discard(self._producer)
        self._topic.close()

    def _send_next(self) -> bool:
        if len(self._in_flight) > IN_FLIGHT - FETCH or self._bytes > IN_FLIGHT_BYTES:
            return False
        rows = self._outbox.fetch(self._sent, FETCH, FETCH_BYTES)
        if not rows:
            return self._goes_on()
        reach("relay.after_fetch")
        for row in rows:
            self._publish(row)
        reach("relay.after_send")
        return True

    def _goes_on(self) -> bool:
        """Whether there are events all the same, since just now. If not, the log has to end with
        the last one sent: it may lack more than was asked for, or have been restored under us."""
        head = self._outbox.head()
        if head.epoch != self._epoch or head.position < self._sent:
            raise LogChanged(
                f"position {self._sent:,} of log {self._epoch} was read, now log {head.epoch} ends"
                f" at {head.position:,}"
            )
        if head.position == self._sent:
            return False
        if not self._outbox.fetch(self._sent, 1, 0):
            raise GapInLog(f"the log lacks events after position {self._sent:,}; see crm doctor")
        return True

    def _publish(self, row: Outgoing) -> None:
        partition = partition_of(UUID(row.partition_key), len(self._offsets))
        previous = self._sent_previous[partition]
        if row.traceparent is not None and tracing.enabled():
            attributes: dict[str, str | int | float | bool] = {
                "messaging.system": "kafka",
                "messaging.destination.name": self._name,
                "crm.position": row.position,
            }
            with tracing.span(f"{self._name} publish", row.traceparent, attributes, "producer"):
                row = row._replace(traceparent=tracing.current())
                self._send(partition, row.position, event_record(row, previous, self._epoch_text))
        else:
            self._send(partition, row.position, event_record(row, previous, self._epoch_text))
        self._sent_previous[partition] = self._sent = row.position

    def _send(self, partition: int, position: int, record: Record) -> None:
        try:
            answer = self._producer.send(
                self._name,
                value=record.value,
                key=record.key,
                headers=record.headers,
                partition=partition,
                timestamp_ms=record.timestamp_ms,
            )
        except (KafkaError, ValueError) as error:
            raise SendFailed(str(error)) from error
        size = len(record.value)
        self._bytes += size
        self._in_flight.append(_Sent(partition, position, size, answer))

    def _settle(self) -> bool:
        """Take in what was acknowledged, up to the first record that was not."""
        settled = 0
        waiting = self._in_flight
        while waiting and waiting[0].answer.is_done:
            partition, position, size, answer = waiting.popleft()
            if answer.failed():
                # What was acknowledged before it counts, or records that fail now and then would
                # keep a long backlog from ever getting shorter.
                if not self._note_losses({}):
                    self._save(self._clock())
                raise SendFailed(str(answer.exception)) from answer.exception
            offset = answer.value.offset
            if offset >= self._offsets[partition]:
                self._offsets[partition] = offset + 1
            elif offset >= 0:  # -1: acknowledged as a repetition, whose offset is not told
                self._note_losses({partition: offset}, DRAIN)
                raise KafkaLost(
                    f"partition {partition} was at offset {self._offsets[partition]:,}"
                    f" and goes on at {offset:,}"
                )
            self._bytes -= size
            settled += 1
            if position:
                self._previous[partition] = self._acknowledged = position
                self._metrics.published(1)
        return settled > 0

    def _note_losses(self, lost: dict[int, int], patience: float = 0.0) -> bool:
        """Save where partitions went on although more had been acknowledged: `lost`, and what else
        shows within `patience` seconds; whether there was any. They may be as long as before by
        now, or soon, so that nobody could tell any more."""
        until = self._clock() + patience
        for partition, _, _, answer in self._in_flight:
            if patience and not answer.is_done:
                with suppress(KafkaError):
                    answer.get(timeout=max(0.0, until - self._clock()))
            if answer.is_done and not answer.failed():
                offset = answer.value.offset
                if 0 <= offset < self._offsets[partition]:
                    lost[partition] = min(offset, lost.get(partition, offset))
        if lost:
            cursor = self._cursor()
            for partition, offset in lost.items():
                cursor.offsets[partition] = ~offset
            self._outbox.save(cursor)
        return bool(lost)

    def _await(self, timeout: float) -> None:
        answer = self._in_flight[0].answer
        if not answer.is_done:
            try:
                answer.get(timeout=timeout)
            except KafkaError:
                return  # not in time, or failed: `_settle` sees which

    def _mark(self) -> None:
        now = self._clock()
        if self._sent <= self._marked or now < self._mark_at:
            return
        self._mark_at = now + PACE
        at = datetime.now(UTC)
        for partition, previous in enumerate(self._sent_previous):
            if previous != self._sent:
                record = watermark_record(self._sent, previous, partition, self._epoch_text, at)
                self._send(partition, 0, record)
        self._marked = self._sent

    def _cursor(self) -> Cursor:
        return Cursor(
            self._acknowledged,
            self._epoch,
            self._name,
            self._topic_id,
            list(self._previous),
            list(self._offsets),
        )

    def _save(self, due: float) -> None:
        now, cursor = self._clock(), self._cursor()
        if now < due or cursor == self._saved:
            return
        reach("relay.after_ack")
        self._save_at = now + PACE
        self._outbox.save(cursor)
        self._saved = cursor

    def _check(self) -> None:
        """Is it the topic that the cursor is of, and does it hold what it held?"""
        now = self._clock()
        if now < self._check_at:
            return
        self._check_at = now + CHECK
        acknowledged = list(self._offsets)
        state = self._topic.state()
        if state is None or state.topic_id != self._topic_id:
            raise KafkaLost(f"topic {self._name} is gone or was made anew")
        for partition, (end, known) in enumerate(zip(state.ends, acknowledged, strict=False)):
            if end < known:
                raise KafkaLost(f"partition {partition} ended at offset {known:,}, now at {end:,}")
