"""The Merkle tree of RFC 9162, and its storage in tiles of 256 hashes.

A leaf's hash is SHA-256(0x00 ‖ leaf), a node's SHA-256(0x01 ‖ left ‖ right); the empty tree's root
is SHA-256 of nothing. Level 0 of the tiles holds the leaf hashes, level n the roots of full
subtrees of 256^n leaves. So every root and proof can be put together from few tiles.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

HASH = 32
"""Bytes of a hash."""

WIDTH = 256
"""Hashes of a full tile."""

FULL = WIDTH * HASH
"""Bytes of a full tile."""

_BITS = 8  # 2^8 = WIDTH

EMPTY_ROOT = hashlib.sha256(b"").digest()

ReadTile = Callable[[int, int], bytes]
"""Gives the hashes of the tile (level, index), one after the other; none that is not there."""

_sha256 = hashlib.sha256


class InvalidProof(Exception):
    """A proof that does not prove what it was given for."""


class TilesIncomplete(LookupError):
    """A hash is asked for that the tiles do not hold."""

    def __init__(self, level: int, index: int) -> None:
        super().__init__(f"tile {index} of level {level} is missing or too short")
        self.level = level
        self.index = index


def leaf_hash(leaf: bytes) -> bytes:
    """The hash of a leaf."""
    return _sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of a node."""
    return _sha256(b"\x01" + left + right).digest()


def root_of(hashes: bytes) -> bytes:
    """The root of the tree over these hashes, which stand one after the other."""
    if not hashes:
        return EMPTY_ROOT
    while len(hashes) > HASH:
        # A last one without a sibling goes up as it is, which gives the RFC's tree.
        paired = len(hashes) - len(hashes) % (2 * HASH)
        hashes = (
            b"".join(
                [
                    _sha256(b"\x01" + hashes[at : at + 2 * HASH]).digest()
                    for at in range(0, paired, 2 * HASH)
                ]
            )
            + hashes[paired:]
        )
    return hashes


class Tree:
    """The tree of the first `size` leaves, read from tiles when a hash is asked for.

    Any size works for which the tiles hold at least as many leaves. All methods raise
    `TilesIncomplete`, and `ValueError` for an index or a size that there cannot be.
    """

    def __init__(self, read: ReadTile) -> None:
        self._read = read

    def root(self, size: int) -> bytes:
        """The root over the first `size` leaves."""
        if size < 0:
            raise ValueError("no tree has a negative size")
        return EMPTY_ROOT if size == 0 else self._range(0, size)

    def leaf(self, index: int) -> bytes:
        """The hash of the leaf, counted from 0."""
        return self._full(0, index)

    def inclusion(self, index: int, size: int) -> list[bytes]:
        """The path from the leaf `index`, counted from 0, to the root of `size` leaves, from below
        (RFC 9162, 2.1.3.1)."""
        if not 0 <= index < size:
            raise ValueError("the leaf lies outside of the tree")
        path = []
        low, high = 0, size
        while high - low > 1:
            middle = low + _split(high - low)
            if index < middle:
                path.append(self._range(middle, high))
                high = middle
            else:
                path.append(self._range(low, middle))
                low = middle
        path.reverse()
        return path

    def consistency(self, first: int, second: int) -> list[bytes]:
        """The proof that the tree of `second` leaves begins with that of `first` (RFC 9162,
        2.1.4.1). Empty for equal sizes."""
        if not 0 < first <= second:
            raise ValueError("a proof leads from a smaller tree that is not empty to a larger one")
        path = []
        low, high = 0, second
        whole = True  # whether the smaller tree is all of the left edge so far
        while first != high:
            middle = low + _split(high - low)
            if first <= middle:
                path.append(self._range(middle, high))
                high = middle
            else:
                path.append(self._range(low, middle))
                low = middle
                whole = False
        if not whole:
            path.append(self._range(low, high))
        path.reverse()
        return path

    def _range(self, low: int, high: int) -> bytes:
        """The root over the leaves from `low` to before `high`; `low` is a multiple of a power of
        two that is not less than their number."""
        parts = []
        while low < high:
            level = (high - low).bit_length() - 1
            parts.append(self._full(level, low >> level))
            low += 1 << level
        root = parts.pop()
        while parts:
            root = node_hash(parts.pop(), root)
        return root

    def _full(self, height: int, index: int) -> bytes:
        """The root of a full subtree of 2^height leaves, the index-th of them."""
        level, within = divmod(height, _BITS)
        first = index << within
        count = 1 << within
        tile = first >> _BITS
        at = (first & (WIDTH - 1)) * HASH
        hashes = self._read(level, tile)[at : at + count * HASH]
        if len(hashes) != count * HASH:
            raise TilesIncomplete(level, tile)
        return root_of(hashes)


def _split(size: int) -> int:
    """The largest power of two smaller than `size`."""
    return 1 << ((size - 1).bit_length() - 1)


class Frontier:
    """The root of a tree to which hashes are added one by one; of the rest, nothing is kept.

    Roots of complete trees of one height may be added as well: the root is that of all their
    leaves.
    """

    def __init__(self) -> None:
        self.size = 0
        self._complete: list[bytes] = []

    def add(self, hashed: bytes) -> None:
        self.size += 1
        size = self.size
        while size % 2 == 0:
            hashed = node_hash(self._complete.pop(), hashed)
            size //= 2
        self._complete.append(hashed)

    def root(self) -> bytes:
        """Of what was added so far."""
        if not self._complete:
            return EMPTY_ROOT
        *before, root = self._complete
        for left in reversed(before):
            root = node_hash(left, root)
        return root


class Growth:
    """Tiles at the growing edge of a tree: takes leaf hashes, gives the tiles they change.

    Holds the last tile of each level that is not full: 8 KiB a level at most.
    """

    def __init__(self, size: int = 0, read: ReadTile | None = None) -> None:
        """Goes on from a tree of `size` leaves, whose edge is read from its tiles. Raises
        `TilesIncomplete`."""
        self.size = size
        self._edge: list[bytes] = []
        count, level = size, 0
        while count and read is not None:
            tile, rest = divmod(count, WIDTH)
            edge = read(level, tile)[: rest * HASH] if rest else b""
            if len(edge) != rest * HASH:
                raise TilesIncomplete(level, tile)
            self._edge.append(edge)
            count, level = tile, level + 1

    @property
    def room(self) -> int:
        """How many leaves the tile at the edge still takes."""
        return WIDTH - self.size % WIDTH

    def add(self, hashes: bytes) -> list[tuple[int, int, bytes]]:
        """Adds leaf hashes, at most `room` of them; gives the changed tiles as (level, index,
        hashes)."""
        count, rest = divmod(len(hashes), HASH)
        if rest or count > self.room:
            raise ValueError("more hashes than the tile takes, or parts of one")
        changed = []
        index = self.size // WIDTH  # of the tile at the edge of the level
        self.size += count
        level = 0
        while hashes:
            if level == len(self._edge):
                self._edge.append(b"")
            hashes = self._edge[level] + hashes
            changed.append((level, index, hashes))
            full = len(hashes) == FULL
            self._edge[level] = b"" if full else hashes
            hashes = root_of(hashes) if full else b""
            level, index = level + 1, index // WIDTH
        return changed

    def root(self) -> bytes:
        """The root over all leaves so far."""
        root = b""
        for edge in self._edge:
            if edge:
                root = root_of(edge + root) if root else root_of(edge)
        return root or EMPTY_ROOT


def verify_inclusion(
    hash_of_leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes
) -> None:
    """Whether the leaf stands at `index` of the tree of that size and root (RFC 9162, 2.1.3.2).

    Raises `InvalidProof` if the path does not show it.
    """
    if not 0 <= index < size:
        raise InvalidProof("the leaf lies outside of the tree")
    node, last, found = index, size - 1, hash_of_leaf
    for sibling in path:
        if last == 0:
            raise InvalidProof("the path is too long")
        if node & 1 or node == last:
            found = node_hash(sibling, found)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        node, last = node >> 1, last >> 1
    if last:
        raise InvalidProof("the path is too short")
    if found != root:
        raise InvalidProof("the path leads to another root")


def verify_consistency(
    first: int, second: int, first_root: bytes, second_root: bytes, path: Sequence[bytes]
) -> None:
    """Whether the second tree begins with the whole of the first (RFC 9162, 2.1.4.2). The empty
    tree is the beginning of every tree, by an empty path.

    Raises `InvalidProof` if the path does not show it.
    """
    if not 0 <= first <= second:
        raise InvalidProof("the first tree is larger than the second")
    if first == 0:
        if path or first_root != EMPTY_ROOT:
            raise InvalidProof("the empty tree has one root, and no path leads from it")
        return
    if first == second:
        if path or first_root != second_root:
            raise InvalidProof("trees of one size have one root, and no path leads between them")
        return
    steps = list(path)
    if first & (first - 1) == 0:
        steps.insert(0, first_root)
    if not steps:
        raise InvalidProof("the path is too short")
    node, last = first - 1, second - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old = new = steps[0]
    for step in steps[1:]:
        if last == 0:
            raise InvalidProof("the path is too long")
        if node & 1 or node == last:
            old, new = node_hash(step, old), node_hash(step, new)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            new = node_hash(new, step)
        node, last = node >> 1, last >> 1
    if last:
        raise InvalidProof("the path is too short")
    if old != first_root:
        raise InvalidProof("the path does not begin at the first root")
    if new != second_root:
        raise InvalidProof("the path leads to another root")
