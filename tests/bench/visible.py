"""From the commit of a command to its being seen in a read model, at a steady rate of commands.

Arguments: port, address of the read database, read model, commands a second, seconds. Environment:
`TOKEN`. Sends registrations and orders at their times, whether or not earlier ones are answered,
and watches the positions of the read model meanwhile. Prints {"rate", "p50", "p99", "unseen"}
(commands a second, milliseconds, commands).
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from uuid import UUID, uuid4

import httpx

from infra.eventstore.feed import partition_of
from infra.postgres import connect

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
                now = time.perf_counter()
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


async def _load(
    port: int, rate: float, seconds: float
) -> tuple[list[tuple[UUID, int, float]], float]:
    """(key, position, time of the answer) of each command, and how many were done a second."""
    customers: list[str] = []
    answers: list[tuple[UUID, int, float]] = []
    token = os.environ["TOKEN"]
    limits = httpx.Limits(max_connections=64, max_keepalive_connections=64)
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}", limits=limits, timeout=30, trust_env=False
    ) as client:

        async def command(number: int) -> None:
            if number % 2 == 0 or not customers:
                path = "/v1/customers"
                body: dict[str, object] = {"name": f"Company {number}"}
            else:
                path = f"/v1/customers/{customers[number % len(customers)]}/orders"
                body = {"order_id": f"{number}", "amount": {"value": "10.00", "currency": "EUR"}}
            headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": uuid4().hex}
            answer = await client.post(path, json=body, headers=headers)
            answered = time.perf_counter()
            answer.raise_for_status()
            content: Mapping[str, str | int] = answer.json()
            if path == "/v1/customers":
                customers.append(str(content["id"]))
            answers.append((UUID(str(content["id"])), int(content["position"]), answered))

        tasks = []
        began = time.perf_counter()
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
            tasks.append(asyncio.create_task(command(number)))
        await asyncio.gather(*tasks)
        return answers, len(answers) / (time.perf_counter() - began)


def main() -> None:
    """One measurement."""
    port, url, projection, rate, seconds = sys.argv[1:6]
    watcher = Watcher(url, projection)
    watcher.start()
    asyncio.run(_load(int(port), float(rate), 2.0))  # what is slow the first time
    answers, done = asyncio.run(_load(int(port), float(rate), float(seconds)))
    deadline = time.perf_counter() + PATIENCE
    while time.perf_counter() < deadline:
        if all(watcher.when(key, position) is not None for key, position, _ in answers):
            break
        time.sleep(0.05)
    watcher.ended.set()
    watcher.join()
    delays, unseen = [], 0
    for key, position, answered in answers:
        at = watcher.when(key, position)
        if at is None:
            unseen += 1
        else:
            delays.append(max(0.0, at - answered) * 1000)
    delays.sort()
    result = {
        "rate": done,
        "p50": delays[len(delays) // 2],
        "p99": delays[int(len(delays) * 0.99)],
        "unseen": unseen,
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
