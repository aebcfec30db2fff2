"""Where the first event is that is not what was signed, and what is the matter with it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from infra.proof.notes import Checkpoint
from infra.proof.tree import HASH, WIDTH, InvalidProof, TilesIncomplete, Tree, verify_inclusion
from infra.proof.verifying import (
    POSITION,
    Fault,
    Kind,
    Recomputed,
    Source,
    Tiles,
    matching,
    recompute,
)

NEAR = 256
"""Positions around one that differs in which its event, or another in its place, is looked for."""


@dataclass(slots=True)
class Verdict:
    """What a verification came to.

    `events`: how many were read in their places. `proven`: up to this position they are what was
    signed. `faults`: what is wrong with events, the first position first. `tiles`: what is wrong
    with the stored tree, which is no evidence against the events.
    """

    events: int
    proven: int
    faults: list[Fault] = field(default_factory=list)
    tiles: list[str] = field(default_factory=list)


def verify(
    source: Source,
    tiles: Tiles,
    checkpoints: Sequence[Checkpoint],
    *,
    head: int | None = None,
    reached: Callable[[int], None] = lambda _: None,
) -> Verdict:
    """Holds the events against checkpoints whose signatures were verified. `head`: where the log
    says that it ends, if it is known; `reached`: see `recompute`."""
    found = recompute(source, tiles, [one.size for one in checkpoints], reached)
    proven, unfit = matching(found, checkpoints)
    verdict = Verdict(found.size, proven)
    if unfit is not None:
        verdict.faults.append(_first_fault(source, tiles, found, proven, unfit))
    elif found.fault is not None:
        verdict.faults.append(found.fault)
    elif head is not None and found.size != head:
        verdict.faults.append(_beyond(found.size, head))
    _blame_tiles(verdict, found)
    return verdict


def _beyond(events: int, head: int) -> Fault:
    if events > head:
        return Fault(Kind.INSERTED, head + 1, head + 1, f"the log's head is at {head:,}")
    return Fault(Kind.MISSING, events + 1, events + 1, f"the log's head is at {head:,}")


def _first_fault(
    source: Source, tiles: Tiles, found: Recomputed, proven: int, unfit: Checkpoint
) -> Fault:
    """The first event in the checkpoint's range that is not what was signed."""
    end = min(found.size, unfit.size)
    for index, block in sorted(found.blocks.items()):
        if index * WIDTH >= end:
            break
        fault = _in_block(source, tiles, found, index, block, unfit)
        if fault is not None and fault.last > proven:
            return fault
    if found.size < unfit.size:
        where = found.size + 1
        return found.fault or Fault(
            Kind.MISSING, where, where, f"a checkpoint was signed at {unfit.size:,}"
        )
    return Fault(
        Kind.UNKNOWN,
        proven + 1,
        unfit.size,
        "the stored tree was changed as well, so no nearer",
    )


def _in_block(
    source: Source,
    tiles: Tiles,
    found: Recomputed,
    index: int,
    block: bytes,
    unfit: Checkpoint,
) -> Fault | None:
    """What is wrong in a block that differs from its tile; none if it is the tile that is wrong."""
    stored = tiles.tile(0, index)
    shared = min(len(stored), len(block)) // HASH
    at = next((i for i in range(shared) if _hash(stored, i) != _hash(block, i)), None)
    if at is None:
        return None
    leaf = index * WIDTH + at
    if leaf >= unfit.size:
        return None
    if _signed(tiles, leaf, unfit, {}):
        return _what(source, tiles, found, leaf + 1, unfit)
    if _signed(tiles, leaf, unfit, {(0, index): block}):
        return None
    last = min((index + 1) * WIDTH, unfit.size)
    if _block_signed(tiles, index, unfit):
        first = index * WIDTH + 1
        return Fault(Kind.UNKNOWN, first, last, "their part of the stored tree was changed as well")
    return None


def _signed(
    tiles: Tiles, leaf: int, unfit: Checkpoint, instead: dict[tuple[int, int], bytes]
) -> bool:
    """Whether the leaf's hash, as the tiles have it, is the one that was signed."""

    def read(level: int, index: int) -> bytes:
        return instead.get((level, index)) or tiles.tile(level, index)

    tree = Tree(read)
    try:
        path = tree.inclusion(leaf, unfit.size)
        verify_inclusion(tree.leaf(leaf), leaf, unfit.size, path, unfit.root)
    except (TilesIncomplete, InvalidProof):
        return False
    return True


def _block_signed(tiles: Tiles, index: int, unfit: Checkpoint) -> bool:
    """Whether the level above tells the block's root as it was signed."""
    tree = Tree(tiles.tile)
    blocks = -(-unfit.size // WIDTH)
    if (index + 1) * WIDTH > unfit.size:
        return False
    try:
        path = tree.inclusion(index * WIDTH, unfit.size)[8:]
        root = _hash(tiles.tile(1, index // WIDTH), index % WIDTH)
        verify_inclusion(root, index, blocks, path, unfit.root)
    except (TilesIncomplete, InvalidProof):
        return False
    return True


def _hash(hashes: bytes, index: int) -> bytes:
    return hashes[index * HASH : (index + 1) * HASH]


def _what(
    source: Source, tiles: Tiles, found: Recomputed, position: int, unfit: Checkpoint
) -> Fault:
    """What is the matter with the event at a position whose signed hash is known to be another."""
    leaves = {int.from_bytes(leaf[POSITION], "big"): leaf for leaf in source.some(position, NEAR)}
    signed = dict(_signed_hashes(tiles, [*range(position, position + NEAR)], unfit))
    here = leaves[position]
    elsewhere = [*range(position + 1, position + NEAR), *_others(found, tiles, position)]
    for other in elsewhere:
        leaf = leaves.get(other) or next(iter(source.some(other, 1)), None)
        if leaf is None:
            continue
        if other not in signed:
            signed |= dict(_signed_hashes(tiles, [other], unfit))
        is_ours = _hashed_at(leaf, position) == signed[position]
        is_theirs = _hashed_at(here, other) == signed.get(other)
        if is_ours and is_theirs:
            return Fault(
                Kind.OUT_OF_ORDER, position, position, f"it has changed places with {other:,}"
            )
        if is_ours:
            text = "what was signed here comes after it"
            return Fault(Kind.INSERTED, position, position, text)
        if is_theirs:
            return Fault(Kind.MISSING, position, position, "what comes after it has moved up")
    return Fault(Kind.CHANGED, position, position)


def _others(found: Recomputed, tiles: Tiles, position: int) -> Iterable[int]:
    """The first position that differs in each of the further blocks that do."""
    for index, block in sorted(found.blocks.items()):
        stored = tiles.tile(0, index)
        for at in range(min(len(stored), len(block)) // HASH):
            if _hash(stored, at) != _hash(block, at):
                if index * WIDTH + at + 1 > position:
                    yield index * WIDTH + at + 1
                break


def _signed_hashes(
    tiles: Tiles, positions: Iterable[int], unfit: Checkpoint
) -> Iterable[tuple[int, bytes]]:
    """The hashes that the tiles have there. The first one is proven; another that is not right can
    mislead only about what is the matter, not about where."""
    for position in positions:
        index, at = divmod(position - 1, WIDTH)
        value = _hash(tiles.tile(0, index), at)
        if position <= unfit.size and len(value) == HASH:
            yield position, value


def _hashed_at(leaf: bytes, position: int) -> bytes:
    """The hash that the event would have at another position."""
    moved = leaf[: POSITION.start] + position.to_bytes(8, "big") + leaf[POSITION.stop :]
    return hashlib.sha256(moved).digest()


def _blame_tiles(verdict: Verdict, found: Recomputed) -> None:
    """Tiles that differ from events which are proven are wrong themselves."""
    wrong = [index for index in sorted(found.blocks) if (index + 1) * WIDTH <= verdict.proven]
    if not verdict.faults:
        wrong = sorted(found.blocks)
    for index in wrong[:10]:
        verdict.tiles.append(f"tile {index:,} of level 0 is not that of its events")
    if len(wrong) > 10:
        verdict.tiles.append(f"and {len(wrong) - 10:,} more tiles")
