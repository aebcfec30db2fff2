"""Proofs for those who do not trust the operator: put together from the stored tree, on demand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from infra.postgres import Pool
from infra.proof.notes import Checkpoint, NotANote, parse
from infra.proof.stored import Stored
from infra.proof.tree import TilesIncomplete


class NotSealed(LookupError):
    """The log is sealed up to `size` only; 0 if nothing is sealed yet."""

    def __init__(self, size: int) -> None:
        super().__init__(
            f"It is sealed up to position {size}; what came after is sealed before long."
            if size
            else "Nothing is sealed yet."
        )
        self.size = size


class NoSuchCheckpoint(LookupError):
    """No checkpoint was signed at that size."""

    def __init__(self, size: int, newest: int) -> None:
        super().__init__(f"There is none of size {size}; the newest is of size {newest}.")
        self.size = size
        self.newest = newest


class ProofUnavailable(RuntimeError):
    """The stored tree or its checkpoints are damaged, so that nothing can be proven from them."""


@dataclass(frozen=True, slots=True)
class Signed:
    """A checkpoint, its note as it was published, and the vkeys that sign for the log."""

    checkpoint: Checkpoint
    note: str
    keys: list[str]


@dataclass(frozen=True, slots=True)
class Inclusion:
    """That an event is in the tree of `size` leaves, at `index` = position − 1. `note` is the
    checkpoint of that size, if one was signed."""

    position: int
    size: int
    leaf_hash: bytes
    path: list[bytes]
    root: bytes
    note: str | None


@dataclass(frozen=True, slots=True)
class Consistency:
    """That the tree of `second` leaves begins with that of `first`."""

    first: int
    second: int
    first_root: bytes
    second_root: bytes
    path: list[bytes]


class Proofs:
    """Reads by a pool whose search path leads to the log. Methods block, and raise `NotSealed`,
    `NoSuchCheckpoint`, `ProofUnavailable` and what the driver raises."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def checkpoint(self, size: int | None = None) -> Signed:
        """The newest checkpoint, or the one of a size."""
        with self._stored() as stored:
            newest = stored.newest()
            if newest is None:
                raise NotSealed(0)
            wanted = newest if size is None else stored.of_size(size)
            if wanted is None:
                raise NoSuchCheckpoint(size or 0, newest.size)
            return Signed(parse(wanted.note).checkpoint, wanted.note, stored.vkeys())

    def inclusion(self, position: int, size: int | None = None) -> Inclusion:
        """That the event at a position from 1 on is in the tree of a size, or in the newest."""
        with self._stored() as stored:
            wanted = _sealed(stored, size)
            if position > wanted:
                raise NotSealed(wanted)
            signed = stored.of_size(wanted)
            tree = stored.tree
            return Inclusion(
                position,
                wanted,
                tree.leaf(position - 1),
                tree.inclusion(position - 1, wanted),
                tree.root(wanted),
                None if signed is None else signed.note,
            )

    def consistency(self, first: int, second: int | None = None) -> Consistency:
        """That the tree of a size, or the newest, begins with a smaller one that is not empty."""
        with self._stored() as stored:
            wanted = _sealed(stored, second)
            if first > wanted:
                raise NotSealed(wanted)
            tree = stored.tree
            return Consistency(
                first, wanted, tree.root(first), tree.root(wanted), tree.consistency(first, wanted)
            )

    @contextmanager
    def _stored(self) -> Iterator[Stored]:
        with self._pool.connection() as connection:
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            try:
                yield Stored(connection)
            except (TilesIncomplete, NotANote) as error:
                raise ProofUnavailable(str(error)) from error


def _sealed(stored: Stored, size: int | None) -> int:
    """The size that is asked for, if it is sealed; the newest by default."""
    newest = stored.newest()
    if newest is None:
        raise NotSealed(0)
    if size is not None and size > newest.size:
        raise NotSealed(newest.size)
    return newest.size if size is None else size
