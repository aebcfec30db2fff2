"""From the recording of a command to its being seen in a read model, at a steady rate of commands.

Arguments: port, address of the database of log and read models, read model, commands a second,
seconds. Environment: `TOKEN`, `CUSTOMER`. Deals are opened and changed by `http_load`, a
process of its own, and the positions of the read model are watched meanwhile. When a command was
recorded says the database, just before it commits: so the commit itself counts, too. Prints
{"rate", "p50", "p99", "unseen"} (commands a second, milliseconds, commands).
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import NamedTuple
from uuid import UUID

from infra.eventstore.feed import partition_of
from infra.postgres import connect
from tests.bench.databases import end_of
from tests.bench.rounds import run_json

CONNECTIONS = 32

LOOK_EVERY = 0.002
"""Seconds between two looks at the positions."""

PATIENCE = 20.0
"""Seconds that the last commands are waited for."""


class Watcher(threading.Thread):
    """Notes when each partition reached which position."""

    def __init__(self, url: str, projection: str) -> None:
        super().__init__(daemon=True)
        self.ended = threading.Event()
        self.partitions = 0
        self.seen: dict[int, list[tuple[float, int]]] = {}
        self._connection = connect(url, role="crm_reader", autocommit=True)
        self._projection = f"{projection}/%"

    def run(self) -> None:
        reached: dict[int, int] = {}
        with self._connection.cursor() as cursor:
            while not self.ended.wait(LOOK_EVERY):
                cursor.execute(
                    "SELECT partition, position FROM read.position WHERE projection LIKE %s",
                    [self._projection],
                )
                now = time.time()
                for partition, position in cursor.fetchall():
                    if reached.get(partition) != position:
                        reached[partition] = position
                        self.seen.setdefault(partition, []).append((now, position))
                self.partitions = len(reached)
        self._connection.close()

    def when(self, key: UUID, position: int) -> float | None:
        """When the key's partition had the position."""
        for at, reached in self.seen.get(partition_of(key, self.partitions), ()):
            if reached >= position:
                return at
        return None


class Commit(NamedTuple):
    key: UUID
    position: int
    at: float


def _recorded_since(url: str, position: int) -> list[Commit]:
    """The events after a position."""
    connection = connect(url, role="crm_reader", autocommit=True)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT partition_key, position, extract(epoch FROM recorded_at)::float8"
            " FROM log.events WHERE position > %s ORDER BY position",
            [position],
        )
        found = [Commit(*row) for row in cursor]
    connection.close()
    return found


def main() -> None:
    """One measurement."""
    port, url, projection, rate, seconds = sys.argv[1:6]

    def load(lasting: str) -> float:
        command = [sys.executable, "-m", "tests.bench.http_load", port, str(CONNECTIONS)]
        return float(run_json([*command, lasting, "commands", rate])["rate"])

    watcher = Watcher(url, projection)
    watcher.start()
    load("2")  # what is slow the first time
    before = end_of(url)
    done = load(seconds)
    recorded = _recorded_since(url, before)
    deadline = time.time() + PATIENCE
    while time.time() < deadline:
        if all(watcher.when(one.key, one.position) is not None for one in recorded[-1_000:]):
            break
        time.sleep(0.05)
    watcher.ended.set()
    watcher.join()
    seen = [(watcher.when(one.key, one.position), one.at) for one in recorded]
    delays = sorted((at - began) * 1000 for at, began in seen if at is not None)
    result = {
        "rate": done,
        "p50": delays[len(delays) // 2],
        "p99": delays[int(len(delays) * 0.99)],
        "unseen": len(recorded) - len(delays),
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
