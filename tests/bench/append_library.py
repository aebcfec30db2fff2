"""Appends one-event commands with the library's own PostgreSQL recorder, in its normal mode.

Runs in an environment of its own (it needs psycopg 3): no import of ours. Environment:
`POSTGRES_*` as the library has them, `WRITERS`, `SECONDS`. Prints {"rate": commands/s}.
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
