"""``crm rebuild`` and ``crm parked``: read models made anew, and events tried again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from uuid import UUID

from rich.console import Console
from rich.progress import Progress

from infra.settings import Settings
from projections.origin import LogBehind, NewerProgram, OtherLog
from projections.parking import ParkedKey
from projections.projection import Projection
from projections.projector import Projector
from projections.rebuild import (
    FillingFailed,
    Gentle,
    NothingToCompare,
    NoWayBack,
    ReadersInTheWay,
    Rebuild,
    RebuildRunning,
    Rebuilt,
    back,
    forget,
)
from workers.filling import Processes, processes
from workers.wiring import ReadSide, databases, models_of, read_side

Say = Callable[[str], object]

_KEEPS_FROM_IT = (
    RebuildRunning, ReadersInTheWay, NothingToCompare, FillingFailed, NoWayBack, OtherLog,
    LogBehind, NewerProgram,
)  # fmt: skip
"""What keeps one read model from being rebuilt, and the next one not."""


_ALONE = {"max_parallel_workers_per_gather": "0", "max_parallel_maintenance_workers": "0"}
"""What keeps the server from doing one thing on several cores."""


def most_workers() -> int:
    """Processes that a rebuild uses unless it is told otherwise."""
    return min(2, os.cpu_count() or 1)


@dataclass(frozen=True, slots=True)
class How:
    """How to rebuild. `verify`: only to see whether the live set is what the log says."""

    workers: int = 1
    gently: bool = False
    verify: bool = False


def rebuild_models(settings: Settings, names: Sequence[str], how: How, say: Say) -> int:
    """Rebuilds read models, one after the other, beside a running product or without one.

    Whatever filled the live ones: another log, one that went further, or a later version of the
    program. Exit code: 1 if one could not be rebuilt, whose live set is as it was, or if with
    `verify` one was found to be other than the log says.
    """
    code = 0
    if how.gently:
        with suppress(OSError):  # where that is not allowed, it is gentle all the same
            os.nice(19)
    models = models_of(settings)
    with (
        databases(settings, administering=False) as addresses,
        read_side(addresses, session=_ALONE if how.gently else None) as side,
        processes(
            addresses.log, addresses.read, settings, 1 if how.gently else how.workers
        ) as fillers,
    ):
        for name in dict.fromkeys(names):
            try:
                rebuilt = _rebuild(models[name], side, settings.partitions, fillers, how)
            except _KEEPS_FROM_IT as reason:
                say(f"{name}: {reason}")
                code = 1
                continue
            tell(name, rebuilt, say, verified=how.verify)
            if how.verify and not rebuilt.same:
                code = 1
    return code


def _rebuild(
    projection: Projection,
    side: ReadSide,
    partitions: int,
    fillers: Processes | None,
    how: How,
) -> Rebuilt:
    feed = side.feed(projection)
    end = feed.end()
    with Progress(console=Console(stderr=True)) as progress:
        verb = "verifying" if how.verify else "rebuilding"
        task = progress.add_task(f"{verb} {projection.name}", total=None)
        rebuild = Rebuild(
            projection,
            feed,
            side.pool,
            partitions=partitions,
            backwards=not how.verify,
            fillers=fillers,
            gentle=Gentle() if how.gently else None,
            on_progress=lambda done: progress.update(task, completed=done, total=max(done, end)),
        )
        return rebuild.verify() if how.verify else rebuild.run()


def tell(name: str, rebuilt: Rebuilt, say: Say, *, verified: bool) -> None:
    """Say what a rebuild found."""
    if rebuilt.resumed:
        say(f"{name}: went on with a rebuild that was interrupted")
    for table in rebuilt.compared:
        found = "same: yes" if table.same else f"same: NO (live: {table.live_rows:,} rows)"
        say(f"{table.table}: {table.rebuilt_rows:,} rows at {rebuilt.at:,}, {found}")
        for row in table.differing:
            say(f"  {row}")
    if rebuilt.parked or rebuilt.live_parked:
        say(f"{name}: {rebuilt.parked:,} keys wait, {rebuilt.live_parked:,} in the live set")
    rate = rebuilt.position / max(rebuilt.seconds, 0.001)
    done = "verified" if verified else "rebuilt"
    say(
        f"{name}: {done} up to position {rebuilt.position:,} in {rebuilt.seconds:.1f} s,"
        f" {rate:,.0f} events/s"
    )


def put_back(settings: Settings, names: Sequence[str], say: Say) -> int:
    """Puts the sets of before the last rebuild back; exit code 1 if one could not be."""
    code = 0
    models = models_of(settings)
    with databases(settings, administering=False) as addresses, read_side(addresses) as side:
        for name in dict.fromkeys(names):
            projection = models[name]
            try:
                kept = back(
                    projection,
                    side.pool,
                    side.feed(projection).head,
                    partitions=settings.partitions,
                )
            except _KEEPS_FROM_IT as reason:
                say(f"{name}: {reason}")
                code = 1
            else:
                say(f"{name}: {kept.id} is back, it goes on from position {kept.position:,}")
    return code


def forget_former(settings: Settings, names: Sequence[str], say: Say) -> int:
    """Drops the sets of before the last rebuild; exit code 1 if one could not be."""
    code = 0
    models = models_of(settings)
    with databases(settings, administering=False) as addresses, read_side(addresses) as side:
        for name in dict.fromkeys(names):
            try:
                kept = forget(models[name], side.pool)
            except RebuildRunning as reason:
                say(f"{name}: {reason}")
                code = 1
            else:
                gone = "no former set was kept" if kept is None else f"{kept.id} is forgotten"
                say(f"{name}: {gone}")
    return code


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
