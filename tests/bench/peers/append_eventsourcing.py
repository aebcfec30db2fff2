"""Appends one-event commands with the library's own PostgreSQL recorder.

Environment: `POSTGRES_*` as the library has them, `WRITERS`, `SECONDS`; `UNSAFE` for a recorder
that does not lock its table, so that readers in order of position can miss what commits late.
Prints {"rate": commands/s}.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from uuid import uuid4

from eventsourcing.persistence import InfrastructureFactory, StoredEvent
from eventsourcing.utils import Environment

BODY = json.dumps({"name": "x" * 200, "amount": {"value": "1000.00", "currency": "EUR"}}).encode()


def main() -> None:
    """One measurement."""
    environment = Environment(name="bench", env=dict(os.environ))
    factory = InfrastructureFactory.construct(environment)
    recorder = factory.application_recorder()
    if os.environ.get("UNSAFE"):
        recorder.lock_table_statements = []
    counts: list[int] = []
    started = time.perf_counter()
    end = started + float(os.environ["SECONDS"])

    def write() -> None:
        done = 0
        while time.perf_counter() < end:
            recorder.insert_events([StoredEvent(uuid4(), 1, "crm.bench.opened", BODY)])
            done += 1
        counts.append(done)

    threads = [threading.Thread(target=write) for _ in range(int(os.environ["WRITERS"]))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rate = sum(counts) / (time.perf_counter() - started)
    factory.close()
    sys.stdout.write(json.dumps({"rate": rate}) + "\n")


if __name__ == "__main__":
    main()
