"""What ``crm doctor`` says about read models: are they of this log, complete, and up to date?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from infra.eventstore.doorbell import Doorbell
from infra.eventstore.feed import StoreFeed
from infra.postgres import Pool
from projections import parking
from projections.catalogue import PROJECTIONS
from projections.completeness import Completeness
from projections.origin import LogBehind, NewerProgram, OtherLog, RebuildNeeded, examined
from projections.projection import Projection
from workers.wiring import Databases

FAR_BEHIND = 100_000
"""Positions that a read model lags, from which on it is a problem."""

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """``good`` False is a problem; the text then says what to do about it."""

    good: bool
    subject: str
    text: str


def read_models(partitions: int, addresses: Databases) -> Iterator[Finding]:
    """What there is to say about each read model. Changes nothing, but reads all of the log."""
    with (
        Pool(addresses.log, size=1, role="crm_reader", search_path=["log"]) as log_pool,
        Pool(addresses.read, size=1, role="crm_reader", search_path=["read"]) as read_pool,
    ):
        feed = StoreFeed(log_pool, Doorbell())
        for projection in PROJECTIONS.values():
            state = _state(projection, partitions, feed, read_pool)
            yield state
            if state.filled:
                checker = Completeness(log_pool, read_pool, projection, partitions)
                yield from _completeness(projection, checker)


@dataclass(frozen=True, slots=True)
class _State(Finding):
    filled: bool = False


def _state(projection: Projection, partitions: int, feed: StoreFeed, read_pool: Pool) -> _State:
    subject = f"read model {projection.name}"
    with read_pool.connection() as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT projection, position FROM position WHERE projection LIKE %s",
            [f"{projection.name}/%"],
        )
        positions: list[tuple[str, int]] = cursor.fetchall()
        if not positions:
            return _State(True, subject, "not filled yet; crm up does it")
        try:
            _, head = examined(cursor, projection, partitions, feed.head)
        except (OtherLog, LogBehind, NewerProgram) as problem:
            return _State(False, subject, str(problem))
        except RebuildNeeded as reason:
            if {name for name, _ in positions} == {projection.id} and len(positions) != partitions:
                text = f"has {len(positions)} partitions, CRM_PARTITIONS is {partitions}"
            else:
                text = str(reason)
            return _State(True, subject, f"{text}; crm up rebuilds it")
        parked = len(parking.keys(cursor, projection.id))
    if parked:
        text = f"events of {parked:,} keys could not be applied; see crm parked {projection.name}"
        return _State(False, subject, text, filled=True)
    behind = head.position - min(position for _, position in positions)
    text = "up to date" if behind == 0 else f"{behind:,} positions behind"
    return _State(behind < FAR_BEHIND, subject, text, filled=True)


def _completeness(projection: Projection, checker: Completeness) -> Iterator[Finding]:
    subject = f"read model {projection.name}"
    found = checker.look()
    if not found:
        yield Finding(True, subject, f"complete up to position {checker.position:,}")
    for finding in found[:_SHOWN]:
        yield Finding(False, subject, f"{finding}. Run: crm rebuild {projection.name}")
    if len(found) > _SHOWN:
        yield Finding(False, subject, f"and {len(found) - _SHOWN:,} more such ranges")
