"""``crm rebuild`` and ``crm parked``: read models made anew, and events tried again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import UUID

from infra.settings import Settings
from projections.parking import ParkedKey
from projections.projector import Projector
from projections.rebuild import Rebuild, Rebuilt
from workers.wiring import databases, models_of, read_side


def rebuild_one(settings: Settings, name: str, reached: Callable[[int, int], None]) -> Rebuilt:
    """Rebuilds the read model ``name``, beside a running product or without one.

    Whatever filled the live one: another log, one that went further, or a later version of the
    program. ``reached`` is told the position come to and the end of the log. Raises
    ``RebuildRunning`` and ``ReadersInTheWay``, and then has changed nothing.
    """
    projection = models_of(settings)[name]
    with databases(settings, administering=False) as addresses, read_side(addresses) as side:
        feed = side.feed(projection)
        end = feed.end()
        return Rebuild(
            projection,
            feed,
            side.pool,
            partitions=settings.partitions,
            backwards=True,
            on_progress=lambda position: reached(position, end),
        ).run()


def parked_keys(settings: Settings, name: str) -> list[ParkedKey]:
    """The keys whose events the read model ``name`` could not apply."""
    with _projector(settings, name) as projector:
        return projector.parked_keys()


def retry_key(settings: Settings, name: str, key: UUID) -> bool:
    """Tries the parked events of a key; whether all went in. Raises ``KeyError``."""
    with _projector(settings, name) as projector:
        return projector.retry(key)


@contextmanager
def _projector(settings: Settings, name: str) -> Iterator[Projector]:
    projection = models_of(settings)[name]
    with databases(settings, administering=False) as addresses, read_side(addresses) as side:
        projector = Projector(
            projection, side.feed(projection), side.pool, partitions=settings.partitions
        )
        try:
            yield projector
        finally:
            projector.close()
