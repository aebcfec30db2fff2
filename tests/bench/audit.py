"""The log into its tree, and held against it: events a second, and memory.

`python -m tests.bench audit [EVENTS]` fills a log, seals it and verifies it, each in a process of
its own; `python -m tests.bench.audit URL seal|verify KEY_FILE` does one and prints
{"rate", "megabytes"}.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from infra.embedded import EmbeddedPostgres
from infra.migrations import migrate
from infra.postgres import Pool, connect
from infra.proof.locating import verify
from infra.proof.notes import parse
from infra.proof.sealing import Sealer
from infra.proof.sources import DatabaseSource
from infra.proof.stored import Stored
from tests.bench import company
from tests.bench.databases import scratch
from tests.bench.rounds import Rates, peak, run_json, tell

EVENTS = 500_000
ROUNDS = 3


def seal(url: str, key_file: Path) -> float:
    """Seals all there is; events a second."""
    with Pool(url, size=1, role="crm_sealer", search_path=["log"]) as pool:
        sealer = Sealer(pool, key_file)
        started = time.perf_counter()
        while (sealed := sealer.seal()).lag:
            pass
        return sealed.position / (time.perf_counter() - started)


def check(url: str) -> float:
    """Verifies all there is by all checkpoints; events a second."""
    streaming, reading = (connect(url, role="crm_reader", search_path=["log"]) for _ in range(2))
    stored = Stored(reading)
    started = time.perf_counter()
    checkpoints = [parse(one.note).checkpoint for one in stored.checkpoints()]
    verdict = verify(DatabaseSource(streaming), stored, checkpoints, head=stored.head())
    rate = verdict.events / (time.perf_counter() - started)
    if verdict.faults or verdict.tiles or verdict.proven != verdict.events:
        raise AssertionError(f"the log is not what was sealed: {verdict}")
    streaming.close()
    reading.close()
    return rate


def main(arguments: list[str]) -> None:
    """Fills, seals and verifies in rounds; rates as a table."""
    events = int(arguments[0]) if arguments else EVENTS
    rates = {mode: Rates(mode) for mode in ("seal", "verify")}
    memory = dict.fromkeys(rates, 0.0)
    with scratch() as folder, EmbeddedPostgres(folder / "audit") as server:
        url = server.admin_url
        migrate(url)
        tell(f"sealing and verifying, about {events:,} events")
        company.fill(url, events)
        for number in range(ROUNDS):
            _unsealed(url)
            key_file = folder / f"seal-{number}.key"
            for mode, found in rates.items():
                command = [sys.executable, "-m", "tests.bench.audit", url, mode, str(key_file)]
                result = run_json(command)
                found.rounds.append(result["rate"])
                memory[mode] = max(memory[mode], result["megabytes"])
                tell(f"  {mode}: {result['rate']:,.0f} events/s, {memory[mode]:,.0f} MB")
    for mode, target in (("seal", 20_000), ("verify", 150_000)):
        met = "met" if rates[mode].median >= target else "NOT MET"
        tell(
            f"| {mode} | {rates[mode].median:,.0f}/s | {rates[mode].spread} |"
            f" {memory[mode]:,.0f} MB | {target:,}/s | {met} |"
        )


def _unsealed(url: str) -> None:
    connection = connect(url, search_path=["log"], autocommit=True)
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE tile, checkpoint, seal_key")
    connection.close()


if __name__ == "__main__":
    measured = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    rate = seal(measured[0], measured[2]) if measured[1] == "seal" else check(measured[0])
    sys.stdout.write(json.dumps({"rate": rate, "megabytes": peak()}) + "\n")
