"""Which keys a verifier trusts, and for checkpoints of which sizes.

Keys are handed over by a checkpoint that both sign, the old one first. Who trusts one of them
trusts the other for its part: the new one from that size on, the old one up to there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from infra.proof.notes import Note, NotTrusted, VerifyingKey


@dataclass(slots=True)
class _Term:
    """The sizes that a key may sign."""

    first: int = 0
    last: int | None = None

    def covers(self, size: int) -> bool:
        return self.first <= size and (self.last is None or size <= self.last)


class Keyring:
    """The keys that were given, and those that they lead to by way of handovers."""

    def __init__(self, given: Iterable[VerifyingKey]) -> None:
        self._terms = {key: _Term() for key in given}

    @property
    def keys(self) -> list[VerifyingKey]:
        """All that are trusted for some size."""
        return list(self._terms)

    def learn(self, notes: Sequence[Note], known: Iterable[VerifyingKey]) -> None:
        """Takes in the handovers among the notes. `known`: the keys there are said to be."""
        named = {(key.name, key.id): key for key in (*known, *self._terms)}
        waiting = [note for note in notes if len(note.signatures) > 1]
        waiting.sort(key=lambda note: note.checkpoint.size)
        learnt = True
        while learnt:
            learnt = False
            for note in waiting:
                pair = [named.get((line.name, line.id)) for line in note.signatures[:2]]
                if pair[0] is not None and pair[1] is not None:
                    learnt = self._hand_over(note, pair[0], pair[1]) or learnt

    def _hand_over(self, note: Note, old: VerifyingKey, new: VerifyingKey) -> bool:
        """Whether this told of a key."""
        size = note.checkpoint.size
        trusted = [key for key in (old, new) if key in self._terms]
        try:
            if len(note.signed_by((old, new))) < 2 or old == new:
                return False
        except NotTrusted:
            return False
        if not any(self._terms[key].covers(size) for key in trusted):
            return False
        if old in self._terms:
            self._terms[old].last = size if self._terms[old].last is None else self._terms[old].last
        else:
            self._terms[old] = _Term(0, size)
        if new not in self._terms:
            self._terms[new] = _Term(size)
        return len(trusted) < 2

    def check(self, note: Note) -> None:
        """Raises `NotTrusted` unless a key has signed it that may sign for this size."""
        size = note.checkpoint.size
        note.signed_by([key for key, term in self._terms.items() if term.covers(size)])
