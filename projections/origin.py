"""Where a read model comes from: which log filled it, and which version of the program.

Positions alone would take a restored log, or another one, for the log that filled the tables, and
skip its events up to them. So a read model keeps the epoch of its log, and is carried on only from
that log, and only if that reaches as far as the read model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from psycopg2.extensions import cursor as Cursor  # noqa: N812  (it is a class)

from infra.eventstore.feed import Head
from projections import offsets
from projections.projection import Projection


class RebuildNeeded(RuntimeError):
    """The tables were filled by an earlier version of the projection, for another number of
    partitions, or without an account of what was applied: rebuild it."""


class OtherLog(RuntimeError):
    """The tables were filled from another log. Nothing is applied until somebody decides."""


class LogBehind(RuntimeError):
    """The tables hold more than the log: it was restored to an earlier point. Nothing is applied
    until somebody decides."""


class NewerProgram(RuntimeError):
    """A later version of the program keeps this read model up, or wrote the event: this one has
    nothing more to do with it."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The log that filled a read model, and which filling of its tables this is."""

    epoch: UUID
    filled: UUID


def begin(cursor: Cursor, projection: Projection, head: Head) -> None:
    """Empty tables are to be filled from this log: forget what was said about earlier ones."""
    like = [f"{projection.name}/%"]
    cursor.execute("DELETE FROM origin WHERE projection LIKE %s", like)
    cursor.execute("DELETE FROM applied WHERE projection LIKE %s", like)
    cursor.execute("DELETE FROM summarised WHERE projection LIKE %s", like)
    cursor.execute("DELETE FROM kafka_offset WHERE projection = %s", [projection.name])
    adopt(cursor, projection, head)


def admitted(
    cursor: Cursor, projection: Projection, partitions: int, head_now: Callable[[], Head]
) -> Origin:
    """The origin of the read model there is, if it can be carried on from this log.

    Raises what `examined` raises. Takes the log's epoch where none was kept, or where nothing was
    applied yet: who still means to apply events of the former log finds the tables filled anew.
    """
    known, _ = examined(cursor, projection, partitions, head_now)
    if known is not None:
        return known
    # Somebody may be about to write the first events of the former log.
    cursor.execute("SELECT FROM position WHERE projection = %s FOR UPDATE", [projection.id])
    known, head = examined(cursor, projection, partitions, head_now)
    if known is not None:
        return known
    cursor.execute("SELECT FROM origin WHERE projection = %s", [projection.id])
    if cursor.rowcount:
        offsets.clear(cursor, projection.name)  # they lie behind records of the former log
    return adopt(cursor, projection, head)


def examined(
    cursor: Cursor, projection: Projection, partitions: int, head_now: Callable[[], Head]
) -> tuple[Origin | None, Head]:
    """What was kept about the origin of the read model there is, and the log's head.

    Raises NewerProgram, OtherLog, LogBehind and RebuildNeeded, in this order: what somebody has to
    decide is never rebuilt away.
    """
    cursor.execute(
        "SELECT projection, partition, position FROM position WHERE projection LIKE %s",
        [f"{projection.name}/%"],
    )
    found: list[tuple[str, int, int]] = cursor.fetchall()
    head = head_now()  # after the positions: others may move them on all the while
    names = {name for name, _, _ in found}
    refuse_newer(projection, names)
    cursor.execute(
        "SELECT projection, store_epoch, filled FROM origin WHERE projection = ANY(%s)",
        [sorted(names)],
    )
    origins = {name: Origin(epoch, filled) for name, epoch, filled in cursor.fetchall()}
    furthest = max((position for _, _, position in found), default=0)
    for name, _, position in found:
        epoch = origins[name].epoch if name in origins else None
        demand_same_log(name, epoch, position, head)
    if names != {projection.id}:
        there = ", ".join(sorted(names))
        raise RebuildNeeded(f"{there or 'nothing'} is there, {projection.id} is wanted")
    if {partition for _, partition, _ in found} != set(range(partitions)):
        raise RebuildNeeded(f"{projection.id} has {len(found)} partitions, {partitions} are wanted")
    known = origins.get(projection.id)
    if known is not None and known.epoch == head.epoch:
        return known, head
    if furthest > 0 and not _accounted(cursor, projection):
        raise RebuildNeeded(f"{projection.id} has no account of what was applied")
    return None, head


def refuse_newer(projection: Projection, ids: set[str]) -> None:
    """Raises NewerProgram if one of these ids is of a later version of the projection."""
    newest = max(ids, key=_version, default=projection.id)
    if _version(newest) > projection.version:
        raise NewerProgram(
            f"{newest} is there, this program knows {projection.id}: a later version of the"
            " program keeps this read model up. Run that version;"
            f" crm rebuild {projection.name} with this one would go back"
        )


def demand_same_log(id_: str, epoch: UUID | None, position: int, head: Head) -> None:
    """Raises OtherLog or LogBehind unless what stands at `position` can have been filled from this
    log. `epoch`: of the log that filled it, None where that was not kept."""
    name = id_.partition("/")[0]
    # At position 0 there is nothing yet that another log could have brought.
    if epoch is not None and epoch != head.epoch and position > 0:
        raise OtherLog(
            f"{id_} was filled from another log ({epoch}; this one is {head.epoch})."
            f" If this log is the right one: crm rebuild {name}"
        )
    if position > head.position:
        raise LogBehind(
            f"{id_} is at position {position}, the log ends at {head.position}: it was restored"
            f" to an earlier point. If that is how it should stay: crm rebuild {name}"
        )


def _version(id_: str) -> int:
    number = id_.rpartition("/")[2].partition(":")[0]  # what follows is the definition's
    return int(number) if number.isdecimal() else 0


def _accounted(cursor: Cursor, projection: Projection) -> bool:
    cursor.execute("SELECT EXISTS (SELECT FROM applied WHERE projection = %s)", [projection.id])
    return bool(cursor.fetchall()[0][0])


def adopt(cursor: Cursor, projection: Projection, head: Head) -> Origin:
    """Keep that the tables are of this log; another filling of them."""
    cursor.execute(
        "INSERT INTO origin (projection, store_epoch) VALUES (%s, %s)"
        " ON CONFLICT (projection) DO UPDATE SET store_epoch = excluded.store_epoch,"
        " filled = excluded.filled"
        " RETURNING store_epoch, filled",
        [projection.id, head.epoch],
    )
    return Origin(*cursor.fetchall()[0])
