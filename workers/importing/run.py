"""An import of deals."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rich.console import Console

from infra.settings import Settings
from workers.importing.course import (
    carry_out,
    exit_code,
    summarise,
    unreachable,
    usage,
)
from workers.importing.deals import Reader
from workers.importing.loader import Loader
from workers.importing.lookups import Lookups, Owner, read_lookups
from workers.importing.mapping import Layout, load_mapping
from workers.importing.plan import Planner
from workers.importing.records import FileError, Table
from workers.importing.report import Report
from workers.importing.survey import Survey, survey
from workers.importing.work import Work
from workers.progress import progress, terminal
from workers.steps import LogUnreachable, Steps
from workers.wiring import Ledger, now


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
    """Loads `file`; returns the exit code (see `course`).

    `mapping` is a path or a shipped name, `source` replaces its source's name. `report` gets a
    line for each line that was not taken, `owners` who is behind which owner's id.
    """
    console = console or terminal()
    return carry_out(
        settings,
        console,
        report,
        clock,
        read=lambda: _read(settings, file, mapping, source, clock, console),
        load=lambda book, read, entries, stopped: _load(
            book, read, entries, owners, stopped, console
        ),
    )


def _read(
    settings: Settings,
    file: Path,
    mapping: str,
    source: str | None,
    clock: Callable[[], datetime],
    console: Console,
) -> Source:
    layout = load_mapping(mapping, source=source)
    table = layout.file.table(file)
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
    steps = Steps(book.commands, book.tokens.derived_key("import"))
    work = Work(steps, report, f"import:{read.layout.source}", stopped)
    loader = Loader(work, planner, read.survey)
    total = read.survey.lines
    try:
        if owners is not None:
            _write_owners(owners, read, planner)
        if read.layout.pipeline is None:
            await book.prepare()
        await loader.prepare(read.layout.stage_words.values())
        with progress(console, "lines imported", total) as told:
            await loader.accounts(read.lookups, accounts_file or name)
            await loader.deals(read.table, read.reader, told)
    except FileError as error:
        return usage(console, error)
    except LogUnreachable as error:
        return unreachable(console, error, loader.done, total)
    tally = loader.tally
    summarise(
        console,
        f"{total:,} lines: {tally.new:,} new deals, {tally.carried_on:,} carried on,"
        f" {tally.unchanged:,} unchanged, {report.counts.total():,} reported.",
        report,
    )
    return exit_code(console, report, stopped, loader.done, total)


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
