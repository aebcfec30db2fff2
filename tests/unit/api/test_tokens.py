"""Tokens: who holds one is known, and nobody else can make one."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest

from api.tokens import ALGORITHM, ISSUER, InvalidToken, Scope, Tokens, write_admin_token

KEY = b"k" * 64
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def forged(key: Any = KEY, algorithm: str | None = ALGORITHM, **claims: Any) -> str:
    stated = {"iss": ISSUER, "sub": "rep-1", "scope": "read", "iat": 0, **claims}
    return jwt.encode(
        {name: value for name, value in stated.items() if value is not None},
        key,
        algorithm=algorithm,
    )


def test_a_token_says_who_and_what() -> None:
    tokens = Tokens(KEY, lambda: NOW)
    principal = tokens.verify(tokens.issue("rep-1", frozenset({Scope.READ, Scope.COMMAND})))
    assert principal.subject == "rep-1"
    assert principal.scopes == {Scope.READ, Scope.COMMAND}


def test_admin_implies_all() -> None:
    tokens = Tokens(KEY, lambda: NOW)
    assert tokens.verify(tokens.issue("boss", frozenset({Scope.ADMIN}))).scopes == frozenset(Scope)


def test_a_token_expires_also_when_it_is_remembered() -> None:
    now = NOW
    tokens = Tokens(KEY, lambda: now)
    token = tokens.issue("rep-1", frozenset({Scope.READ}), timedelta(hours=1))
    tokens.verify(token)
    now = NOW + timedelta(hours=1)
    with pytest.raises(InvalidToken):
        tokens.verify(token)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "a.b.c",
        "x" * 10_000,
        forged(key=b"other" * 16),
        forged(algorithm="HS512"),
        forged(algorithm=None, key=None),
        forged(iss="somebody else"),
        forged(iss=None),
        forged(sub=None),
        forged(sub=""),
        forged(sub="a\nb"),
        forged(sub="x" * 300),
        forged(iat=None),
        forged(scope="everything"),
        forged(scope=7),
        forged(exp="soon"),
        forged(exp=1),
    ],
)
def test_what_is_not_ours_is_refused(token: str) -> None:
    with pytest.raises(InvalidToken) as refusal:
        Tokens(KEY, lambda: NOW).verify(token)
    assert str(refusal.value) == ""


@pytest.mark.parametrize("subject", ["", "a\x00b", "x" * 201])
def test_a_subject_is_fit_to_be_an_actor(subject: str) -> None:
    with pytest.raises(ValueError, match="subject"):
        Tokens(KEY, lambda: NOW).issue(subject, frozenset())


def test_the_key_and_the_admin_token_are_their_owners_alone(tmp_path: Path) -> None:
    tokens = Tokens.of_file(tmp_path / "signing.key", lambda: NOW)
    file = tmp_path / "token"
    assert write_admin_token(file, tokens)
    for path in (file, tmp_path / "signing.key"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = Tokens.of_file(tmp_path / "signing.key", lambda: NOW)
    assert Scope.ADMIN in again.verify(file.read_text().strip()).scopes


def test_the_admin_token_is_written_once_and_again_when_it_is_worth_nothing(
    tmp_path: Path,
) -> None:
    file = tmp_path / "token"
    tokens = Tokens(KEY, lambda: NOW)
    write_admin_token(file, tokens)
    first = file.read_text()
    assert not write_admin_token(file, tokens)
    assert file.read_text() == first
    assert write_admin_token(file, Tokens(b"n" * 32, lambda: NOW))
    assert file.read_text() != first


def test_many_tokens_do_not_fill_the_memory() -> None:
    tokens = Tokens(KEY, lambda: NOW)
    for number in range(3_000):
        tokens.verify(tokens.issue(f"rep-{number}", frozenset()))
    assert len(tokens._verified) <= 1024
