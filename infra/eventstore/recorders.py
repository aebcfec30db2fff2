"""The library's recorders on our tables, over psycopg2.

They enforce uniqueness only. That versions run 1, 2, 3, … and that every event has its
envelope is the application's to see to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import psycopg2
from eventsourcing.persistence import (
    AggregateRecorder,
    ApplicationRecorder,
    DatabaseError,
    DataError,
    IntegrityError,
    InterfaceError,
    InternalError,
    ListenNotifySubscription,
    Notification,
    NotSupportedError,
    OperationalError,
    PersistenceError,
    ProcessRecorder,
    ProgrammingError,
    StoredEvent,
    Tracking,
    TrackingRecorder,
)
from psycopg2.extras import execute_values

from infra.eventstore.committer import Committer
from infra.eventstore.doorbell import Doorbell
from infra.eventstore.records import NO_ENVELOPE, Append, LedgerEvent, Receipt
from infra.eventstore.statements import (
    SELECT_RECEIPT,
    SELECT_RECEIPTS,
    TRACK,
    receipt_of,
)
from infra.postgres import Pool

_POLL_SECONDS = 1.0

_TRANSLATED: tuple[tuple[type[psycopg2.Error], type[PersistenceError]], ...] = (
    (psycopg2.IntegrityError, IntegrityError),
    (psycopg2.DataError, DataError),
    (psycopg2.OperationalError, OperationalError),
    (psycopg2.InternalError, InternalError),
    (psycopg2.ProgrammingError, ProgrammingError),
    (psycopg2.NotSupportedError, NotSupportedError),
    (psycopg2.InterfaceError, InterfaceError),
)


def translated(error: psycopg2.Error) -> PersistenceError:
    """The library's error for one of the driver's."""
    for ours, theirs in _TRANSLATED:
        if isinstance(error, ours):
            return theirs(str(error).strip())
    return DatabaseError(str(error).strip())


class _Queries:
    """Statements on a pool of autocommit connections, with the library's errors."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def fetch(self, statement: str, parameters: Sequence[Any] | dict[str, Any]) -> list[Any]:
        try:
            with self._pool.connection() as connection, connection.cursor() as cursor:
                cursor.execute(statement, parameters)
                rows: list[Any] = cursor.fetchall()
                return rows
        except psycopg2.Error as error:
            raise translated(error) from error
        except ValueError as error:  # U+0000 or a lone surrogate, which the driver refuses
            raise DataError(f"a value cannot be sent: {type(error).__name__}") from error

    def execute(self, statement: str, parameters: Sequence[Any]) -> int:
        try:
            with self._pool.connection() as connection, connection.cursor() as cursor:
                cursor.execute(statement, parameters)
                count: int = cursor.rowcount
                return count
        except psycopg2.Error as error:
            raise translated(error) from error

    def insert(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        try:
            with self._pool.connection() as connection, connection.cursor() as cursor:
                execute_values(cursor, statement, rows, page_size=max(1, len(rows)))
        except psycopg2.Error as error:
            raise translated(error) from error


def _range_of(
    gt: int | None, lte: int | None, limit: int | None, *, desc: bool
) -> tuple[str, list[int]]:
    clause, parameters = "", []
    if gt is not None:
        clause += " AND version > %s"
        parameters.append(gt)
    if lte is not None:
        clause += " AND version <= %s"
        parameters.append(lte)
    clause += " ORDER BY version DESC" if desc else " ORDER BY version"
    if limit is not None:
        clause += " LIMIT %s"
        parameters.append(limit)
    return clause, parameters


class PostgresAggregateRecorder(AggregateRecorder):
    """Streams without positions: the table of snapshots."""

    def __init__(self, pool: Pool) -> None:
        self._queries = _Queries(pool)

    def insert_events(
        self, stored_events: Sequence[StoredEvent], **kwargs: Any
    ) -> Sequence[int] | None:
        """Insert all or none; `IntegrityError` where a version is already there."""
        if stored_events:
            self._queries.insert(
                "INSERT INTO snapshots (stream_id, version, topic, class_version, state) VALUES %s",
                [
                    (
                        event.originator_id,
                        event.originator_version,
                        event.topic,
                        event.class_version if isinstance(event, LedgerEvent) else 1,
                        psycopg2.Binary(event.state),
                    )
                    for event in stored_events
                ],
            )
        return None

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        """The stream's rows in version order, newest first with `desc`."""
        clause, parameters = _range_of(gt, lte, limit, desc=desc)
        rows = self._queries.fetch(
            "SELECT stream_id, version, topic, state, class_version FROM snapshots"
            " WHERE stream_id = %s" + clause,
            [originator_id, *parameters],
        )
        return [
            StoredEvent(i, v, t, bytes(state))
            if class_version == 1
            else LedgerEvent(i, v, t, bytes(state), class_version=class_version)
            for i, v, t, state, class_version in rows
        ]


class PostgresApplicationRecorder(ApplicationRecorder):
    """The log: streams and one gapless sequence of positions in commit order."""

    def __init__(self, pool: Pool, committer: Committer, doorbell: Doorbell) -> None:
        self._queries = _Queries(pool)
        self.committer = committer
        self.doorbell = doorbell

    def insert_events(
        self, stored_events: Sequence[StoredEvent], **kwargs: Any
    ) -> Sequence[int] | None:
        """Append one command's events and wait for the commit; gives their positions.

        Keywords: `envelope`, `receipt`, `partition_keys`, `tracking`. With a receipt there may be
        no events. Errors as `Committer.submit`.
        """
        append = self.append_of(stored_events, **kwargs)
        if not append.events and append.receipt is None and append.tracking is None:
            return []
        return self.committer.submit(append).result().positions()

    @staticmethod
    def append_of(stored_events: Sequence[StoredEvent], **kwargs: Any) -> Append:
        """The append that the keywords of `insert_events` describe."""
        return Append(
            events=list(stored_events),
            envelope=kwargs.get("envelope") or NO_ENVELOPE,
            partition_keys=kwargs.get("partition_keys") or {},
            receipt=kwargs.get("receipt"),
            tracking=kwargs.get("tracking"),
        )

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        """The stream's events in version order, newest first with `desc`."""
        clause, parameters = _range_of(gt, lte, limit, desc=desc)
        rows = self._queries.fetch(
            "SELECT stream_id, version, topic, state, class_version, occurred_at FROM events"
            " WHERE stream_id = %s" + clause,
            [originator_id, *parameters],
        )
        return [
            LedgerEvent(i, v, t, bytes(state), class_version=c, occurred_at=o)
            for i, v, t, state, c, o in rows
        ]

    def receipt(self, scope: str, key: str) -> Receipt | None:
        """The receipt kept under an idempotency key, if any."""
        rows = self._queries.fetch(SELECT_RECEIPT, [scope, key])
        return receipt_of(rows[0]) if rows else None

    def receipts(self, scope: str, keys: Sequence[str]) -> dict[str, Receipt]:
        """The receipts kept under any of the keys, by key."""
        rows = self._queries.fetch(SELECT_RECEIPTS, [scope, list(keys)])
        return {receipt.key: receipt for receipt in map(receipt_of, rows)}

    def forget_receipts(self, days: int) -> int:
        """Delete the receipts that are older than so many days; gives how many."""
        return self._queries.execute(
            "DELETE FROM receipts"
            " WHERE recorded_at < clock_timestamp() - make_interval(days => %s)",
            [days],
        )

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        """Events by position."""
        clause, parameters = " WHERE true", list[Any]()
        if start is not None:
            clause += " AND position >= %s" if inclusive_of_start else " AND position > %s"
            parameters.append(start)
        if stop is not None:
            clause += " AND position <= %s"
            parameters.append(stop)
        if topics:
            clause += " AND topic = ANY(%s)"
            parameters.append(list(topics))
        rows = self._queries.fetch(
            "SELECT stream_id, version, topic, state, position FROM events"
            + clause
            + " ORDER BY position LIMIT %s",
            [*parameters, limit],
        )
        return [Notification(i, v, t, bytes(state), position) for i, v, t, state, position in rows]

    def max_notification_id(self) -> int | None:
        """The end of the log; none if it is empty."""
        position: int = self._queries.fetch("SELECT position FROM head", [])[0][0]
        return position or None

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> PostgresSubscription:
        """All events after `gt`, then new ones as they are committed, until stopped."""
        return PostgresSubscription(self, gt=gt, topics=topics)


class PostgresSubscription(ListenNotifySubscription[PostgresApplicationRecorder]):
    """The library's subscription, woken by the doorbell, and by a poll where that stays silent."""

    def __init__(
        self,
        recorder: PostgresApplicationRecorder,
        gt: int | None = None,
        topics: Sequence[str] = (),
    ) -> None:
        self._doorbell = recorder.doorbell
        super().__init__(recorder=recorder, gt=gt, topics=topics)

    def stop(self) -> None:
        """Stop the iteration."""
        super().stop()
        self._doorbell.ring()

    def _loop_on_pull(self) -> None:
        try:
            while not self._has_been_stopped:
                heard = self._doorbell.rings
                self._pull()
                if not self._has_been_stopped:
                    self._doorbell.wait(heard, _POLL_SECONDS)
        except BaseException as error:  # noqa: BLE001 - the reader's thread raises it
            if self._thread_error is None:
                self._thread_error = error
            self.stop()


class PostgresTrackingRecorder(TrackingRecorder):
    """How far a named consumer has come, one row each, never backwards."""

    def __init__(self, pool: Pool) -> None:
        self._queries = _Queries(pool)

    def insert_tracking(self, tracking: Tracking) -> None:
        """Move forward; `IntegrityError` for the same or an earlier position."""
        parameters = (tracking.application_name, tracking.notification_id)
        if self._queries.execute(TRACK, parameters) != 1:
            raise IntegrityError("a tracking record may only move forward")

    def max_tracking_id(self, application_name: str) -> int | None:
        """The consumer's position; none if it has not begun."""
        rows = self._queries.fetch(
            "SELECT notification_id FROM tracking WHERE application_name = %s", [application_name]
        )
        return rows[0][0] if rows else None


class PostgresProcessRecorder(
    PostgresTrackingRecorder, PostgresApplicationRecorder, ProcessRecorder
):
    """The log with tracking in the same transaction."""

    def __init__(self, pool: Pool, committer: Committer, doorbell: Doorbell) -> None:
        PostgresApplicationRecorder.__init__(self, pool, committer, doorbell)
