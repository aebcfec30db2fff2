"""The log into each read model, live and by a rebuild: events a second, and memory.

As a program: `python -m tests.bench.folding URL NAME live|rebuild` does one and prints
{"rate", "megabytes"}; so each is measured in a process of its own.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from infra.eventstore.doorbell import Doorbell
from infra.eventstore.feed import StoreFeed
from infra.postgres import Pool
from projections.catalogue import PROJECTIONS
from projections.projector import Projector
from projections.rebuild import Rebuild
from tests.bench.rounds import Rates, run_json, tell


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
            Rebuild(projection, feed, read).run()
        seconds = time.perf_counter() - started
    return {"rate": end / seconds, "megabytes": peak()}


def peak() -> float:
    """The largest memory of this program so far, in megabytes.

    Not `getrusage`, which starts with what the process was before it became this program.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def measure(url: str, rounds: int) -> tuple[dict[str, Rates], dict[str, float]]:
    """Rates by "name, mode", and the largest memory of each. Live once (the log is applied once),
    rebuilds in rounds."""
    rates: dict[str, Rates] = {}
    memory: dict[str, float] = {}
    for number in range(rounds + 1):
        mode = "live" if number == 0 else "rebuild"
        for name in PROJECTIONS:
            what = f"{name}, {mode}"
            result = run_json([sys.executable, "-m", "tests.bench.folding", url, name, mode])
            rates.setdefault(what, Rates(what)).rounds.append(result["rate"])
            memory[what] = max(memory.get(what, 0.0), result["megabytes"])
            tell(f"  {what}: {result['rate']:,.0f} events/s, {result['megabytes']:,.0f} MB")
    return rates, memory


def main() -> None:
    """One measurement."""
    url, name, mode = sys.argv[1:4]
    sys.stdout.write(json.dumps(once(url, name, mode)) + "\n")


if __name__ == "__main__":
    main()
