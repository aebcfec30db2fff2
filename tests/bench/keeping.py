"""Backup, restore and archive of a long log: events a second, bytes an event, memory.

`python -m tests.bench.keeping [EVENTS [ROUNDS]]`; 300,000 and 3 by default. Each step runs in a
process of its own, as `python -m tests.bench.keeping STEP URL FOLDER`, which prints {"seconds",
"cpu", "megabytes"}. `cpu`: seconds of a processor that this process took, without the server's:
on a busy machine, what it would take on a free one lies between the two.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from infra.archive import Archive, extend
from infra.backup.manifest import Backup
from infra.backup.restoring import restore
from infra.backup.writing import write
from infra.embedded import EmbeddedPostgres
from infra.migrations import LOG_SCHEMAS
from infra.postgres import connect
from tests.bench import company
from tests.bench.databases import new_database, scratch
from tests.bench.rounds import peak, run_json, tell

EVENTS = 300_000
ROUNDS = 3
BLOCK = 2**16
"""Of the archive: smaller than the product's, so that most of this log is archived."""


def _backup(url: str, folder: Path) -> None:
    (folder / "backup").mkdir()
    with closing(connect(url, role="crm_backup")) as connection:
        write(connection, folder / "backup", folder / "none")


def _check(_: str, folder: Path) -> None:
    backup = Backup(folder / "backup")
    backup.check_sums()
    backup.check_rows()


def _restore(url: str, folder: Path) -> None:
    with closing(connect(url)) as connection:
        restore(connection, Backup(folder / "backup"), folder / "none", fits=None)


def _archive(url: str, folder: Path) -> None:
    with closing(connect(url, role="crm_backup")) as connection:
        [(end,)] = _rows(url, "SELECT position FROM log.head")
        extend(connection, folder / "archive", end, block=BLOCK)


def _check_archive(_: str, folder: Path) -> None:
    Archive(folder / "archive").check()


_STEPS: dict[str, Callable[[str, Path], None]] = {
    "backup": _backup,
    "check": _check,
    "restore": _restore,
    "archive": _archive,
    "check_archive": _check_archive,
}


def _rows(url: str, statement: str) -> list[tuple[Any, ...]]:
    with closing(connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall()


def _once(step: str, url: str, folder: Path) -> None:
    began, used = time.perf_counter(), time.process_time()
    _STEPS[step](url, folder)
    seconds, cpu = time.perf_counter() - began, time.process_time() - used
    tell(json.dumps({"seconds": seconds, "cpu": cpu, "megabytes": peak()}))


def _size(folder: Path, pattern: str) -> int:
    return sum(path.stat().st_size for path in folder.glob(pattern))


def measure(events: int, times: int) -> None:
    """Fills a log, does each step so many times, and tells medians."""
    with scratch() as folder, EmbeddedPostgres(folder / "data") as server:
        url = new_database(server, "filled", LOG_SCHEMAS)
        count = company.fill(url, events)
        vacuum = connect(url, autocommit=True)
        vacuum.cursor().execute("VACUUM ANALYZE log.events")
        vacuum.close()
        sizes = _rows(
            url,
            "SELECT 'table', pg_table_size('log.events') UNION ALL"
            " SELECT indexrelid::regclass::text, pg_relation_size(indexrelid) FROM pg_index"
            " WHERE indrelid = 'log.events'::regclass UNION ALL"
            " SELECT 'state alone', sum(octet_length(state)) FROM log.events",
        )
        for what, size in sizes:
            tell(f"{what}: {size / count:.0f} bytes an event")
        found: dict[str, list[dict[str, float]]] = {step: [] for step in _STEPS}
        for number in range(times):
            work = folder / str(number)
            work.mkdir()
            empty = new_database(server, f"empty_{number}", LOG_SCHEMAS)
            for step in _STEPS:
                target = empty if step == "restore" else url
                found[step].append(
                    run_json([sys.executable, "-m", "tests.bench.keeping", step, target, str(work)])
                )
        archived = Archive(work / "archive").end
        for step, rounds in found.items():
            read = archived if "archive" in step else count
            rates = sorted(read / one["seconds"] for one in rounds)
            cpu = statistics.median(1e6 * one["cpu"] / read for one in rounds)
            memory = max(one["megabytes"] for one in rounds)
            tell(
                f"{step}: {statistics.median(rates):,.0f} events/s"
                f" ({rates[0]:,.0f}-{rates[-1]:,.0f}), {cpu:.1f} µs of CPU an event,"
                f" {memory:,.0f} MB"
            )
        backup = _size(work, "backup/log.events*") / count
        archive = _size(work, "archive/*.parquet") / archived
        tell(f"backup: {backup:.0f} bytes an event; archive: {archive:.0f} bytes an event")
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    tell(
        f"{count:,} events, {os.cpu_count()} cores, Python {platform.python_version()}, load {load}"
    )


if __name__ == "__main__":
    if len(sys.argv) == 4:
        _once(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
    else:
        given = [int(argument) for argument in sys.argv[1:]]
        measure(*given, *(EVENTS, ROUNDS)[len(given) :])
