"""Sealed texts open where they belong, as long as the person's key is there."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import Refused, SubjectErased
from domain.values import Personal
from infra.master_keys import MasterKey
from infra.vault import (
    KeyNotCached,
    Vault,
    WrongMasterKey,
    open_vault,
    read_or_make_secret,
)
from tests.unit.infra.keys import MASTER_KEY, KeyTable, vault

NOBODY = UUID(int=7)
EVENT = f"{UUID(int=1)}:7"


@pytest.fixture
def table() -> KeyTable:
    return KeyTable()


@pytest.fixture
def subject(table: KeyTable) -> UUID:
    subject = uuid4()
    vault(table).prepare([subject])
    return subject


def sealed(table: KeyTable, subject: UUID, text: str = "Zaphod", field: str = "name") -> str:
    here = vault(table)
    here.prepare([subject])
    return here.seal(Personal(subject, text), event=EVENT, field=field)


def opened(table: KeyTable, token: str) -> str | None:
    return vault(table).open_tokens([token])[token]


@given(text=st.text(st.characters(codec="utf-8")))
def test_what_was_sealed_opens(text: str) -> None:
    table = KeyTable()
    token = sealed(table, uuid4(), text)
    assert opened(table, token) == text
    assert text not in token or len(text) < 4


def test_the_same_text_is_sealed_differently_each_time(table: KeyTable, subject: UUID) -> None:
    assert sealed(table, subject) != sealed(table, subject)


def test_keys_are_made_once(table: KeyTable, subject: UUID) -> None:
    token = sealed(table, subject)
    vault(table).prepare([subject])
    assert opened(table, token) == "Zaphod"


@pytest.mark.parametrize(("part", "other"), [(2, f"{NOBODY}:7"), (3, "email")])
def test_a_token_that_names_another_place_does_not_open(
    table: KeyTable, subject: UUID, part: int, other: str
) -> None:
    token = sealed(table, subject).split(".")
    token[part] = other
    with pytest.raises(ValueError, match="does not fit"):
        opened(table, ".".join(token))


def test_a_token_of_another_subject_does_not_open(table: KeyTable, subject: UUID) -> None:
    other = uuid4()
    vault(table).prepare([other])
    token = sealed(table, subject).replace(str(subject), str(other))
    with pytest.raises(ValueError, match="does not fit"):
        opened(table, token)


@pytest.mark.parametrize("position", [0, 11, 12, -1])
def test_a_changed_token_does_not_open(table: KeyTable, subject: UUID, position: int) -> None:
    head, _, box = sealed(table, subject).rpartition(".")
    changed = list(box)
    changed[position] = "A" if changed[position] != "A" else "Q"
    with pytest.raises(ValueError, match="does not fit"):
        opened(table, f"{head}.{''.join(changed)}")


@pytest.mark.parametrize("token", ["", "x", "1.2.3.4", "2.a.b.c.d", f"1.{NOBODY}.e.f", None, 7])
def test_what_is_no_token_is_refused(token: object) -> None:
    with pytest.raises(ValueError):
        Vault.unopened(token)


def test_a_token_is_for_its_place_only(table: KeyTable, subject: UUID) -> None:
    personal = Vault.unopened(sealed(table, subject))
    assert Vault.is_for(personal, event=EVENT, field="name")
    assert not Vault.is_for(personal, event=EVENT, field="nam")
    assert not Vault.is_for(personal, event=EVENT[:-1], field="name")
    assert not Vault.is_for(Personal(subject, "text"), event=EVENT, field="name")


def test_an_erased_person(table: KeyTable, subject: UUID) -> None:
    token = sealed(table, subject)
    table.wrapped[subject] = None
    assert opened(table, token) is None
    later = vault(table)
    later.prepare([subject])  # makes no new key
    assert table.wrapped[subject] is None
    with pytest.raises(SubjectErased) as refused:
        later.seal(Personal(subject, "Zaphod"), event=EVENT, field="name")
    assert isinstance(refused.value, Refused)
    assert "Zaphod" not in str(refused.value)
    with pytest.raises(ValueError, match="unopened"):
        later.seal(Vault.unopened(token), event=EVENT, field="name")


def test_a_person_nobody_has_a_key_for(table: KeyTable, subject: UUID) -> None:
    token = sealed(table, subject)
    del table.wrapped[subject]
    assert opened(table, token) is None


def test_the_wrong_master_key_says_so(table: KeyTable, subject: UUID) -> None:
    token = sealed(table, subject)
    other = vault(table, b"n" * 32)
    for attempt in (
        lambda: other.open_tokens([token]),
        lambda: other.fetch([subject]),
        lambda: other.prepare([subject]),
    ):
        with pytest.raises(WrongMasterKey, match="master key"):
            attempt()
    with pytest.raises(ValueError, match="32 bytes"):
        vault(table, b"short")


def test_a_vault_that_another_master_key_has_begun_is_not_opened(
    table: KeyTable, subject: UUID, tmp_path: Path
) -> None:
    sealed(table, subject)
    path = tmp_path / "master.key"
    with pytest.raises(WrongMasterKey, match=rf"{path} is not there.*CRM_MASTER_KEY_FILE"):
        open_vault(table, path)
    assert not path.exists()
    path.write_bytes(b"n" * 32)
    with pytest.raises(WrongMasterKey, match=rf"{path} is not the master key.*Copy"):
        open_vault(table, path)
    path.write_bytes(b"short")
    with pytest.raises(WrongMasterKey, match=rf"{path}.*32 bytes"):
        open_vault(table, path)
    path.write_bytes(MASTER_KEY)
    assert open_vault(table, path).misfits() == (0, 1)


def test_an_empty_vault_gets_a_new_master_key(
    table: KeyTable, subject: UUID, tmp_path: Path
) -> None:
    table.wrapped[subject] = None  # destroyed: it binds nobody
    assert open_vault(table, tmp_path / "master.key").misfits() == (0, 0)
    assert len((tmp_path / "master.key").read_bytes()) == 32


def test_keys_of_two_master_keys_are_not_mixed(table: KeyTable) -> None:
    other = vault(table, b"n" * 32)
    other.check()  # nobody's yet
    subject = uuid4()
    vault(table).prepare([subject])
    with pytest.raises(WrongMasterKey):
        other.prepare([uuid4()])
    assert list(table.wrapped) == [subject]


def test_the_oldest_key_tells_whose_vault_it_is(
    table: KeyTable, subject: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.vault._CHUNK", 2)
    here, other = vault(table), vault(table, b"n" * 32)
    here.prepare([subject])
    for _ in range(3):
        id_ = uuid4()
        table.wrapped[id_] = MasterKey(b"n" * 32).wrap(id_, b"k" * 32)
    vault(table).check()
    assert here.misfits() == (3, 4)
    assert other.misfits() == (1, 4)


def test_a_wrapped_key_of_another_subject_does_not_fit(table: KeyTable, subject: UUID) -> None:
    other = uuid4()
    table.wrapped[other] = table.wrapped[subject]
    with pytest.raises(WrongMasterKey):
        vault(table).fetch([other])


def test_keys_are_remembered_for_a_while(table: KeyTable, subject: UUID) -> None:
    here = vault(table)
    here.fetch([subject])
    here.fetch([subject])
    assert table.asked == 2  # one of them made the key
    forgetful = vault(table, remember=-1.0)
    forgetful.fetch([subject])
    forgetful.fetch([subject])
    assert table.asked == 4


def test_a_key_does_not_expire_between_fetching_and_opening(table: KeyTable, subject: UUID) -> None:
    """Else a text that is there would look erased."""
    token = sealed(table, subject)
    forgetful = vault(table, remember=-1.0)
    assert forgetful.open_tokens([token]) == {token: "Zaphod"}
    with pytest.raises(KeyNotCached):
        forgetful.seal(Personal(subject, "text"), event=EVENT, field="name")


def test_no_more_keys_are_remembered_than_there_is_room(table: KeyTable) -> None:
    here = vault(table, capacity=3)
    subjects = [uuid4() for _ in range(10)]
    for subject in subjects:
        here.prepare([subject])
    assert len(here._keys) == 3
    here.close()
    assert len(here._keys) == 0


def test_the_secret_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "new" / "master.key"
    secret = read_or_make_secret(path)
    assert len(secret) == 32
    assert read_or_make_secret(path) == secret
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(path.parent) == ["master.key"]
    path.write_bytes(b"short")
    with pytest.raises(ValueError, match=r"master\.key"):
        read_or_make_secret(path)


class TestAnotherMasterKey:
    NEW = b"n" * 32

    def test_keys_of_both_are_opened_and_new_ones_wrapped_with_the_one_in_force(
        self, table: KeyTable
    ) -> None:
        there: list[bytes] = [MASTER_KEY]
        here = vault(table, others=lambda: there)
        first, second = uuid4(), uuid4()
        here.prepare([first])
        new = MasterKey(self.NEW)
        there.append(self.NEW)
        table.in_force = new.fingerprint
        here.prepare([second])
        assert table.master[first] == MasterKey(MASTER_KEY).fingerprint
        assert table.master[second] == new.fingerprint
        token = here.seal(Personal(second, "Zaphod"), event=EVENT, field="name")
        later = vault(table, self.NEW, others=lambda: there)
        assert later.open_tokens([token]) == {token: "Zaphod"}

    def test_a_process_that_has_not_got_it_adds_no_key(
        self, table: KeyTable, subject: UUID
    ) -> None:
        here = vault(table)
        table.in_force = MasterKey(self.NEW).fingerprint
        with pytest.raises(WrongMasterKey, match="another master key is in force"):
            here.prepare([uuid4()])
        assert set(table.wrapped) == {subject}

    def test_a_key_without_a_name_is_tried_with_all(self, table: KeyTable, subject: UUID) -> None:
        token = sealed(table, subject)
        table.master[subject] = None
        later = vault(table, self.NEW, others=lambda: [self.NEW, MASTER_KEY])
        assert later.open_tokens([token]) == {token: "Zaphod"}


def test_what_is_erased_is_shown_so(table: KeyTable, subject: UUID) -> None:
    token, other = sealed(table, subject), sealed(table, uuid4())
    nobody = token.replace(str(subject), str(NOBODY))
    table.wrapped[subject] = None
    assert vault(table).shown_tokens([token, other, nobody]) == {
        token: "[erased]",
        other: "Zaphod",
        nobody: None,
    }


def test_a_key_that_is_forgotten_is_asked_for_again(table: KeyTable, subject: UUID) -> None:
    token, here = sealed(table, subject), vault(table)
    assert here.shown_tokens([token]) == {token: "Zaphod"}
    table.wrapped[subject] = None
    assert here.shown_tokens([token]) == {token: "Zaphod"}
    here.forget(subject)
    assert here.shown_tokens([token]) == {token: "[erased]"}
