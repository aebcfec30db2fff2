"""What ``crm doctor`` says about read models: are they of this log, complete, and up to date?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from infra.eventstore.doorbell import Doorbell
from infra.eventstore.feed import StoreFeed, partition_of
from infra.postgres import Pool
from projections import parking
from projections.catalogue import PROJECTIONS
from projections.completeness import Completeness
from projections.origin import LogBehind, NewerProgram, OtherLog, RebuildNeeded, examined
from projections.projection import Projection
from projections.rebuild import former, unfinished_size
from workers.finding import LONG_SECONDS, Finding, lasting
from workers.wiring import Databases

FAR_BEHIND = 100_000
"""Positions that a read model lags, from which on it is a problem."""

_SHOWN = 5
_CHUNK = 10_000


def read_models(
    partitions: int,
    addresses: Databases,
    *,
    by_kafka: bool = False,
    models: Mapping[str, Projection] = PROJECTIONS,
) -> Iterator[Finding]:
    """What there is to say about each read model. Changes nothing, but reads all of the log.

    `by_kafka`: they are kept up by ``crm project`` from Kafka, by processes that never rest.
    """
    with (
        Pool(addresses.log, size=1, role="crm_reader", search_path=["log"]) as log_pool,
        Pool(addresses.read, size=1, role="crm_reader", search_path=["read"]) as read_pool,
    ):
        feed = StoreFeed(log_pool, Doorbell())
        for projection in models.values():
            state = _state(projection, partitions, feed, read_pool, log_pool, by_kafka)
            yield state
            if state.filled:
                checker = Completeness(log_pool, read_pool, projection, partitions)
                yield from _completeness(projection, checker)
            yield from _kept(projection, read_pool)


@dataclass(frozen=True, slots=True)
class _State(Finding):
    filled: bool = False


def _state(
    projection: Projection,
    partitions: int,
    feed: StoreFeed,
    read_pool: Pool,
    log_pool: Pool,
    by_kafka: bool,
) -> _State:
    subject = f"read model {projection.name}"
    filler = f"crm project {projection.name}"
    with read_pool.connection() as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT projection, partition, position FROM position WHERE projection LIKE %s",
            [f"{projection.name}/%"],
        )
        found: list[tuple[str, int, int]] = cursor.fetchall()
        if not found:
            return _empty(projection, partitions, log_pool, by_kafka)
        try:
            _, head = examined(cursor, projection, partitions, feed.head)
        except (OtherLog, LogBehind, NewerProgram) as problem:
            return _State(False, subject, str(problem))
        except RebuildNeeded as reason:
            if {id_ for id_, _, _ in found} == {projection.id} and len(found) != partitions:
                text = f"has {len(found)} partitions, CRM_PARTITIONS is {partitions}"
                if by_kafka:
                    advice = "it must be that of the topic and the same for all processes"
                    return _State(False, subject, f"{text}: {advice}; {filler} then rebuilds it")
            else:
                text = str(reason)
            return _State(True, subject, f"{text}; {filler if by_kafka else 'crm up'} rebuilds it")
        parked = len(parking.keys(cursor, projection.id))
    if parked:
        text = f"events of {parked:,} keys could not be applied; see crm parked {projection.name}"
        return _State(False, subject, text, filled=True)
    positions = {partition: position for _, partition, position in found}
    behind = head.position - min(positions.values())
    if behind == 0:
        return _State(True, subject, "up to date", filled=True)
    text = f"{behind:,} positions behind"
    waiting = _waiting(projection, positions, log_pool)
    if waiting is not None:
        text += f", the oldest event has waited for {lasting(waiting)}"
    if (waiting or 0.0) <= LONG_SECONDS and behind < FAR_BEHIND:
        return _State(True, subject, text, filled=True)
    advice = f"see the log of {filler}, or start it" if by_kafka else f"run crm up, or {filler}"
    return _State(False, subject, f"{text}: {advice}", filled=True)


def _empty(projection: Projection, partitions: int, log_pool: Pool, by_kafka: bool) -> _State:
    subject = f"read model {projection.name}"
    if not by_kafka:
        return _State(True, subject, "not filled yet; crm up does it")
    waiting = _waiting(projection, dict.fromkeys(range(partitions), 0), log_pool)
    filler = f"crm project {projection.name}"
    if waiting is None or waiting <= LONG_SECONDS:
        return _State(True, subject, f"not filled yet; {filler} does it")
    text = f"not filled, the oldest event has waited for {lasting(waiting)}: start {filler}"
    return _State(False, subject, text)


def _waiting(projection: Projection, positions: dict[int, int], log_pool: Pool) -> float | None:
    """Seconds since the oldest event was recorded that the read model has not taken in; None if
    there is none: partitions without events of its own may well lie behind."""
    after = min(positions.values())
    condition = "AND topic = ANY(%s)" if projection.topics else ""
    topics = [list(projection.topics)] if projection.topics else []
    while True:
        with log_pool.connection() as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT position, partition_key,"
                " extract(epoch FROM clock_timestamp() - recorded_at)::float8"
                f" FROM events WHERE position > %s {condition} ORDER BY position LIMIT %s",
                [after, *topics, _CHUNK],
            )
            rows = cursor.fetchall()
        for position, key, seconds in rows:
            if position > positions[partition_of(key, len(positions))]:
                return float(seconds)
        if len(rows) < _CHUNK:
            return None
        after = rows[-1][0]


def _kept(projection: Projection, read_pool: Pool) -> Iterator[Finding]:
    """Sets of tables beside the live one."""
    command = f"crm rebuild {projection.name}"
    with read_pool.connection() as connection, connection.cursor() as cursor:
        kept = former(cursor, projection)
        unfinished = unfinished_size(cursor, projection)
    if kept is not None:
        yield Finding(
            True,
            f"former {projection.name}",
            f"what was live before {kept.kept_since:%Y-%m-%d %H:%M} UTC is kept,"
            f" {kept.size / 1e6:,.1f} MB: {command} --back puts it back, --forget drops it",
        )
    if unfinished is not None:
        yield Finding(
            True,
            f"rebuild of {projection.name}",
            f"{unfinished / 1e6:,.1f} MB of a rebuild that goes on or was interrupted;"
            f" {command} goes on with it",
        )


def _completeness(projection: Projection, checker: Completeness) -> Iterator[Finding]:
    subject = f"read model {projection.name}"
    found = checker.look()
    if not found:
        yield Finding(True, subject, f"complete up to position {checker.position:,}")
    for finding in found[:_SHOWN]:
        yield Finding(False, subject, f"{finding}. Run: crm rebuild {projection.name}")
    if len(found) > _SHOWN:
        yield Finding(False, subject, f"and {len(found) - _SHOWN:,} more such ranges")
