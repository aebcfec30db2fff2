"""Bearer tokens: JSON Web Tokens signed with HS256 by a key of this installation.

The key lies in a file that only its owner can read. Every process of an installation must use the
same key, for tokens as well as for the keyed hashes of requests kept in receipts.
"""

import hashlib
import hmac
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path

import jwt

from infra.vault import read_or_make_secret

ALGORITHM = "HS256"
ISSUER = "crm-ledger"
KEY_BYTES = 32
CACHED_TOKENS = 1024
MAX_TOKEN_LENGTH = 4096
MAX_SUBJECT_LENGTH = 200


class Scope(StrEnum):
    """What a token allows. `ADMIN` implies every other."""

    COMMAND = "command"
    APPROVE = "approve"
    READ = "read"
    PERSONAL = "personal"
    AUDIT = "audit"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who sends a request: `subject` becomes the actor of the events; scopes are spelled out."""

    subject: str
    scopes: frozenset[Scope]

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes


class InvalidToken(Exception):
    """The token is malformed, forged, expired or not of this installation. Says no more."""


class Tokens:
    """Issues and verifies tokens. Verified tokens are remembered until they expire."""

    def __init__(self, key: bytes, clock: Callable[[], datetime]) -> None:
        if len(key) < KEY_BYTES:
            raise ValueError("the signing key of tokens is too short")
        self._key = key
        self._clock = clock
        self._verified: dict[str, tuple[Principal, float]] = {}

    @classmethod
    def of_file(cls, path: Path, clock: Callable[[], datetime]) -> "Tokens":
        """With the key in `path`, which is made (mode 0600) where it does not exist yet."""
        return cls(read_or_make_secret(path, KEY_BYTES), clock)

    def derived_key(self, purpose: str) -> bytes:
        """A key of its own for another purpose, the same in every process."""
        return hmac.new(self._key, purpose.encode(), hashlib.sha256).digest()

    def issue(
        self, subject: str, scopes: frozenset[Scope], lifetime: timedelta | None = None
    ) -> str:
        """A token for `subject`; without `lifetime` it never expires. Raises ValueError."""
        if not subject or len(subject) > MAX_SUBJECT_LENGTH or not subject.isprintable():
            raise ValueError("the subject of a token is 1 to 200 printable characters")
        now = self._clock()
        claims: dict[str, object] = {
            "iss": ISSUER,
            "sub": subject,
            "scope": " ".join(sorted(scopes)),
            "iat": int(now.timestamp()),
        }
        if lifetime is not None:
            claims["exp"] = int((now + lifetime).timestamp())
        return jwt.encode(claims, self._key, algorithm=ALGORITHM)

    def verify(self, token: str) -> Principal:
        """Whose token it is. Raises InvalidToken."""
        known = self._verified.get(token)
        if known is None:
            known = self._decode(token)
            if len(self._verified) >= CACHED_TOKENS:
                self._verified.clear()
            self._verified[token] = known
        principal, expires = known
        if expires <= self._clock().timestamp():
            self._verified.pop(token, None)
            raise InvalidToken
        return principal

    def _decode(self, token: str) -> tuple[Principal, float]:
        if len(token) > MAX_TOKEN_LENGTH:
            raise InvalidToken
        try:
            claims = jwt.decode(
                token,
                self._key,
                algorithms=[ALGORITHM],
                issuer=ISSUER,
                options={
                    "require": ["sub", "iss", "iat"],
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_aud": False,
                },
            )
            subject, scope = claims["sub"], claims.get("scope", "")
            expires = float(claims.get("exp", "inf"))
            scopes = frozenset(Scope(name) for name in scope.split())
        except (jwt.PyJWTError, ValueError, TypeError, AttributeError, OverflowError) as error:
            raise InvalidToken from error
        if not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT_LENGTH:
            raise InvalidToken
        if not subject.isprintable():
            raise InvalidToken
        if Scope.ADMIN in scopes:
            scopes = frozenset(Scope)
        return Principal(subject, scopes), expires


def write_admin_token(path: Path, tokens: Tokens) -> bool:
    """Writes a token with every scope to `path` (mode 0600), unless a valid one lies there.

    Returns whether it wrote one. The token does not expire; removing the file makes a new one at
    the next start, only a new signing key makes the old ones invalid.
    """
    with suppress(FileNotFoundError):
        try:
            tokens.verify(path.read_text(encoding="ascii").strip())
        except (InvalidToken, UnicodeDecodeError):
            path.unlink()
        else:
            return False
    return _write_once(path, tokens.issue("admin", frozenset({Scope.ADMIN})))


def _write_once(path: Path, text: str) -> bool:
    """Whole or not at all, and never over a file that another process has just written."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        draft.unlink(missing_ok=True)
    return True
