"""Keeps the summaries of read models up, beside the projectors."""

from __future__ import annotations

from collections.abc import Iterable

from projections.projection import Projection
from projections.summaries import Summarizer
from workers.wiring import ReadSide

EVERY_SECONDS = 2.0
"""Between two looks, when there was nothing to sum up."""


class SummaryKeeper:
    """Sums up what the projectors have passed. ``step`` is meant for a ``Worker`` that idles for
    ``EVERY_SECONDS``; any number of processes may have one."""

    def __init__(self, projections: Iterable[Projection], side: ReadSide) -> None:
        self._summarizers = [
            Summarizer(projection, side.pool) for projection in projections if projection.sums()
        ]

    def step(self) -> int:
        """Sums up some blocks of each; how many. Raises what the database raises."""
        return sum(summarizer.step() for summarizer in self._summarizers)
