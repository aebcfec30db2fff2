"""Looks now and then whether read models have taken in every event of the log."""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from infra.metrics import WorkerMetrics
from projections.completeness import Completeness
from projections.projection import Projection
from workers.wiring import ReadSide

log = structlog.get_logger(__name__)

EVERY_SECONDS = 60.0
"""Between two looks."""


class CompletenessWatch:
    """Checks read models, all of the log at first and then what has grown, and tells the metrics
    and the log. ``step`` is meant for a ``Worker`` that idles for ``EVERY_SECONDS``."""

    def __init__(
        self,
        projections: Iterable[Projection],
        side: ReadSide,
        partitions: int,
        metrics: WorkerMetrics,
    ) -> None:
        self._metrics = metrics
        self._checkers = {
            projection.name: Completeness(side.log_pool, side.pool, projection, partitions)
            for projection in projections
        }
        self._told: dict[str, list[str]] = {}

    def step(self) -> int:
        """Look at each once; 0, as there is nothing more to do at once. Raises what the databases
        raise."""
        for name, checker in self._checkers.items():
            found = checker.look()
            self._metrics.incomplete(name, len(found))
            texts = [str(finding) for finding in found]
            if texts and texts != self._told.get(name):
                log.error(
                    "read model is not complete",
                    projection=name,
                    ranges=texts[:5],
                    remedy=f"crm rebuild {name}",
                )
            self._told[name] = texts
        return 0
