"""How far a read model is behind the log, and for how long."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from infra.metrics import WorkerMetrics
from infra.postgres import Pool

EVERY_SECONDS = 2.0
"""Between two looks."""

_BEHIND = """SELECT head.position, (SELECT extract(epoch FROM clock_timestamp() - recorded_at)
    FROM events WHERE events.position = %s + 1)::float8 FROM head"""


class LagWatch:
    """Tells the metrics how many events wait for one projection, in the partitions that this
    process has. ``step`` is meant for a ``Worker`` that idles for ``EVERY_SECONDS``."""

    def __init__(
        self,
        name: str,
        log_pool: Pool,
        metrics: WorkerMetrics,
        positions: Callable[[], Mapping[int, int]],
    ) -> None:
        """`positions`, by partition; called from another thread. None: nothing is told."""
        self._name = name
        self._pool = log_pool
        self._metrics = metrics
        self._positions = positions

    def step(self) -> int:
        """0, as there is nothing more to do at once. Raises what the database raises."""
        positions = self._positions()
        if positions:
            reached = min(positions.values())
            with self._pool.connection() as connection, connection.cursor() as cursor:
                cursor.execute(_BEHIND, [reached])
                end, age = cursor.fetchall()[0]
            self._metrics.lag(self._name, max(0, end - reached), age or 0.0)
        return 0
