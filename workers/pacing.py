"""How much a worker takes on at once."""

from __future__ import annotations

FIRST = 128
MOST = 5_000
"""Records in memory at once: of ordinary size they take some 20 MB."""


class Pace:
    """How many records the next batch may hold, so that one takes at most `seconds`.

    A batch that took longer makes the next one smaller in proportion, down to one record: however
    slow a single event is, the position moves. Quick full batches make the next twice as large.
    """

    def __init__(self, seconds: float, first: int = FIRST, most: int = MOST) -> None:
        self.records = min(first, most)
        self._seconds = seconds
        self._most = most

    def took(self, records: int, seconds: float) -> None:
        """A batch of so many records was done, or given up, after so long."""
        if seconds > self._seconds:
            fitting = int(records * self._seconds / seconds)
            self.records = max(1, min(self.records, fitting))
        elif records >= self.records and seconds < self._seconds / 2:
            self.records = min(self._most, 2 * self.records)
