"""``crm archive``: the older part of the log as Parquet files."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path

from rich.console import Console

from infra.archive import Archive, ArchiveRefused, extend
from infra.postgres import connect
from infra.settings import Settings
from workers.loop import DONE, INTERRUPTED, Signals
from workers.progress import progress, terminal
from workers.wiring import databases


def run_archive(
    settings: Settings, folder: Path, to: int, *, console: Console | None = None
) -> int:
    """Archives up to position ``to``, in whole blocks, beside a running product; the exit code.

    130: stopped by SIGINT or SIGTERM; the next run goes on. Raises ArchiveRefused and what the
    database raises.
    """
    console = console or terminal()
    try:
        with ExitStack() as stack:
            stack.enter_context(Signals())
            addresses = stack.enter_context(databases(settings, administering=False))
            connection = stack.enter_context(
                closing(connect(addresses.log, role="crm_backup", application_name="crm archive"))
            )
            told = stack.enter_context(progress(console, "positions archived", to))
            contents = extend(connection, folder, to, told=told)
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        raise ArchiveRefused(f"{folder} cannot be written: {error.strerror or error}") from None
    console.print(
        f"{folder}: positions 1 to {contents.end:,}, in {len(contents.parts):,} files of"
        f" {contents.block:,}. They stay in the database as well."
        if contents.parts
        else f"{folder}: nothing yet; the first file is written up to position {contents.block:,}"
    )
    return DONE


def run_check(folder: Path, *, console: Console | None = None) -> int:
    """Whether an archive is whole and unchanged, without a database; the exit code.

    Raises ArchiveRefused.
    """
    console = console or terminal()
    archive = Archive(folder)
    try:
        with Signals(), progress(console, "events read", archive.end) as told:
            archive.check(told)
    except KeyboardInterrupt:
        return INTERRUPTED
    console.print(
        f"{folder}: whole. Positions 1 to {archive.end:,}, root {archive.root(archive.end).hex()}"
    )
    if archive.contents.checkpoint is not None:
        console.print(f"It is what this checkpoint says:\n{archive.contents.checkpoint}")
    return DONE
