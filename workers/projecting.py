"""Keeps the read models up with the log, each in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from projections.catalogue import PROJECTIONS
from projections.projection import Projection
from projections.projector import LateOwner, Projector, RebuildNeeded
from projections.rebuild import Rebuild, clean
from workers.loop import Worker
from workers.wiring import ReadSide

log = structlog.get_logger(__name__)

LONGEST_WAIT = 1.0
"""Seconds after which a projector looks for events though nothing told it of any."""


class Keeper:
    """One projection's projector. A read model that another version of the program filled, or for
    another number of partitions, is rebuilt first."""

    def __init__(self, projection: Projection, side: ReadSide, partitions: int) -> None:
        self._projection = projection
        self._side = side
        self._partitions = partitions
        self._tidy = False
        self._feed = side.feed(projection)
        self._projector = Projector(projection, self._feed, side.pool, partitions=partitions)

    def step(self) -> int:
        """Applies the next batch. Raises what the database raises."""
        if not self._tidy:
            clean(self._side.pool, self._projection)
            self._tidy = True
        try:
            return self._projector.step()
        except LateOwner:
            log.debug("another process keeps this read model up", projection=self._projection.id)
            return 0
        except RebuildNeeded as reason:
            log.info("rebuilding", projection=self._projection.id, reason=str(reason))
            rebuild(self._projection, self._side, self._partitions)
            return 1

    def idle(self) -> None:
        """Waits for events, for a second at most."""
        self._feed.wait(self._projector.position(), LONGEST_WAIT)

    def close(self) -> None:
        self._projector.close()


def rebuild(projection: Projection, side: ReadSide, partitions: int) -> None:
    """Fills a read model anew and puts it in the place of the live one."""
    rebuilt = Rebuild(projection, side.feed(projection), side.pool, partitions=partitions).run()
    log.info(
        "rebuilt",
        projection=rebuilt.projection,
        position=rebuilt.position,
        seconds=round(rebuilt.seconds, 1),
    )


@contextmanager
def projecting(side: ReadSide, partitions: int, stopped: threading.Event) -> Iterator[list[Worker]]:
    """All read models are kept up while this is entered; at its end ``stopped`` is set."""
    keepers = [Keeper(projection, side, partitions) for projection in PROJECTIONS.values()]
    workers = [
        Worker(f"project-{name}", keeper.step, stopped=stopped, idle=keeper.idle)
        for name, keeper in zip(PROJECTIONS, keepers, strict=True)
    ]
    for worker in workers:
        worker.start()
    try:
        yield workers
    finally:
        stopped.set()
        side.doorbell.ring()
        for worker in workers:
            worker.join()
        for keeper in keepers:
            keeper.close()
