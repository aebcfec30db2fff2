"""Keys of personal data: one per natural person, wrapped by a master key; erasing destroys one.

Personal text is sealed with AES-256-GCM; the associated data `subject|event|field` binds a
sealed text to the place it was written for. A sealed text is a token that names that place:
`1.<subject>.<event>.<field>.<base64url of nonce and ciphertext>`.
"""

from __future__ import annotations

import base64
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from domain.errors import SubjectErased
from domain.values import Personal
from infra.master_keys import KEY as _KEY
from infra.master_keys import NONCE as _NONCE
from infra.master_keys import MasterKey, beside, read_or_make_secret
from infra.postgres import Pool

__all__ = ["Vault", "WrongMasterKey", "open_vault", "read_or_make_secret"]

ERASED = "[erased]"
"""Stands where a text was whose key is destroyed."""

_VERSION = "1"
_CHUNK = 10_000
_TRIES = 3
_OLDEST = """SELECT subject, wrapped, master FROM keys WHERE wrapped IS NOT NULL
    ORDER BY created_at, subject LIMIT 1"""
# The share lock makes a change of the master key wait, and is not given once there was one.
_ADD = """INSERT INTO keys (subject, wrapped, master)
    SELECT %s, %s, master.fingerprint FROM master WHERE master.fingerprint = %s FOR SHARE
    ON CONFLICT (subject) DO NOTHING"""


class KeyNotCached(LookupError):
    """The key of this subject is not in memory: call `Vault.prepare`, which may block, first."""

    def __init__(self, subject: UUID) -> None:
        super().__init__(str(subject))
        self.subject = subject


class WrongMasterKey(RuntimeError):
    """The master key is not the one that the keys in the vault were wrapped with."""


class Vault:
    """Seals and opens personal text.

    `seal` and `opened` never touch the database; `prepare` and `fetch` do. Keys are
    remembered for `remember` seconds at most, so that an erasure elsewhere takes effect soon;
    `forget` makes it so at once. The pool's search path leads to the table of keys.
    """

    def __init__(
        self,
        pool: Pool,
        master_key: bytes,
        *,
        others: Callable[[], Iterable[bytes]] = tuple,
        remember: float = 60.0,
        capacity: int = 50_000,
    ) -> None:
        """`others` gives the master keys there are by now, where another one is needed."""
        self._pool = pool
        self._own = MasterKey(master_key)
        self._masters = {self._own.fingerprint: self._own}
        self._others = others
        self._wrapping: MasterKey | None = None
        self.remember = remember
        self._capacity = capacity
        self._keys: OrderedDict[UUID, tuple[float, AESGCM | None]] = OrderedDict()
        self._lock = threading.Lock()
        self._fits = False

    def check(self) -> None:
        """Raises `WrongMasterKey` if the vault's oldest key was wrapped with another master key.

        The oldest one tells whose vault it is, also where a process with another master key has
        added keys since. An empty vault is anybody's. Asks no more once there was a key that fits.
        """
        if self._fits:
            return
        with self._pool.connection() as connection, connection.cursor() as cursor:
            cursor.execute(_OLDEST)
            rows = cursor.fetchall()
        for subject, wrapped, master in rows:
            self._unwrapped(subject, wrapped, master)
            self._fits = True

    def misfits(self) -> tuple[int, int]:
        """How many keys of the vault this master key does not open, and how many there are. Reads
        all of them."""
        wrong = keys = 0
        after = UUID(int=0)
        while True:
            with self._pool.connection() as connection, connection.cursor() as cursor:
                cursor.execute(
                    "SELECT subject, wrapped, master FROM keys WHERE subject > %s"
                    " ORDER BY subject LIMIT %s",
                    (after, _CHUNK),
                )
                rows = cursor.fetchall()
            for subject, wrapped, master in rows:
                keys += wrapped is not None
                try:
                    self._unwrapped(subject, wrapped, master)
                except WrongMasterKey:
                    wrong += 1
            if len(rows) < _CHUNK:
                return wrong, keys
            after = rows[-1][0]

    def prepare(self, subjects: Iterable[UUID]) -> None:
        """Make the keys that do not exist yet, committed, and remember all of them.

        Errors, here and of `fetch`: `WrongMasterKey`, and what the driver raises.
        """
        self.check()  # else keys of two master keys would get mixed
        wanted = list(subjects)
        for _ in range(_TRIES):
            master = self._wrapping or self._in_force()
            with self._pool.connection() as connection, connection.cursor() as cursor:
                for subject in wanted:
                    wrapped = master.wrap(subject, os.urandom(_KEY))
                    cursor.execute(_ADD, (subject, wrapped, master.fingerprint))
            if self._load(wanted) == len(set(wanted)):
                self._wrapping = master
                return
            self._wrapping = None  # another master key has been put in force
        raise WrongMasterKey("the master key in force keeps changing")

    def fetch(self, subjects: Iterable[UUID]) -> None:
        """Remember the keys of those subjects that have one."""
        missing = [subject for subject in subjects if self._cached(subject) is None]
        if missing:
            self._load(missing)

    def seal(self, personal: Personal, *, event: str, field: str) -> str:
        """Encrypt the text for a field of an event, keep the token on it and return it.

        Errors: `KeyNotCached` without a remembered key, `SubjectErased` after an erasure.
        """
        if personal.text is None:
            raise ValueError("an unopened text cannot be sealed anew")
        entry = self._cached(personal.subject)
        if entry is None:
            raise KeyNotCached(personal.subject)
        key = entry[0]
        if key is None:
            raise SubjectErased("the person's data have been erased: nothing new is written")
        nonce = os.urandom(_NONCE)
        bound = f"{personal.subject}|{event}|{field}".encode()
        box = nonce + key.encrypt(nonce, personal.text.encode(), bound)
        encoded = base64.urlsafe_b64encode(box).decode().rstrip("=")
        token = f"{_VERSION}.{personal.subject}.{event}.{field}.{encoded}"
        personal.sealed = token
        return token

    @staticmethod
    def is_for(personal: Personal, *, event: str, field: str) -> bool:
        """Whether the text was sealed for this field of this event."""
        token = personal.sealed
        place = f"{_VERSION}.{personal.subject}.{event}.{field}."
        return token is not None and token.startswith(place)

    @staticmethod
    def unopened(token: Any) -> Personal:
        """The personal text behind a token, still sealed. Errors: `ValueError` for no token."""
        parts = token.split(".") if isinstance(token, str) else []
        if len(parts) != 5 or parts[0] != _VERSION:
            raise ValueError("not a sealed text")
        return Personal(subject=UUID(parts[1]), text=None, sealed=token)

    def opened(self, personal: Personal) -> Personal:
        """The text in the clear; without text where the key is destroyed or was never fetched.

        However long ago it was fetched: a key does not expire between `fetch` and this. Errors:
        `ValueError` where the token was changed.
        """
        token = personal.sealed
        if personal.text is not None or token is None:
            return personal
        _, key = self._keys.get(personal.subject, (0.0, None))
        if key is None:
            return personal
        _, subject, event, field, encoded = token.split(".")
        box = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
        bound = f"{subject}|{event}|{field}".encode()
        try:
            text = key.decrypt(box[:_NONCE], box[_NONCE:], bound).decode()
        except InvalidTag as error:
            raise ValueError("a sealed text does not fit its key or its place") from error
        return Personal(subject=personal.subject, text=text, sealed=token)

    def open_tokens(self, tokens: Iterable[str]) -> dict[str, str | None]:
        """Each token's text; none where it is erased. Asks the database once."""
        sealed = [self.unopened(token) for token in set(tokens)]
        self.fetch({personal.subject for personal in sealed})
        return {str(p.sealed): self.opened(p).text for p in sealed}

    def erased(self, subjects: Iterable[UUID]) -> set[UUID]:
        """Those of the persons whose keys are destroyed, as the database has it now."""
        return erased_among(self._pool, subjects)

    def shown_tokens(self, tokens: Iterable[str]) -> dict[str, str | None]:
        """Each token's text, `[erased]` where it is erased. Asks the database once."""
        opened = self.open_tokens(tokens)
        return {
            token: ERASED if text is None and self.destroyed(self.unopened(token).subject) else text
            for token, text in opened.items()
        }

    def destroyed(self, subject: UUID) -> bool:
        """Whether the subject's key is known to be destroyed: as it was when it was fetched."""
        return self._keys.get(subject, (0.0, self))[1] is None

    def forget(self, subject: UUID) -> None:
        """Ask the database again when the subject's key is needed next."""
        with self._lock:
            self._keys.pop(subject, None)

    def forget_all(self) -> None:
        """Ask the database again for every key."""
        with self._lock:
            self._keys.clear()

    def close(self) -> None:
        """Forget the keys and close the connections."""
        with self._lock:
            self._keys.clear()
        self._pool.close()

    def _in_force(self) -> MasterKey:
        """The master key that new keys are wrapped with: our own in a vault that has none yet."""
        with self._pool.connection() as connection, connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO master (fingerprint) VALUES (%s) ON CONFLICT (one) DO NOTHING",
                (self._own.fingerprint,),
            )
            cursor.execute("SELECT fingerprint FROM master")
            fingerprint = cursor.fetchall()[0][0]
        if fingerprint not in self._masters:
            self._look_for_others()
        try:
            return self._masters[fingerprint]
        except KeyError:
            raise WrongMasterKey("another master key is in force than those here") from None

    def _look_for_others(self) -> None:
        for key in self._others():
            master = MasterKey(key)
            self._masters.setdefault(master.fingerprint, master)

    def _unwrapped(self, subject: UUID, wrapped: Any, master: str | None) -> AESGCM | None:
        """`master`: the fingerprint of the key that wrapped it, where that was noted."""
        if wrapped is None:
            return None
        for again in (False, True):
            if again:
                self._look_for_others()
            named = self._masters.get(master or "")
            for each in [named] if named else list(self._masters.values()):
                key = each.unwrap(subject, bytes(wrapped))
                if key is not None:
                    return AESGCM(key)
        raise WrongMasterKey("the master key does not fit the keys in the vault")

    def _load(self, subjects: list[UUID]) -> int:
        """How many of them there are, destroyed ones included."""
        with self._pool.connection() as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT subject, wrapped, master FROM keys WHERE subject = ANY(%s)", (subjects,)
            )
            rows = cursor.fetchall()
        now = time.monotonic()
        with self._lock:
            for subject, wrapped, master in rows:
                self._keys[subject] = (now, self._unwrapped(subject, wrapped, master))
                self._keys.move_to_end(subject)
            while len(self._keys) > self._capacity:
                self._keys.popitem(last=False)
        return len(rows)

    def _cached(self, subject: UUID) -> tuple[AESGCM | None] | None:
        entry = self._keys.get(subject)
        if entry is None or time.monotonic() - entry[0] > self.remember:
            return None
        return (entry[1],)


def open_vault(pool: Pool, key_file: Path) -> Vault:
    """The vault behind the pool, by the master key in a file, which is made for an empty vault.

    Raises `WrongMasterKey`, naming the file and what to do, where it is not the key that the vault
    was begun with; none is made then. Also what the driver raises. The pool stays open.
    """
    if not key_file.exists() and holds_keys(pool):
        raise WrongMasterKey(
            f"{key_file} is not there, and the database holds keys of personal data that a master"
            f" key wrapped before. {_ADVICE}"
        )
    try:
        key = read_or_make_secret(key_file)
        vault = Vault(pool, key, others=lambda: beside(key_file))
        vault.check()
    except WrongMasterKey:
        raise WrongMasterKey(
            f"{key_file} is not the master key that the keys of personal data in the database were"
            f" wrapped with. {_ADVICE}"
        ) from None
    except ValueError as error:
        raise WrongMasterKey(f"{key_file}: {error}. {_ADVICE}") from None
    return vault


def erased_among(pool: Pool, subjects: Iterable[UUID]) -> set[UUID]:
    """Those of the persons whose keys are destroyed. Needs no master key."""
    with pool.connection() as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT subject FROM keys WHERE subject = ANY(%s) AND wrapped IS NULL",
            (list(subjects),),
        )
        return {subject for (subject,) in cursor.fetchall()}


def holds_keys(pool: Pool) -> bool:
    """Whether there is any key in the vault behind the pool that is not destroyed."""
    with pool.connection() as connection, connection.cursor() as cursor:
        cursor.execute(_OLDEST)
        return bool(cursor.fetchall())


_ADVICE = (
    "Copy the file of the processes that made them (or of its backup) there, or name it by"
    " CRM_MASTER_KEY_FILE"
)
