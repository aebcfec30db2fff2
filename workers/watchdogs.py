"""What a worker that reads from a broker keeps an eye on: partitions that do not move.

Pure: the time is given, in seconds of any clock that only goes forward.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from workers.sieve import Hole


@dataclass(slots=True)
class _Waiting:
    hole: Hole
    since: float
    alarmed: bool = False


class HoleWatch:
    """Gives a hole time to be filled by itself, then tells of it, once for each position."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._waiting: dict[int, _Waiting] = {}

    def look(self, holes: Mapping[int, Hole], now: float) -> tuple[dict[int, Hole], list[int]]:
        """The holes, by partition, that have stood open for too long just now, and the partitions
        of which that was told and whose hole is filled."""
        filled = []
        for partition in [p for p in self._waiting if p not in holes]:
            if self._waiting.pop(partition).alarmed:
                filled.append(partition)
        overdue = {}
        for partition, hole in holes.items():
            waiting = self._waiting.get(partition)
            if waiting is None or waiting.hole.position != hole.position:
                moved = waiting is not None and waiting.alarmed
                self._waiting[partition] = _Waiting(hole, now)
                if moved:
                    filled.append(partition)  # as far as this one goes: its position has moved
            elif not waiting.alarmed and now - waiting.since >= self._patience:
                waiting.alarmed = True
                overdue[partition] = hole
        return overdue, filled


class StallWatch:
    """Notices partitions that are not read although there is something to read."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._moved: dict[int, tuple[int | None, float]] = {}

    def look(self, offsets: Mapping[int, tuple[int | None, int]], now: float) -> set[int]:
        """Those that have stood still for too long. `offsets`, by partition: the next to be read,
        None if that is not known, and the topic's end."""
        self._moved = {p: moved for p, moved in self._moved.items() if p in offsets}
        stalled = set()
        for partition, (following, end) in offsets.items():
            before = self._moved.get(partition)
            behind = end > 0 if following is None else following < end
            if before is None or before[0] != following or not behind:
                self._moved[partition] = (following, now)
            elif now - before[1] >= self._patience:
                stalled.add(partition)
        return stalled

    def forget(self) -> None:
        """What has happened so far tells nothing: begin anew."""
        self._moved.clear()
