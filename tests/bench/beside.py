"""Commands over HTTP with and without a rebuild beside them: p99 of each, in turns.

`python -m tests.bench.beside [EVENTS] [ROUNDS] [-- OPTIONS OF crm rebuild]`, by default
`--gently`.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from infra.embedded import EmbeddedPostgres
from infra.migrations import migrate
from tests.bench import company
from tests.bench.databases import scratch
from tests.bench.http import _process, customer
from tests.bench.rounds import ROOT, run_json, tell

CONNECTIONS = 8
SECONDS = 6


def main() -> None:
    """A table of the rounds, and the ratio of the medians."""
    arguments, _, options = " ".join(sys.argv[1:]).partition("--")
    numbers = [int(word) for word in arguments.split()]
    events, rounds = [*numbers, *(150_000, 5)[len(numbers) :]][:2]
    how = options.split() or ["--gently"]
    with scratch() as folder, EmbeddedPostgres(folder) as server:
        migrate(server.admin_url, member="crm")
        company.fill(server.admin_url, events)
        _measure(folder, rounds, how)


def _measure(folder: Path, rounds: int, how: list[str]) -> None:
    environment = {"CRM_DATA_DIR": str(folder)}
    rebuild = [str(Path(sys.executable).parent / "crm"), "rebuild", "funnel", *how]
    p99: dict[str, list[float]] = {"alone": [], "beside a rebuild": []}
    api = [sys.executable, "-m", "tests.bench.http_server", "api"]
    with _process(api, environment, r"^(\d+)$") as (port, _):
        token = (folder / "token").read_text().strip()
        told = {"TOKEN": token, "CUSTOMER": customer(port, token)}
        load = [sys.executable, "-m", "tests.bench.http_load", str(port)]
        load += [str(CONNECTIONS), str(SECONDS), "commands"]
        for _ in range(rounds):
            for name, found in p99.items():
                beside = None
                if name != "alone":
                    beside = subprocess.Popen(
                        rebuild,
                        cwd=ROOT,
                        env={**os.environ, **environment},
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL,
                    )
                    time.sleep(4)  # until it is at it
                result = run_json(load, told)
                if beside is not None:
                    state = "at it" if beside.poll() is None else "done"
                    beside.terminate()
                    beside.wait()
                    tell(f"  (the rebuild was {state} at the end)")
                found.append(result["p99"])
                tell(f"  {name}: {result['rate']:,.0f}/s, p99 {result['p99']:.1f} ms")
    alone, beside_it = (statistics.median(values) for values in p99.values())
    tell(f"p99 alone {alone:.1f} ms, beside {beside_it:.1f} ms: {beside_it / alone:.2f} times")


if __name__ == "__main__":
    main()
