"""What every import does from beginning to end, and how it ends.

Exit codes. 0: all lines are in, now or from an earlier run. 1: some are not, or the log could not
be reached. 2: the mapping or a file cannot be used as it is; nothing was done. 130: stopped by
SIGINT or SIGTERM, after what was under way; run again, it goes on from there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import uvloop
from rich.console import Console
from rich.markup import escape

from infra.cluster import make_data_dir
from infra.settings import Settings
from workers.importing.mapping import MappingError
from workers.importing.records import FileError
from workers.importing.report import Report
from workers.loop import INTERRUPTED, Signals
from workers.steps import LogUnreachable
from workers.wiring import Ledger, databases, ledger

ALL_IN: Final = 0
SOME_NOT: Final = 1
USAGE: Final = 2

R = TypeVar("R")
Stopped = Callable[[], bool]


def carry_out(
    settings: Settings,
    console: Console,
    report: Path | None,
    clock: Callable[[], datetime],
    *,
    read: Callable[[], R],
    load: Callable[[Ledger, R, Report, Stopped], Coroutine[Any, Any, int]],
) -> int:
    """`read` before anything is touched, then `load` with what it gave; returns the exit code.

    The ledger's commands are closed when `load` has ended.
    """
    with ExitStack() as stack:
        signals = stack.enter_context(Signals())
        try:
            found = read()
            entries = Report(report)
            stack.callback(entries.close)
        except (MappingError, FileError) as error:
            return usage(console, error)
        except KeyboardInterrupt:
            return INTERRUPTED
        make_data_dir(settings.data_dir)
        try:
            addresses = stack.enter_context(databases(settings))
            book = stack.enter_context(ledger(settings, addresses, clock))
            signals.serving = True
        except KeyboardInterrupt:
            return INTERRUPTED

        async def loaded() -> int:
            try:
                return await load(book, found, entries, signals.stopped.is_set)
            finally:
                await book.commands.close()

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(loaded())


def summarise(console: Console, line: str, report: Report) -> None:
    """`line`, and of each kind of problem how often it was met, with examples."""
    console.print(line)
    for problem, count in report.counts.most_common():
        console.print(f"  {count:,} × {escape(problem)}")
        for entry in report.examples[problem]:
            place = f"{entry.file}, line {entry.line}" if entry.line else entry.file
            id_ = f" ({entry.id})" if entry.id else ""
            console.print(f"    {escape(f'{place}{id_}: {entry.message}')}")


def exit_code(console: Console, report: Report, stopped: Stopped, done: int, total: int) -> int:
    if stopped() and done < total:
        console.print(f"Stopped after {done:,} of {total:,} lines. Run it again to go on.")
        return INTERRUPTED
    return SOME_NOT if report.counts else ALL_IN


def unreachable(console: Console, error: LogUnreachable, done: int, total: int) -> int:
    console.print(f"[red]crm: the log cannot be reached: {escape(str(error))}[/red]")
    console.print(f"{done:,} of {total:,} lines are done. Run it again to go on.")
    return SOME_NOT


def usage(console: Console, error: Exception) -> int:
    console.print(f"crm: {escape(str(error))}")
    return USAGE
