"""What a policy remembers: how far it has read the log, its timers, and perhaps a state of each
key. Kept beside the log."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg2.extensions import cursor as Cursor  # noqa: N812
from psycopg2.extras import Json, execute_values

from domain.policies.policy import Cause, Policy, Timer
from infra.postgres import Pool

_TIMER = "key, due_at, cause, cause_position, cause_stream, correlation_id"


class Overtaken(Exception):
    """Another process has taken in the same events, or more: nothing of this was written."""


class PolicyMemory:
    """Of one policy, in PostgreSQL. `pool` must not be on autocommit.

    Raises what the database raises; then nothing was written.
    """

    def __init__(self, pool: Pool, policy: Policy) -> None:
        self._pool = pool
        self._name = policy.name
        self._id = policy.id

    def forget_others(self) -> None:
        """Deletes what the same policy remembered in other versions and configurations."""
        with self._pool.connection() as connection, connection.cursor() as cursor:
            for table in ("policy_timer", "policy_state", "policy_position"):
                cursor.execute(
                    f"DELETE FROM {table} WHERE split_part(policy, '/', 1) = %s AND policy <> %s",
                    [self._name, self._id],
                )

    def position(self) -> int:
        """Up to where the log was taken in; from the first call on it can be moved."""
        with self._pool.connection() as connection, connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO policy_position (policy, position) VALUES (%s, 0)"
                " ON CONFLICT DO NOTHING",
                [self._id],
            )
            cursor.execute("SELECT position FROM policy_position WHERE policy = %s", [self._id])
            row = cursor.fetchone()
        position: int = row[0] if row else 0  # None: deleted in between
        return position

    def timers(self, keys: Collection[UUID], at: int) -> dict[UUID, Timer]:
        """The timers of these keys, by key, as they are at position `at`. Raises `Overtaken` if
        the position is another: they may have been set by events further on."""
        with self._pool.connection() as connection, connection.cursor() as cursor:
            cursor.execute(
                f"SELECT {_TIMER} FROM policy_timer WHERE policy = %s AND key = ANY(%s::uuid[])",
                [self._id, list(keys)],
            )
            found = {row[0]: _timer(*row) for row in cursor.fetchall()}
            self._check(cursor, at)
        return found

    def states(self, keys: Collection[UUID], at: int) -> dict[UUID, dict[str, Any]]:
        """What is remembered of these keys, by key, at position `at`, of those of which something
        is. Raises `Overtaken` if the position is another."""
        with self._pool.connection() as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT key, state FROM policy_state WHERE policy = %s AND key = ANY(%s::uuid[])",
                [self._id, list(keys)],
            )
            found: dict[UUID, dict[str, Any]] = dict(cursor.fetchall())
            self._check(cursor, at)
        return found

    def _check(self, cursor: Cursor, at: int) -> None:
        """That the position is still `at`: asked after what is read, since who moves the position
        writes the rest in the same transaction."""
        cursor.execute(
            "SELECT FROM policy_position WHERE policy = %s AND position = %s", [self._id, at]
        )
        if cursor.rowcount != 1:
            raise Overtaken(f"{self._id} is not at position {at} any more")

    def save(
        self,
        before: int,
        through: int,
        timers: Mapping[UUID, Timer | None],
        states: Mapping[UUID, Mapping[str, Any]] | None = None,
        *,
        left_out: int = 0,
    ) -> None:
        """Sets these timers and states, deletes the timers that are none, and moves the position,
        all or nothing.

        Raises `Overtaken` unless the position is `before`.
        """
        with self._pool.connection() as connection, connection.cursor() as cursor:
            cursor.execute(
                "UPDATE policy_position SET position = %s, left_out = left_out + %s"
                " WHERE policy = %s AND position = %s",
                [through, left_out, self._id, before],
            )
            if cursor.rowcount != 1:
                raise Overtaken(f"{self._id} is not at position {before} any more")
            gone = [key for key, timer in timers.items() if timer is None]
            if gone:
                cursor.execute(
                    "DELETE FROM policy_timer WHERE policy = %s AND key = ANY(%s::uuid[])",
                    [self._id, gone],
                )
            rows = [_row(self._id, timer) for timer in timers.values() if timer is not None]
            if rows:
                execute_values(
                    cursor,
                    f"""INSERT INTO policy_timer (policy, {_TIMER}) VALUES %s
                        ON CONFLICT (policy, key) DO UPDATE SET due_at = excluded.due_at,
                        cause = excluded.cause, cause_position = excluded.cause_position,
                        cause_stream = excluded.cause_stream,
                        correlation_id = excluded.correlation_id""",
                    rows,
                )
            if states:
                execute_values(
                    cursor,
                    """INSERT INTO policy_state (policy, key, state) VALUES %s
                        ON CONFLICT (policy, key) DO UPDATE SET state = excluded.state""",
                    [(self._id, key, Json(state)) for key, state in states.items()],
                )

    def due(self, now: datetime, limit: int) -> list[Timer]:
        """Timers that were due by then, the longest overdue first."""
        with self._pool.connection() as connection, connection.cursor() as cursor:
            cursor.execute(
                f"SELECT {_TIMER} FROM policy_timer WHERE policy = %s AND due_at <= %s"
                " ORDER BY due_at, key LIMIT %s",
                [self._id, now, limit],
            )
            return [_timer(*row) for row in cursor.fetchall()]

    def discard(self, timers: Collection[Timer]) -> None:
        """Deletes timers that have fired; not those that another event has set anew since."""
        with self._pool.connection() as connection, connection.cursor() as cursor:
            cursor.execute(
                """DELETE FROM policy_timer
                    USING unnest(%s::uuid[], %s::uuid[], %s::timestamptz[])
                        AS fired (key, cause, due_at)
                    WHERE policy = %s AND policy_timer.key = fired.key
                    AND policy_timer.cause = fired.cause
                    AND policy_timer.due_at = fired.due_at""",
                [
                    [timer.key for timer in timers],
                    [timer.cause.event_id for timer in timers],
                    [timer.due_at for timer in timers],
                    self._id,
                ],
            )


def _timer(
    key: UUID, due_at: datetime, cause: UUID, position: int, stream: UUID, correlation: UUID
) -> Timer:
    return Timer(key, due_at, Cause(cause, position, stream, correlation))


def _row(policy: str, timer: Timer) -> tuple[object, ...]:
    cause = timer.cause
    return (
        policy,
        timer.key,
        timer.due_at,
        cause.event_id,
        cause.position,
        cause.stream_id,
        cause.correlation_id,
    )
