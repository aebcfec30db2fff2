"""Checkpoints: a tree's size and root as a signed note (C2SP signed-note and tlog-checkpoint).

A key is named to verifiers by its vkey, ``name+hash+base64(0x01 ‖ public key)``. The text that is
signed has three lines: the origin, which is the key's name, the size, and the root in base64.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from infra.proof.tree import HASH

MOST_BYTES = 65_536
"""Of a note; a longer one is not read."""

_MOST_SIGNATURES = 64
_ED25519 = b"\x01"
_ID = 4
_LINE = re.compile(r"— (\S+) (\S+)")


class NotANote(ValueError):
    """The text is not a signed note, or not one of a checkpoint."""


class NotTrusted(ValueError):
    """No key that is trusted has signed the note, or a signature by one is wrong."""


def origin_of(log_id: UUID) -> str:
    """The name that a log's checkpoints and keys bear."""
    return f"crm-ledger/{log_id}"


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A public key under a name."""

    name: str
    public: bytes

    @property
    def id(self) -> bytes:
        """Four bytes that signature lines name it by."""
        named = self.name.encode() + b"\n" + _ED25519 + self.public
        return hashlib.sha256(named).digest()[:_ID]

    def __str__(self) -> str:
        encoded = base64.b64encode(_ED25519 + self.public).decode()
        return f"{self.name}+{self.id.hex()}+{encoded}"

    @classmethod
    def parse(cls, text: str) -> VerifyingKey:
        """The key behind a vkey. Errors: `ValueError`."""
        # base64 may hold a plus, a name may not
        name, _, rest = text.strip().partition("+")
        id_, _, encoded = rest.partition("+")
        box = _decoded(encoded)
        if not _is_name(name) or box[:1] != _ED25519 or len(box) != 33:
            raise ValueError("not a vkey of an Ed25519 key, as name+hash+key")
        key = cls(name, box[1:])
        if id_ != key.id.hex():
            raise ValueError("the vkey's hash is not that of its name and key")
        return key

    def verifies(self, signature: bytes, text: bytes) -> bool:
        """Whether it is this key's signature of the text."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, text)
        except (InvalidSignature, ValueError):
            return False
        return True


@dataclass(frozen=True, slots=True, repr=False)
class SigningKey:
    """A private key (a seed of 32 bytes) under a name."""

    name: str
    seed: bytes

    @property
    def verifying(self) -> VerifyingKey:
        """Its public part."""
        public = Ed25519PrivateKey.from_private_bytes(self.seed).public_key()
        return VerifyingKey(self.name, public.public_bytes_raw())

    def sign(self, text: bytes) -> bytes:
        """The signature of a text."""
        return Ed25519PrivateKey.from_private_bytes(self.seed).sign(text)


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature line: by the key of that name and id."""

    name: str
    id: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What is claimed about a log: its first `size` leaves have this root."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """The lines that are signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A checkpoint and its signatures, none of which is verified yet."""

    checkpoint: Checkpoint
    text: str
    signatures: tuple[Signature, ...]

    def signed_by(self, keys: Iterable[VerifyingKey]) -> list[VerifyingKey]:
        """Those of the keys that have signed it, in the order of the lines.

        Raises `NotTrusted` if none has, or if a line names one of them and its signature is wrong.
        """
        known = {(key.name, key.id): key for key in keys}
        found = []
        for line in self.signatures:
            key = known.get((line.name, line.id))
            if key is None:
                continue
            if not key.verifies(line.signature, self.text.encode()):
                raise NotTrusted(f"the signature by {key.name}+{key.id.hex()} is wrong")
            found.append(key)
        if not found:
            raise NotTrusted("it is signed by no key that is trusted")
        return found


def sign(checkpoint: Checkpoint, keys: Sequence[SigningKey]) -> str:
    """The signed note, with a line for each key."""
    text = checkpoint.text()
    lines = []
    for key in keys:
        box = key.verifying.id + key.sign(text.encode())
        lines.append(f"— {key.name} {base64.b64encode(box).decode()}\n")
    return f"{text}\n{''.join(lines)}"


def parse(note: str | bytes) -> Note:
    """A note as it was published. Raises `NotANote`."""
    if len(note) > MOST_BYTES:
        raise NotANote("it is longer than any note of a checkpoint")
    if isinstance(note, bytes):
        try:
            note = note.decode()
        except UnicodeDecodeError:
            raise NotANote("it is not in UTF-8") from None
    if any(ord(one) < 32 and one != "\n" for one in note):
        raise NotANote("it holds control characters")
    body, blank, signatures = note.rpartition("\n\n")
    if not blank or not signatures.endswith("\n"):
        raise NotANote("it has no blank line before its signatures, or its last line is not ended")
    text = body + "\n"
    return Note(_checkpoint(text), text, tuple(map(_signature, _lines(signatures))))


def checkpoint_in(note: str) -> Checkpoint:
    """What a note says, whoever signed it. Raises `NotANote`."""
    body, _, _ = note.partition("\n\n")
    return _checkpoint(body + "\n")


def _lines(signatures: str) -> list[str]:
    lines = signatures[:-1].split("\n")
    if len(lines) > _MOST_SIGNATURES:
        raise NotANote("it has too many signatures")
    return lines


def _signature(line: str) -> Signature:
    match = _LINE.fullmatch(line)
    box = _decoded(match[2]) if match else b""
    if match is None or not _is_name(match[1]) or len(box) <= _ID:
        raise NotANote("a signature line is not: em dash, key name, base64")
    return Signature(match[1], box[:_ID], box[_ID:])


def _checkpoint(text: str) -> Checkpoint:
    lines = text[:-1].split("\n")
    if len(lines) != 3 or not lines[0]:
        raise NotANote("its text is not three lines: origin, size and root")
    if not re.fullmatch(r"0|[1-9][0-9]{0,18}", lines[1], re.ASCII):
        raise NotANote("its second line is no tree size")
    root = _decoded(lines[2])
    if len(root) != HASH:
        raise NotANote("its third line is no root hash in base64")
    return Checkpoint(lines[0], int(lines[1]), root)


def _is_name(name: str) -> bool:
    return bool(name) and "+" not in name and not any(one.isspace() for one in name)


def _decoded(text: str) -> bytes:
    """The bytes; none for what is not base64, or not as an encoder writes it."""
    try:
        box = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        return b""
    return box if base64.b64encode(box).decode() == text else b""
