"""Keeps the read models up with the log, each in a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import structlog

from projections.catalogue import PROJECTIONS
from projections.origin import LogBehind, NewerProgram, OtherLog, RebuildNeeded
from projections.projection import Projection
from projections.projector import LateOwner, Projector
from projections.rebuild import Rebuild, RebuildRunning, clean
from workers import summarizing
from workers.loop import Worker
from workers.summarizing import SummaryKeeper
from workers.wiring import ReadSide

log = structlog.get_logger(__name__)

LONGEST_WAIT = 1.0
"""Seconds after which a projector looks for events though nothing told it of any."""

SHORTEST_REST = 0.005
"""Seconds that a projector leaves to others after it has come to the end of the log: where commands
come without a pause, each would else be a step of its own, in all read models."""


class Keeper:
    """One projection's projector.

    - A read model that an earlier version of the program filled, or for another number of
      partitions, is rebuilt first.
    - One that is of another log, or ahead of this one, is left as it is until somebody decides:
      ``refused`` then says why and what can be done. It is looked at again all the while.
    - Where a later version of the program has taken over, ``ended`` is set, and ``step`` must not
      be called any more.
    """

    def __init__(self, projection: Projection, side: ReadSide, partitions: int) -> None:
        self.ended = threading.Event()
        self.refused: str | None = None
        self._projection = projection
        self._side = side
        self._partitions = partitions
        self._tidy = False
        self._feed = side.feed(projection)
        self._projector = Projector(
            projection, self._feed, side.pool, partitions=partitions, traced=True
        )

    def step(self) -> int:
        """Applies the next batch; 0 where that was the last one for now. Raises what the database
        raises."""
        try:
            done = self._step()
            if not self._tidy:
                # Not before: a rebuild that is needed goes on with what an interrupted one left.
                clean(self._side.pool, self._projection)
                self._tidy = True
        except (OtherLog, LogBehind) as reason:
            if self.refused != str(reason):
                log.error("read model stopped", projection=self._projection.id, reason=str(reason))
            self.refused = str(reason)
            return 0
        except NewerProgram as reason:
            log.info("read model left", projection=self._projection.id, reason=str(reason))
            self.ended.set()
            return 0
        if self.refused is not None:
            log.info("read model goes on", projection=self._projection.id)
            self.refused = None
        return done

    def _step(self) -> int:
        try:
            try:
                done = self._projector.step()
                return 0 if self._projector.caught_up else done
            except LateOwner:
                log.debug("another process moved it on", projection=self._projection.id)
                self._projector.prepare()
                return 0
        except RebuildNeeded as reason:
            log.info("rebuilding", projection=self._projection.id, reason=str(reason))
            try:
                rebuild(self._projection, self._side, self._partitions)
            except RebuildRunning:
                log.info("another process rebuilds it", projection=self._projection.id)
                self.ended.wait(LONGEST_WAIT)
            return 1

    def idle(self) -> None:
        """Waits for events, for a second at most, and not less than a little."""
        if self.refused is not None:
            self.ended.wait(LONGEST_WAIT)
        elif not self.ended.is_set():
            rested = time.monotonic() + SHORTEST_REST
            if self._feed.wait(self._projector.position(), LONGEST_WAIT):
                self.ended.wait(max(0.0, rested - time.monotonic()))

    def positions(self) -> dict[int, int]:
        """How far each partition is applied, as far as is known without asking."""
        return self._projector.reached()

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
def projecting(
    side: ReadSide,
    partitions: int,
    stopped: threading.Event,
    models: Mapping[str, Projection] = PROJECTIONS,
) -> Iterator[Callable[[], bool]]:
    """All ``models`` are kept up while this is entered; at its end ``stopped`` is set.

    Yields a function that tells whether all of them are.
    """
    keepers = [Keeper(projection, side, partitions) for projection in models.values()]
    workers = [
        Worker(f"project-{name}", keeper.step, stopped=keeper.ended, idle=keeper.idle)
        for name, keeper in zip(models, keepers, strict=True)
    ]
    summaries = Worker(
        "summaries",
        SummaryKeeper(models.values(), side).step,
        stopped=stopped,
        idle=lambda: stopped.wait(summarizing.EVERY_SECONDS),
    )

    def running() -> bool:
        alive = all(worker.is_alive() for worker in workers)
        return alive and all(keeper.refused is None for keeper in keepers)

    for worker in (*workers, summaries):
        worker.start()
    try:
        yield running
    finally:
        stopped.set()
        for keeper in keepers:
            keeper.ended.set()
        side.doorbell.ring()
        for worker in (*workers, summaries):
            worker.join()
        for keeper in keepers:
            keeper.close()
