"""Which records of a partition are applied, whatever the transport did to them on the way.

A transport may repeat records, lose some while later ones arrive, and send again from an earlier
point. What a sieve lets through is each event once, in order within its partition, with nothing
left out before it: a hole is never jumped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Protocol
from uuid import UUID


class Verdict(Enum):
    """What becomes of a record."""

    APPLIED = "applied"
    """It is the next of its partition, which stands at its position now."""
    DUPLICATE = "duplicate"
    """It was applied before."""
    HOLE = "hole"
    """An event before it did not arrive. It has to come again, behind that one."""
    OTHER_EPOCH = "other epoch"
    """It is of another log than the read model."""


class Positioned(Protocol):
    """A record: of an event, or a watermark, which says that all up to its position came before."""

    @property
    def partition(self) -> int: ...

    @property
    def offset(self) -> int: ...

    @property
    def position(self) -> int: ...

    @property
    def previous(self) -> int:
        """Position of the last event of the partition before this record, 0 if there is none."""

    @property
    def epoch(self) -> UUID: ...


@dataclass(frozen=True, slots=True)
class Hole:
    """Events of a partition are missing: after `position`, the last one up to `needed`."""

    position: int
    needed: int


class Sieve:
    """Judges the records of the partitions of one owner. Pure: no clock, no input or output.

    For a partition at position q, every event up to q was let through. A record up to q is a
    duplicate; one whose preceding event lies behind q reveals a hole; any other is the next.
    A partition's hole is open until the missing events have come, in order.
    """

    def __init__(self, epoch: UUID, positions: Mapping[int, int]) -> None:
        """`epoch`: the log of the read model. `positions`: where each owned partition stands."""
        self.epoch = epoch
        self.positions = dict(positions)
        self.offsets: dict[int, int] = {}
        """Where to go on reading, by partition. While a hole is open, what does not fill it is
        read again."""
        self.holes: dict[int, Hole] = {}

    def take(self, record: Positioned) -> Verdict:
        """Judge the next record of an owned partition, in the order of offsets."""
        verdict = self._judge(record)
        if verdict is Verdict.APPLIED or record.partition not in self.holes:
            self.offsets[record.partition] = record.offset + 1
        return verdict

    def _judge(self, record: Positioned) -> Verdict:
        if record.epoch != self.epoch:
            return Verdict.OTHER_EPOCH
        partition, position, previous = record.partition, record.position, record.previous
        reached = self.positions[partition]
        if position <= reached:
            return Verdict.DUPLICATE
        hole = self.holes.get(partition)
        if previous > reached:
            if hole is None:
                self.holes[partition] = Hole(reached, previous)
            return Verdict.HOLE
        self.positions[partition] = position
        if hole is not None:
            if position < hole.needed:
                self.holes[partition] = Hole(position, hole.needed)
            else:
                del self.holes[partition]
        return Verdict.APPLIED
