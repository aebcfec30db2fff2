"""What an auditor sees of personal text: a mark in its place, or the text itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Protocol
from uuid import UUID

from domain.values import Personal
from infra.vault import Vault

HIDDEN: Final = "[personal]"
ERASED: Final = "[erased]"
"""The key is destroyed: nobody reads the text ever again."""
NO_KEY: Final = "[no key]"
"""The vault has never had the key, or lost it: no erasure is on record."""


class OnHandout(Protocol):
    """Told before personal text in the clear leaves: who gets it, and from which positions on to
    which it may be. What it raises keeps the text from leaving."""

    def __call__(self, *, kind: str, actor: str, first: int, last: int) -> None: ...


class Texts(Protocol):
    """`prepare` may block; `shown` doesn't, and never fails for a text whose key is gone. `clear`:
    whether any text has been shown in the clear."""

    clear: bool

    def prepare(self, subjects: Iterable[UUID]) -> None:
        """Before texts about these persons are shown."""

    def shown(self, personal: Personal) -> str: ...


class Marked:
    """No text: `[personal]`, or `[erased]`. `erased` gives those of some persons whose keys are
    destroyed."""

    def __init__(self, erased: Callable[[list[UUID]], set[UUID]]) -> None:
        self._ask = erased
        self._erased: set[UUID] = set()
        self.clear = False

    def prepare(self, subjects: Iterable[UUID]) -> None:
        asked = list(subjects)
        self._erased = self._ask(asked) if asked else set()

    def shown(self, personal: Personal) -> str:
        return ERASED if personal.subject in self._erased else HIDDEN


class Opened:
    """The text in the clear where its key is there. `shown` raises `ValueError` for one that was
    changed."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._erased: set[UUID] = set()
        self.clear = False

    def prepare(self, subjects: Iterable[UUID]) -> None:
        asked = list(subjects)
        if asked:
            self._erased = self._vault.erased(asked)
            self._vault.fetch(asked)

    def shown(self, personal: Personal) -> str:
        if personal.subject in self._erased:
            return ERASED
        text = self._vault.opened(personal).text
        if text is None:
            return NO_KEY
        self.clear = True
        return text
