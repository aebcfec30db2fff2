"""The log into each read model, live and by a rebuild: events a second, and memory; beside the
library's own way, and bare COPY out and in.

As a program: `python -m tests.bench.folding URL NAME live|rebuild|shared` does one and prints
{"rate", "megabytes"}; so each is measured in a process of its own. `rebuild`: by one process;
`shared`: by two, whose start is counted and whose memory is not.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from infra.embedded import EmbeddedPostgres
from infra.eventstore.doorbell import Doorbell
from infra.eventstore.feed import StoreFeed
from infra.postgres import Pool, connect
from infra.settings import load
from projections.catalogue import PROJECTIONS
from projections.projector import Projector
from projections.rebuild import Rebuild
from tests.bench import append, peers
from tests.bench.databases import copy_of, drop
from tests.bench.rounds import Rates, peak, run_json, tell
from workers.filling import processes

RUNNER = "ProjectionRunner"
COPY = "COPY out and in"
_OF_RUNNER = 5_000
"""Events that the library folds, one by one."""


def once(url: str, name: str, mode: str) -> dict[str, float]:
    """Events of the log a second, and the largest memory of this process in megabytes."""
    projection = PROJECTIONS[name]
    with (
        Pool(url, size=4, role="crm_projector", search_path=["log"], autocommit=True) as log,
        Pool(url, size=6, role="crm_projector", search_path=["read"]) as read,
    ):
        feed = StoreFeed(log, Doorbell(), projection.topics)
        end = feed.end()
        started = time.perf_counter()
        if mode == "live":
            projector = Projector(projection, feed, read)
            while projector.step():
                pass
            projector.close()
        else:
            workers = 2 if mode == "shared" else 1
            with processes(url, url, load({}), workers) as fillers:
                Rebuild(projection, feed, read, fillers=fillers).run()
        seconds = time.perf_counter() - started
    return {"rate": end / seconds, "megabytes": peak()}


def measure(
    server: EmbeddedPostgres, name: str, folder: Path, rounds: int
) -> tuple[dict[str, Rates], dict[str, float]]:
    """Rates by "name, mode", and the largest memory of each, of a log in the database `name`, which
    nobody is connected to."""
    rates: dict[str, Rates] = {}
    memory: dict[str, float] = {}
    library = peers.python("eventsourcing", "eventsourcing[postgres]>=9.5,<9.6")
    runner = [library, peers.HERE / "folding_eventsourcing.py"]

    def note(what: str, rate: float) -> None:
        rates.setdefault(what, Rates(what)).rounds.append(rate)
        megabytes = f", {memory[what]:,.0f} MB" if what in memory else ""
        tell(f"  {what}: {rate:,.0f} events/s{megabytes}")

    for _ in range(rounds):
        url = copy_of(server, name)
        for mode in ("live", "shared"):
            for projection in PROJECTIONS:
                what = f"{projection}, {mode}"
                command = [sys.executable, "-m", "tests.bench.folding", url, projection, mode]
                result = run_json(command)
                memory[what] = max(memory.get(what, 0.0), result["megabytes"])
                note(what, result["rate"])
        note(COPY, _copied(url, folder))
        environment = {**append.Place.of(url).library(4), "EVENTS": str(_OF_RUNNER)}
        note(RUNNER, run_json(runner, environment)["rate"])
        drop(server, url)
    return rates, memory


def once_each(url: str, folder: Path) -> tuple[dict[str, Rates], Rates]:
    """Rates of each read model, live, and of COPY; once."""
    live = {}
    for name in PROJECTIONS:
        result = run_json([sys.executable, "-m", "tests.bench.folding", url, name, "live"])
        live[name] = Rates(name, [result["rate"]])
        tell(f"  {name}, live: {result['rate']:,.0f} events/s")
    return live, Rates(COPY, [_copied(url, folder)])


def _copied(url: str, folder: Path) -> float:
    """Events a second, of both ways one after the other; the columns and indexes are the log's."""
    connection = connect(url)
    file = folder / "copied"
    with connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE public.copied_events (LIKE log.events INCLUDING ALL)")
        began = time.perf_counter()
        with file.open("wb") as out:
            cursor.copy_expert("COPY log.events TO STDOUT", out)
        with file.open("rb") as into:
            cursor.copy_expert("COPY public.copied_events FROM STDIN", into)
        events = cursor.rowcount
        connection.commit()
        seconds = time.perf_counter() - began
        cursor.execute("DROP TABLE public.copied_events")
    connection.close()
    file.unlink()
    return float(events / seconds)


def main() -> None:
    """One measurement."""
    url, name, mode = sys.argv[1:4]
    sys.stdout.write(json.dumps(once(url, name, mode)) + "\n")


if __name__ == "__main__":
    main()
