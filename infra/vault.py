"""Keys of personal data: one per natural person, wrapped by a master key; erasing destroys one.

Personal text is sealed with AES-256-GCM; the associated data `subject|event|field` binds a
sealed text to the place it was written for. A sealed text is a token that names that place:
`1.<subject>.<event>.<field>.<base64url of nonce and ciphertext>`.
"""

from __future__ import annotations

import base64
import contextlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from domain.errors import SubjectErased
from domain.values import Personal
from infra.postgres import Pool

_NONCE = 12
_KEY = 32
_VERSION = "1"
_CHUNK = 10_000
_OLDEST = """SELECT subject, wrapped FROM keys WHERE wrapped IS NOT NULL
    ORDER BY created_at, subject LIMIT 1"""


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
    remembered for `remember` seconds at most, so that an erasure elsewhere takes effect soon.
    The pool's search path leads to the table of keys.
    """

    def __init__(
        self, pool: Pool, master_key: bytes, *, remember: float = 60.0, capacity: int = 50_000
    ) -> None:
        if len(master_key) != _KEY:
            raise ValueError("the master key must have 32 bytes")
        self._pool = pool
        self._master = AESGCM(master_key)
        self._remember = remember
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
        for subject, wrapped in rows:
            self._unwrapped(subject, wrapped)
            self._fits = True

    def misfits(self) -> tuple[int, int]:
        """How many keys of the vault this master key does not open, and how many there are. Reads
        all of them."""
        wrong = keys = 0
        after = UUID(int=0)
        while True:
            with self._pool.connection() as connection, connection.cursor() as cursor:
                cursor.execute(
                    "SELECT subject, wrapped FROM keys WHERE subject > %s"
                    " ORDER BY subject LIMIT %s",
                    (after, _CHUNK),
                )
                rows = cursor.fetchall()
            for subject, wrapped in rows:
                keys += wrapped is not None
                try:
                    self._unwrapped(subject, wrapped)
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
        rows = []
        for subject in wanted:
            key = os.urandom(_KEY)
            rows.append((subject, self._wrap(subject, key)))
        with self._pool.connection() as connection, connection.cursor() as cursor:
            for row in rows:
                cursor.execute(
                    "INSERT INTO keys (subject, wrapped) VALUES (%s, %s)"
                    " ON CONFLICT (subject) DO NOTHING",
                    row,
                )
        self._load(wanted)

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

    def close(self) -> None:
        """Forget the keys and close the connections."""
        with self._lock:
            self._keys.clear()
        self._pool.close()

    def _wrap(self, subject: UUID, key: bytes) -> bytes:
        nonce = os.urandom(_NONCE)
        return nonce + self._master.encrypt(nonce, key, subject.bytes)

    def _unwrapped(self, subject: UUID, wrapped: Any) -> AESGCM | None:
        if wrapped is None:
            return None
        box = bytes(wrapped)
        try:
            return AESGCM(self._master.decrypt(box[:_NONCE], box[_NONCE:], subject.bytes))
        except InvalidTag:
            raise WrongMasterKey("the master key does not fit the keys in the vault") from None

    def _load(self, subjects: list[UUID]) -> None:
        with self._pool.connection() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT subject, wrapped FROM keys WHERE subject = ANY(%s)", (subjects,))
            rows = cursor.fetchall()
        now = time.monotonic()
        with self._lock:
            for subject, wrapped in rows:
                self._keys[subject] = (now, self._unwrapped(subject, wrapped))
                self._keys.move_to_end(subject)
            while len(self._keys) > self._capacity:
                self._keys.popitem(last=False)

    def _cached(self, subject: UUID) -> tuple[AESGCM | None] | None:
        entry = self._keys.get(subject)
        if entry is None or time.monotonic() - entry[0] > self._remember:
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
        vault = Vault(pool, read_or_make_secret(key_file))
        vault.check()
    except WrongMasterKey:
        raise WrongMasterKey(
            f"{key_file} is not the master key that the keys of personal data in the database were"
            f" wrapped with. {_ADVICE}"
        ) from None
    except ValueError as error:
        raise WrongMasterKey(f"{key_file}: {error}. {_ADVICE}") from None
    return vault


def holds_keys(pool: Pool) -> bool:
    """Whether there is any key in the vault behind the pool that is not destroyed."""
    with pool.connection() as connection, connection.cursor() as cursor:
        cursor.execute(_OLDEST)
        return bool(cursor.fetchall())


_ADVICE = (
    "Copy the file of the processes that made them (or of its backup) there, or name it by"
    " CRM_MASTER_KEY_FILE"
)


def read_or_make_secret(path: Path, size: int = _KEY) -> bytes:
    """The secret in a file that only its owner can read, made at the first call.

    Errors: `ValueError` if the file has another length.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        # Linked into place whole: a crash never leaves half a secret behind.
        draft = path.with_name(f"{path.name}.{os.getpid()}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(os.urandom(size))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
        draft.unlink()
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)  # its name, too: what the secret encrypts must not outlive it
        os.close(folder)
    secret = path.read_bytes()
    if len(secret) != size:
        raise ValueError(f"{path.name} must hold {size} bytes")
    return secret
