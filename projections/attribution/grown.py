"""What a customer's history adds to one by one, kept so that all its states share one memory.

A state is kept after each fact. Were each to hold a copy, they would grow with the square of the
facts: here a longer collection goes on in the list of the shorter one, which does not see the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import NamedTuple


class Touch(NamedTuple):
    at: datetime
    occurred_at: str
    position: int
    campaign_id: str


class Touches:
    """The latest touches, oldest first. Never changes."""

    __slots__ = ("_shared", "_start", "_stop")

    def __init__(self, shared: list[Touch] | None = None, start: int = 0, stop: int = 0) -> None:
        """Those of the list from `start` to before `stop`."""
        self._shared = [] if shared is None else shared
        self._start = start
        self._stop = stop

    def __len__(self) -> int:
        return self._stop - self._start

    def __iter__(self) -> Iterator[Touch]:
        return iter(self._shared[self._start : self._stop])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Touches):
            return NotImplemented
        return len(self) == len(other) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def plus(self, touch: Touch) -> Touches:
        """With a later one."""
        shared, start, stop = self._shared, self._start, self._stop
        if start == stop or stop != len(shared):  # empty, or somebody else went on from here
            shared = shared[start:stop]
            start, stop = 0, len(shared)
        shared.append(touch)
        return Touches(shared, start, stop + 1)

    def oldest_until(self, at: datetime) -> int:
        """How many are not later than `at`."""
        place = self._start
        while place < self._stop and self._shared[place].at <= at:
            place += 1
        return place - self._start

    def first(self, count: int) -> list[Touch]:
        return self._shared[self._start : self._start + count]

    def without_first(self, count: int) -> Touches:
        return Touches(self._shared, self._start + count, self._stop)


class Deals:
    """A set of deals. Never changes."""

    __slots__ = ("_count", "_shared")

    def __init__(self, shared: dict[str, int] | None = None, count: int = 0) -> None:
        """The first `count` deals of those that are numbered 0, 1, …, in this order."""
        self._shared = {} if shared is None else shared
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __contains__(self, deal: str) -> bool:
        number = self._shared.get(deal)
        return number is not None and number < self._count

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Deals):
            return NotImplemented
        if self._count != other._count:
            return False
        return self._shared is other._shared or set(self._all()) == set(other._all())

    __hash__ = None  # type: ignore[assignment]

    def plus(self, deal: str) -> Deals:
        """With one that is not among them."""
        shared = self._shared
        if not self._count or self._count != len(shared):
            shared = {known: number for number, known in enumerate(self._all())}
        shared[deal] = self._count
        return Deals(shared, self._count + 1)

    def _all(self) -> Iterator[str]:
        return islice(self._shared, self._count)
