"""One import from beginning to end."""

from __future__ import annotations

import asyncio
import csv
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import uvloop
from rich.console import Console
from rich.markup import escape

from infra.cluster import make_data_dir
from infra.settings import Settings
from workers.importing.deals import Reader
from workers.importing.loader import Loader
from workers.importing.lookups import Lookups, Owner, read_lookups
from workers.importing.mapping import Layout, MappingError, load_mapping
from workers.importing.plan import Planner
from workers.importing.records import FileError, Table
from workers.importing.report import Report
from workers.importing.survey import Survey, survey
from workers.loop import Signals
from workers.progress import progress
from workers.steps import LogUnreachable, Steps
from workers.wiring import Ledger, databases, ledger, now

ALL_IN: Final = 0
SOME_NOT: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130


@dataclass(frozen=True, slots=True)
class Source:
    """A file that has been read once."""

    table: Table
    reader: Reader
    layout: Layout
    lookups: Lookups
    survey: Survey


def run_import(
    settings: Settings,
    file: Path,
    mapping: str,
    *,
    source: str | None = None,
    report: Path | None = None,
    owners: Path | None = None,
    console: Console | None = None,
    clock: Callable[[], datetime] = now,
) -> int:
    """Loads `file`; returns the exit code.

    0: all lines are in, now or from an earlier run. 1: some are not, or the log could not be
    reached. 2: the mapping or a file cannot be used as it is; nothing was done. 130: stopped by
    SIGINT or SIGTERM, after what was under way; run again, it goes on from there.

    `mapping` is a path or a shipped name, `source` replaces its source's name. `report` gets a
    line for each line that was not taken, `owners` who is behind which owner's id.
    """
    console = console or Console(stderr=True, highlight=False, soft_wrap=True)
    with ExitStack() as stack:
        signals = stack.enter_context(Signals())
        try:
            read = _read(settings, file, mapping, source, clock, console)
            entries = Report(report)
            stack.callback(entries.close)
        except (MappingError, FileError) as error:
            return _usage(console, error)
        except KeyboardInterrupt:
            return INTERRUPTED
        make_data_dir(settings.data_dir)
        try:
            addresses = stack.enter_context(databases(settings))
            book = stack.enter_context(ledger(settings, addresses, clock))
            signals.serving = True
        except KeyboardInterrupt:
            return INTERRUPTED
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_load(book, read, entries, owners, signals.stopped.is_set, console))


def _read(
    settings: Settings,
    file: Path,
    mapping: str,
    source: str | None,
    clock: Callable[[], datetime],
    console: Console,
) -> Source:
    layout = load_mapping(mapping, source=source)
    table = Table(file, encoding=layout.file.encoding, delimiter=layout.file.delimiter)
    lookups = read_lookups(layout, file.parent)
    today = clock().astimezone(settings.zone).date()
    reader = Reader(table, layout, lookups, settings.currency, today)
    with progress(console, "lines read", None) as told:
        surveyed = survey(table, reader, told)
    return Source(table, reader, layout, lookups, surveyed)


async def _load(
    book: Ledger,
    read: Source,
    report: Report,
    owners: Path | None,
    stopped: Callable[[], bool],
    console: Console,
) -> int:
    name, accounts_file = read.table.path.name, ""
    if read.layout.accounts is not None:
        accounts_file = read.layout.accounts.file
    planner = Planner(book.crm, read.layout, read.lookups, read.survey, name)
    loader = Loader(
        Steps(book.commands, book.tokens.derived_key("import")),
        planner,
        read.survey,
        report,
        actor=f"import:{read.layout.source}",
    )
    total = read.survey.lines
    try:
        if owners is not None:
            _write_owners(owners, read, planner)
        if read.layout.pipeline is None:
            await book.prepare()
        await loader.prepare(read.layout.stage_words.values())
        with progress(console, "lines imported", total) as told:
            await loader.accounts(read.lookups, accounts_file or name, stopped)
            await loader.deals(read.table, read.reader, stopped, told)
    except FileError as error:
        return _usage(console, error)
    except LogUnreachable as error:
        console.print(f"[red]crm: the log cannot be reached: {escape(str(error))}[/red]")
        console.print(f"{loader.done:,} of {total:,} lines are done. Run it again to go on.")
        return SOME_NOT
    finally:
        await book.commands.close()
    _summarise(console, loader, report, total)
    if stopped() and loader.done < total:
        console.print(f"Stopped after {loader.done:,} of {total:,} lines. Run it again to go on.")
        return INTERRUPTED
    return SOME_NOT if report.counts else ALL_IN


def _summarise(console: Console, loader: Loader, report: Report, total: int) -> None:
    tally = loader.tally
    console.print(
        f"{total:,} lines: {tally.new:,} new deals, {tally.carried_on:,} carried on,"
        f" {tally.unchanged:,} unchanged, {report.counts.total():,} reported."
    )
    for problem, count in report.counts.most_common():
        console.print(f"  {count:,} × {escape(problem)}")
        for entry in report.examples[problem]:
            place = f"{entry.file}, line {entry.line}" if entry.line else entry.file
            id_ = f" ({entry.id})" if entry.id else ""
            console.print(f"    {escape(f'{place}{id_}: {entry.message}')}")


def _write_owners(path: Path, read: Source, planner: Planner) -> None:
    teams = read.lookups.owners or {}
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(["owner", "name", "manager", "manager_name", "region"])
            for name in sorted(read.survey.owners | teams.keys()):
                owner = teams.get(name) or Owner(name)
                manager = "" if owner.manager is None else str(planner.owner_id(owner.manager))
                rows.writerow(
                    [planner.owner_id(name), name, manager, owner.manager or "", owner.region or ""]
                )
    except OSError as error:
        raise FileError(f"{path}: {error.strerror or error}") from None


def _usage(console: Console, error: Exception) -> int:
    console.print(f"crm: {escape(str(error))}")
    return USAGE
