"""Master keys: what wraps the keys of personal data, and the files they lie in.

There is one, but for the time in which another takes its place: then `<file>.new` lies beside it,
or `<file>.former`, and a process opens what any of them wrapped.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from infra.durable import settle

KEY = 32
NONCE = 12


class MasterKey:
    """Wraps keys of persons; a wrapped key is bound to its person."""

    __slots__ = ("_cipher", "fingerprint")

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY:
            raise ValueError("the master key must have 32 bytes")
        self._cipher = AESGCM(key)
        self.fingerprint = hashlib.sha256(b"crm-ledger master key\n" + key).hexdigest()[:16]
        """Names the key, and tells nothing about it."""

    def wrap(self, subject: UUID, key: bytes) -> bytes:
        """The person's key, encrypted."""
        nonce = os.urandom(NONCE)
        return nonce + self._cipher.encrypt(nonce, key, subject.bytes)

    def unwrap(self, subject: UUID, wrapped: bytes) -> bytes | None:
        """The person's key; none where another master key wrapped it, or for another person."""
        with contextlib.suppress(InvalidTag):
            return self._cipher.decrypt(wrapped[:NONCE], wrapped[NONCE:], subject.bytes)
        return None


def new_of(path: Path) -> Path:
    """Where the next master key lies until it is in force everywhere."""
    return path.with_name(f"{path.name}.new")


def former_of(path: Path) -> Path:
    """Where the last master key lies until nothing is wrapped with it."""
    return path.with_name(f"{path.name}.former")


def beside(path: Path) -> list[bytes]:
    """The master keys that lie beside the file, and in it: those that are there now."""
    found = []
    for each in (path, new_of(path), former_of(path)):
        with contextlib.suppress(FileNotFoundError):
            key = each.read_bytes()
            if len(key) == KEY:
                found.append(key)
    return found


def read_or_make_secret(path: Path, size: int = KEY) -> bytes:
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
        settle(path.parent)  # its name, too: what the secret encrypts must not outlive it
    secret = path.read_bytes()
    if len(secret) != size:
        raise ValueError(f"{path.name} must hold {size} bytes")
    return secret
