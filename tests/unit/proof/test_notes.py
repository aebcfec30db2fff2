"""Signed notes: by the example that golang.org/x/mod publishes, and by what can be wrong."""

from __future__ import annotations

import base64

import pytest

from infra.proof.keyring import Keyring
from infra.proof.notes import (
    MOST_BYTES,
    Checkpoint,
    NotANote,
    NotTrusted,
    SigningKey,
    VerifyingKey,
    parse,
    sign,
)

EXAMPLE_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
EXAMPLE_TEXT = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
)
EXAMPLE_LINE = (
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngot"
    "Rpt6KE6zyyBwJnAM="
)

OLD = SigningKey("crm-ledger/log", b"o" * 32)
NEW = SigningKey("crm-ledger/log", b"n" * 32)
CHECKPOINT = Checkpoint("crm-ledger/log", 7, b"r" * 32)


def test_the_published_key_has_the_published_id() -> None:
    key = VerifyingKey.parse(EXAMPLE_KEY)
    assert (key.name, key.id.hex(), str(key)) == ("PeterNeumann", "c74f20a3", EXAMPLE_KEY)


def test_the_text_is_that_of_a_checkpoint() -> None:
    root = base64.b64encode(b"r" * 32).decode()
    note = sign(CHECKPOINT, [OLD])
    assert note.startswith(f"crm-ledger/log\n7\n{root}\n\n— crm-ledger/log ")
    assert note.count("\n") == 5
    read = parse(note)
    assert read.checkpoint == CHECKPOINT
    assert read.signatures[0].id == OLD.verifying.id
    assert read.signed_by([OLD.verifying]) == [OLD.verifying]
    assert parse(note.encode()) == read


def test_signatures_by_others_are_ignored() -> None:
    note = parse(sign(CHECKPOINT, [OLD, NEW]))
    assert note.signed_by([NEW.verifying]) == [NEW.verifying]
    assert note.signed_by([NEW.verifying, OLD.verifying]) == [OLD.verifying, NEW.verifying]
    with pytest.raises(NotTrusted, match="no key"):
        note.signed_by([SigningKey("crm-ledger/log", b"x" * 32).verifying])
    with pytest.raises(NotTrusted, match="no key"):
        note.signed_by([SigningKey("crm-ledger/other", b"o" * 32).verifying])


@pytest.mark.parametrize(("old", "new"), [("\n7\n", "\n8\n"), ("crm-ledger/log\n7", "x\n7")])
def test_a_changed_text_has_no_signature(old: str, new: str) -> None:
    note = parse(sign(CHECKPOINT, [OLD]).replace(old, new, 1))
    with pytest.raises(NotTrusted, match="wrong"):
        note.signed_by([OLD.verifying])


def test_one_wrong_signature_by_a_known_key_spoils_the_note() -> None:
    good, other = sign(CHECKPOINT, [OLD, NEW]), sign(Checkpoint("x", 1, b"r" * 32), [NEW])
    forged = good.replace(good.splitlines()[-1], other.splitlines()[-1].replace(" x ", " x "))
    with pytest.raises(NotTrusted, match="wrong"):
        parse(forged).signed_by([OLD.verifying, NEW.verifying])
    assert parse(forged).signed_by([OLD.verifying])


GOOD = sign(CHECKPOINT, [OLD])
ROOT = base64.b64encode(b"r" * 32).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        GOOD.rstrip("\n"),
        GOOD.replace("\n\n", "\n"),
        GOOD.replace("\n7\n", "\n07\n"),
        GOOD.replace("\n7\n", "\n-7\n"),
        GOOD.replace("\n7\n", "\n\u0667\n"),
        GOOD.replace("\n7\n", "\n" + "9" * 20 + "\n"),
        GOOD.replace("\n7\n", "\n7\nmore\n"),
        GOOD.replace(ROOT, ROOT[:-4]),
        GOOD.replace(ROOT, "*" + ROOT[1:]),
        GOOD.replace("— ", "- "),
        GOOD.replace("— ", "—"),
        GOOD.replace("— crm-ledger/log ", "— crm+ledger "),
        GOOD + "x",
        GOOD + "\x07\n",
        GOOD + GOOD.splitlines()[-1] + "\n" * 2,
        GOOD + (GOOD.splitlines()[-1] + "\n") * 100,
        "x" * MOST_BYTES + "\n" + GOOD,
    ],
)
def test_what_is_no_checkpoint_is_not_read(text: str) -> None:
    with pytest.raises(NotANote):
        parse(text)


def test_what_is_not_utf8_is_not_read() -> None:
    with pytest.raises(NotANote):
        parse(GOOD.encode() + b"\xff\n")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name",
        "name+00000000",
        EXAMPLE_KEY.replace("c74f20a3", "c74f20a4"),
        EXAMPLE_KEY.replace("PeterNeumann", "Peter Neumann"),
        EXAMPLE_KEY.replace("PeterNeumann", ""),
        EXAMPLE_KEY[:-4],
        EXAMPLE_KEY.replace("+AR", "+Ah"),
    ],
)
def test_what_is_no_key_is_not_read(text: str) -> None:
    with pytest.raises(ValueError):
        VerifyingKey.parse(text)


def test_a_private_key_is_not_shown() -> None:
    assert "o" * 32 not in repr(OLD)
    assert repr(b"o" * 32) not in repr(OLD)


def at(size: int, *keys: SigningKey) -> str:
    return sign(Checkpoint("crm-ledger/log", size, b"r" * 32), keys)


NOTES = (parse(at(3, OLD)), parse(at(5, OLD, NEW)), parse(at(9, NEW)))


class TestHandover:
    """Keys lead to each other by checkpoints that both sign."""

    @pytest.mark.parametrize("trusted", [OLD, NEW])
    def test_who_trusts_one_trusts_the_other_for_its_part(self, trusted: SigningKey) -> None:
        ring = Keyring([trusted.verifying])
        ring.learn(NOTES, [OLD.verifying, NEW.verifying])
        for note in NOTES:
            ring.check(note)
        for stray in (at(6, OLD), at(4, NEW) if trusted is OLD else at(7, OLD)):
            with pytest.raises(NotTrusted):
                ring.check(parse(stray))

    def test_without_a_handover_nobody_is_introduced(self) -> None:
        ring = Keyring([OLD.verifying])
        ring.learn([NOTES[0], NOTES[2]], [OLD.verifying, NEW.verifying])
        with pytest.raises(NotTrusted):
            ring.check(NOTES[2])

    def test_a_stranger_introduces_nobody(self) -> None:
        stranger = SigningKey("crm-ledger/log", b"x" * 32)
        ring = Keyring([OLD.verifying])
        ring.learn([parse(at(5, stranger, NEW))], [stranger.verifying, NEW.verifying])
        assert ring.keys == [OLD.verifying]

    def test_a_key_that_was_handed_over_introduces_nobody_later(self) -> None:
        late = SigningKey("crm-ledger/log", b"l" * 32)
        ring = Keyring([NEW.verifying])
        notes = [*NOTES, parse(at(8, OLD, late))]
        ring.learn(notes, [OLD.verifying, NEW.verifying, late.verifying])
        assert late.verifying not in ring.keys

    def test_a_chain_is_followed(self) -> None:
        third = SigningKey("crm-ledger/log", b"t" * 32)
        ring = Keyring([OLD.verifying])
        ring.learn(
            [parse(at(9, NEW, third)), *NOTES],
            [third.verifying, NEW.verifying, OLD.verifying],
        )
        ring.check(parse(at(20, third)))
