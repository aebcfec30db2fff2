"""Is the log what was signed? Recomputes the tree from the events and holds it against checkpoints.

Memory does not grow with the log. What is wrong is named by position: exactly where the stored
tiles can be shown to be those that were signed, else by the checkpoints that it lies between.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from infra.proof.leaves import POSITION_BYTES
from infra.proof.notes import Checkpoint
from infra.proof.streaming import Take
from infra.proof.tree import FULL, HASH, WIDTH, Growth

POSITION = slice(POSITION_BYTES.start + 1, POSITION_BYTES.stop + 1)
"""Where the position lies in what is hashed: a leaf with 0x00 before it."""

MOST_BLOCKS = 256
"""Blocks that differ from their tiles of which the hashes are kept, to locate what is wrong."""

_AHEAD = 64  # tiles that are read at once


class Kind(StrEnum):
    """What is the matter with an event."""

    CHANGED = "changed"
    MISSING = "missing"
    INSERTED = "inserted"
    OUT_OF_ORDER = "out of order"
    UNKNOWN = "changed, missing or inserted"


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong with the events from `first` to `last`; if those differ, the first one that
    is wrong lies among them."""

    kind: Kind
    first: int
    last: int
    text: str = ""

    def __str__(self) -> str:
        if self.first == self.last:
            where = f"position {self.first:,}"
        else:
            where = f"a position from {self.first:,} to {self.last:,}"
        return f"{where}: {self.kind}" + (f" ({self.text})" if self.text else "")


class Source(Protocol):
    """The events that are verified."""

    def stream(self, take: Take) -> None:
        """Gives all of them, in their order, as `stream_leaves` does."""

    def some(self, first: int, count: int) -> list[bytes]:
        """Those at so many positions from one on, as far as they are there."""


class Tiles(Protocol):
    """The stored tree; it is no evidence by itself."""

    def tile(self, level: int, index: int) -> bytes: ...

    def leaf_tiles(self, first: int, count: int) -> dict[int, bytes]: ...


class NoTiles:
    """Where only the events are at hand, as in an export."""

    def tile(self, level: int, index: int) -> bytes:
        return b""

    def leaf_tiles(self, first: int, count: int) -> dict[int, bytes]:
        return {}


@dataclass(slots=True)
class Recomputed:
    """What came of reading the events once.

    `size`: how many there are up to the first that is out of its place, `fault` what is wrong
    there. `roots`: by size, for the sizes that were asked for and reached. `blocks`: the hashes of
    those blocks of 256 events that differ from their tile, by index, the first ones.
    `first_block`: the first of them.
    """

    size: int = 0
    fault: Fault | None = None
    roots: dict[int, bytes] = field(default_factory=dict)
    blocks: dict[int, bytes] = field(default_factory=dict)
    differing: int = 0


def recompute(
    source: Source,
    tiles: Tiles,
    sizes: Sequence[int],
    reached: Callable[[int], None] = lambda _: None,
) -> Recomputed:
    """Reads the events, and gives the roots at these sizes. `reached` hears of every few
    thousand events."""
    reader = _Reading(tiles, sorted(set(sizes)), reached)
    source.stream(reader.take)
    reader.finish()
    return reader.found


class _Reading:
    def __init__(self, tiles: Tiles, sizes: list[int], reached: Callable[[int], None]) -> None:
        self.found = Recomputed()
        self._tiles = tiles
        self._sizes = [size for size in reversed(sizes) if size > 0]
        self._reached = reached
        self._growth = Growth()
        self._hashes: list[bytes] = []
        self._ahead: dict[int, bytes] = {}
        self._block = b""  # the hashes of the block that is not full yet
        self._differs = False

    def take(self, leaves: list[bytes]) -> None:
        if self.found.fault is not None:
            return
        first = self._growth.size + len(self._hashes) + 1
        count = len(leaves)
        expected = struct.pack(f">{count}q", *range(first, first + count))
        if b"".join([leaf[POSITION] for leaf in leaves]) != expected:
            leaves = self._up_to_fault(leaves, first)
        sha256 = hashlib.sha256
        self._hashes += [sha256(leaf).digest() for leaf in leaves]
        self._drain()
        self._reached(first + count - 1)

    def _up_to_fault(self, leaves: list[bytes], first: int) -> list[bytes]:
        for index, leaf in enumerate(leaves):
            expected, found = first + index, int.from_bytes(leaf[POSITION], "big", signed=True)
            if found == expected:
                continue
            if found > expected:
                fault = Fault(Kind.MISSING, expected, expected, f"{found:,} follows")
            elif found == expected - 1:
                fault = Fault(Kind.INSERTED, found, found, "it is there more than once")
            else:
                fault = Fault(
                    Kind.OUT_OF_ORDER, expected, expected, f"{found:,} stands in its place"
                )
            self.found.fault = fault
            return leaves[:index]
        return leaves

    def _drain(self) -> None:
        """Adds what makes up whole blocks, and parts up to a size that is asked for."""
        while True:
            wanted = self._growth.room
            if self._sizes:
                wanted = min(wanted, self._sizes[-1] - self._growth.size)
            if len(self._hashes) < wanted:
                return
            self._add(wanted)

    def finish(self) -> None:
        while self._hashes:
            self._add(min(len(self._hashes), self._growth.room))
        self._end_block()
        self.found.size = self._growth.size

    def _add(self, count: int) -> None:
        hashes = b"".join(self._hashes[:count])
        del self._hashes[:count]
        index, within = divmod(self._growth.size, WIDTH)
        stored = self._tile(index)[within * HASH : within * HASH + len(hashes)]
        # Beyond what is sealed there is nothing to compare.
        self._differs = self._differs or hashes[: len(stored)] != stored
        self._block += hashes
        self._growth.add(hashes)
        if self._sizes and self._growth.size == self._sizes[-1]:
            self.found.roots[self._sizes.pop()] = self._growth.root()
        if len(self._block) == FULL:
            self._end_block()

    def _end_block(self) -> None:
        if self._block and self._differs:
            self.found.differing += 1
            if len(self.found.blocks) < MOST_BLOCKS:
                self.found.blocks[(self._growth.size - 1) // WIDTH] = self._block
        self._block = b""
        self._differs = False

    def _tile(self, index: int) -> bytes:
        first = index - index % _AHEAD
        if index % _AHEAD == 0 and not self._block:
            self._ahead = self._tiles.leaf_tiles(first, _AHEAD)
        return self._ahead.get(index, b"")


def matching(found: Recomputed, checkpoints: Sequence[Checkpoint]) -> tuple[int, Checkpoint | None]:
    """The largest size up to which the events are proven, and the first checkpoint that they do
    not fit or do not reach; none if they fit all."""
    proven = 0
    for checkpoint in sorted(checkpoints, key=lambda one: one.size):
        root = hashlib.sha256().digest() if checkpoint.size == 0 else None
        if found.roots.get(checkpoint.size, root) != checkpoint.root:
            return proven, checkpoint
        proven = checkpoint.size
    return proven, None
