"""Sealing: the events since the last checkpoint go into the tree, and the new root is signed.

A step is one transaction under a lock, so any number of sealers do no harm. No checkpoint is signed
that does not extend the former one: the stored tiles must give the root that was signed last, and
what is added follows it without a gap. Where that does not hold, nothing is signed until somebody
has looked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from psycopg2 import Binary
from psycopg2.extras import execute_values

from infra.durable import settle
from infra.postgres import Connection, Pool
from infra.proof.leaves import POSITION_BYTES
from infra.proof.notes import (
    Checkpoint,
    NotANote,
    Note,
    NotTrusted,
    SigningKey,
    VerifyingKey,
    origin_of,
    parse,
    sign,
)
from infra.proof.stored import Stored, StoredCheckpoint
from infra.proof.streaming import stream_leaves
from infra.proof.tree import Growth, TilesIncomplete
from infra.vault import read_or_make_secret

STEP = 131_072
"""Events that are sealed at once, at most: what is held in memory of them is 5 MB."""

_POSITION = slice(POSITION_BYTES.start + 1, POSITION_BYTES.stop + 1)  # after the 0x00 of hashing
_SEED = 32


class SealRefused(RuntimeError):
    """Nothing is signed: what was signed before and what there is now do not fit. Says why."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """Where a step left things: the newest checkpoint, and the end of the log.

    `position` is 0 and `note` empty where nothing was ever sealed. `added`: events sealed by this
    step. `elsewhere`: another sealer was at it, so nothing was done here.
    """

    position: int
    head: int
    note: str
    added: int = 0
    elsewhere: bool = False

    @property
    def lag(self) -> int:
        """Events after the newest checkpoint."""
        return max(0, self.head - self.position)


class Sealer:
    """Seals one log with the key in a file. `published` gives the newest checkpoint that is known
    outside of the database, if any: what is signed must extend that one too."""

    def __init__(
        self,
        pool: Pool,
        key_file: Path,
        *,
        published: Callable[[], str | None] = lambda: None,
        step: int = STEP,
    ) -> None:
        """`pool`: of role crm_sealer, not autocommit, its search path leads to the log."""
        self._pool = pool
        self._key_file = key_file
        self._published = published
        self._step = step

    def seal(self) -> Sealed:
        """Seals what there is, up to so many events, and signs. Raises `SealRefused`, and what the
        driver raises."""
        with self._pool.connection() as connection:
            stored = Stored(connection)
            if not _locked(connection):
                newest, head = stored.newest(), stored.head()
                at, note = (newest.size, newest.note) if newest else (0, "")
                return Sealed(at, head, note, elsewhere=True)
            head = stored.head()
            growth, note, key = self._begin(stored)
            before = growth.size
            if head == before:
                return Sealed(before, head, note)
            tiles = _grow(connection, growth, min(head, before + self._step))
            _write(connection, tiles)
            note = sign(Checkpoint(key.name, growth.size, growth.root()), [key])
            if before == 0:
                _add_key(connection, stored.log_id(), key, growth.size)
            _add_checkpoint(connection, stored.log_id(), growth.size, note)
        return Sealed(growth.size, head, note, added=growth.size - before)

    def rotate(self) -> tuple[VerifyingKey, Sealed]:
        """Hands over to a new key, by a checkpoint that both sign; then the file holds the new one.

        Seals nothing more. Raises `SealRefused`, also where nothing is sealed yet, `OSError` where
        the file cannot be replaced, and what the driver raises.
        """
        following = _next(self._key_file)
        with self._pool.connection() as connection:
            stored = Stored(connection)
            if not _locked(connection):
                raise SealRefused("another sealer is at work; try again")
            growth, _, key = self._begin(stored)
            if growth.size == 0:
                raise SealRefused("nothing is sealed yet, so no key has to be followed by another")
            following.unlink(missing_ok=True)  # of a rotation that came to nothing
            new = SigningKey(key.name, read_or_make_secret(following, _SEED))
            note = sign(Checkpoint(key.name, growth.size, growth.root()), [key, new])
            with connection.cursor() as cursor:
                cursor.execute(
                    "UPDATE seal_key SET last_size = %s WHERE vkey = %s",
                    [growth.size, str(key.verifying)],
                )
            _add_key(connection, stored.log_id(), new, growth.size)
            _add_checkpoint(connection, stored.log_id(), growth.size, note)
            head = stored.head()
        _take_over(self._key_file)
        return new.verifying, Sealed(growth.size, head, note)

    def _begin(self, stored: Stored) -> tuple[Growth, str, SigningKey]:
        """The tree as it was signed last, that checkpoint, and the key that signs."""
        newest = stored.newest()
        key = self._key(stored, newest)
        if newest is None:
            self._demand_extends(key, Growth(), stored)
            return Growth(), "", key
        checkpoint = _verified(newest, key)
        if stored.head() < newest.size:
            raise SealRefused(
                f"the log ends at position {stored.head():,}, but {newest.size:,} were sealed:"
                " events are lost"
            )
        try:
            growth = Growth(newest.size, stored.tile)
        except TilesIncomplete as missing:
            raise SealRefused(f"the tree was changed: {missing}") from None
        if growth.root() != checkpoint.root:
            raise SealRefused(
                f"the tree does not have the root that was signed at size {newest.size:,}"
            )
        self._demand_extends(key, growth, stored)
        return growth, newest.note, key

    def _key(self, stored: Stored, newest: StoredCheckpoint | None) -> SigningKey:
        name = origin_of(stored.log_id())
        signs = stored.signing_key()
        if (
            newest is not None
            and not self._key_file.exists()
            and not _next(self._key_file).exists()
        ):
            raise SealRefused(
                f"{self._key_file} is not there, and the log was sealed with a key before: copy it"
                " there from where it was or from its backup"
            )
        following = _next(self._key_file)
        if following.exists() and signs == str(_read(name, following).verifying):
            _take_over(self._key_file)  # a rotation that was committed and then cut short
        key = _read(name, self._key_file)
        if newest is not None and signs != str(key.verifying):
            raise SealRefused(
                f"{self._key_file} is not the key that signs for this log: copy that one there, or"
                " have it hand over by crm seal --rotate-key"
            )
        return key

    def _demand_extends(self, key: SigningKey, growth: Growth, stored: Stored) -> None:
        """The checkpoint outside must not be one of a longer or of another log."""
        published = self._published()
        if published is None:
            return
        try:
            note = parse(published)
            if note.checkpoint.origin != key.name:
                note.signed_by([SigningKey(note.checkpoint.origin, key.seed).verifying])
                raise SealRefused(
                    f"the published checkpoint is of {note.checkpoint.origin}, but the log is"
                    f" called {key.name}; if that was meant, move the file aside"
                )
            note.signed_by(_keys_of(stored, key))
        except (NotANote, NotTrusted):
            return  # not by a sealer of this log, so it binds nobody
        _demand_prefix(note, growth, stored)


def _demand_prefix(note: Note, growth: Growth, stored: Stored) -> None:
    published = note.checkpoint
    if published.size > growth.size:
        raise SealRefused(
            f"a checkpoint of size {published.size:,} was published, but the database knows of none"
            f" after {growth.size:,}: it was set back to an earlier state. Bring the missing events"
            " back from a backup, or, if they are lost for good, see crm seal --new-log"
        )
    if published.size == 0:
        return
    try:
        root = stored.tree.root(published.size)
    except TilesIncomplete as missing:
        raise SealRefused(f"the tree was changed: {missing}") from None
    if root != published.root:
        raise SealRefused(
            f"the tree does not have the root that was published at size {published.size:,}"
        )


def _keys_of(stored: Stored, key: SigningKey) -> list[VerifyingKey]:
    keys = [key.verifying]
    for text in stored.vkeys():
        try:
            keys.append(VerifyingKey.parse(text))
        except ValueError:
            continue
    return keys


def _verified(newest: StoredCheckpoint, key: SigningKey) -> Checkpoint:
    try:
        note = parse(newest.note)
        note.signed_by([key.verifying])
    except (NotANote, NotTrusted) as error:
        raise SealRefused(f"the checkpoint of size {newest.size:,} was changed: {error}") from None
    if (note.checkpoint.origin, note.checkpoint.size) != (key.name, newest.size):
        raise SealRefused(f"the checkpoint of size {newest.size:,} is one of something else")
    return note.checkpoint


def _grow(connection: Connection, growth: Growth, through: int) -> dict[tuple[int, int], bytes]:
    """Adds the events up to a position; gives the changed tiles."""
    tiles: dict[tuple[int, int], bytes] = {}
    hashes: list[bytes] = []
    sha256 = hashlib.sha256

    def add() -> None:
        count = min(len(hashes), growth.room)
        for level, index, tile in growth.add(b"".join(hashes[:count])):
            tiles[level, index] = tile
        del hashes[:count]

    def take(leaves: list[bytes]) -> None:
        for leaf in leaves:
            expected = growth.size + len(hashes) + 1
            if leaf[_POSITION] != expected.to_bytes(8, "big"):
                found = int.from_bytes(leaf[_POSITION], "big")
                raise SealRefused(
                    f"after position {expected - 1:,} comes {found:,}: events are missing"
                )
            hashes.append(sha256(leaf).digest())
            if len(hashes) == growth.room:
                add()

    stream_leaves(connection, growth.size, through, take)
    if hashes:
        add()
    if growth.size != through:
        raise SealRefused(
            f"the log ends after position {growth.size:,}, its head says {through:,}: events are"
            " missing"
        )
    return tiles


def _write(connection: Connection, tiles: dict[tuple[int, int], bytes]) -> None:
    rows = [(level, index, Binary(hashes)) for (level, index), hashes in tiles.items()]
    with connection.cursor() as cursor:
        execute_values(
            cursor,
            "INSERT INTO tile (level, index, hashes) VALUES %s"
            " ON CONFLICT (level, index) DO UPDATE SET hashes = EXCLUDED.hashes",
            rows,
            page_size=64,
        )


def _locked(connection: Connection) -> bool:
    """Whether nobody else seals this log, until the end of the transaction."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_try_advisory_xact_lock(hashtextextended('crm seal ' || current_schema(), 0))"
        )
        return _one(cursor.fetchone()) is True


def _add_key(connection: Connection, log_id: UUID, key: SigningKey, size: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO seal_key (vkey, log_id, first_size) VALUES (%s, %s, %s)",
            [str(key.verifying), log_id, size],
        )


def _add_checkpoint(connection: Connection, log_id: UUID, size: int, note: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO checkpoint (log_id, size, note) VALUES (%s, %s, %s)",
            [log_id, size, note],
        )


def _read(name: str, path: Path) -> SigningKey:
    try:
        return SigningKey(name, read_or_make_secret(path, _SEED))
    except ValueError as error:
        raise SealRefused(f"{path}: {error}") from None


def _next(key_file: Path) -> Path:
    """Where a key lies that is about to take over."""
    return key_file.with_name(f"{key_file.name}.next")


def _take_over(key_file: Path) -> None:
    """Puts the next key in place of the present one, which is gone then."""
    _next(key_file).replace(key_file)
    settle(key_file.parent)


def begin_new_log(connection: Connection) -> UUID:
    """Gives the log another identity, under which nothing is sealed yet; for the tables' owner.

    For a log that has lost sealed events for good. The former checkpoints stay, and go on to say
    what was lost. The connection is committed by the caller.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended('crm seal ' || current_schema(), 0))"
        )
        cursor.execute("DELETE FROM tile")
        cursor.execute("UPDATE seal SET log_id = gen_random_uuid() RETURNING log_id")
        found: UUID = _one(cursor.fetchone())
        return found


def _one(row: tuple[Any, ...] | None) -> Any:
    return row[0] if row else None
