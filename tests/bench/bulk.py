"""Commands by the hundred in one request: `/v1/bulk`, half creations, half changes.

As a program: `python -m tests.bench.bulk PORT CONNECTIONS SECONDS`, environment `TOKEN` and
`CUSTOMER`; prints {"rate"} of commands that were done.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
import threading
import time
from uuid import uuid4

LINES = 1_000


def _sent(connection: http.client.HTTPConnection, commands: list[dict[str, object]]) -> bytes:
    body = b"".join(json.dumps(one).encode() + b"\n" for one in commands)
    connection.request(
        "POST",
        "/v1/bulk",
        body,
        {
            "Authorization": f"Bearer {os.environ['TOKEN']}",
            "Content-Type": "application/x-ndjson",
        },
    )
    response = connection.getresponse()
    answers = response.read()
    if response.status != 200:
        raise RuntimeError(f"{response.status} {answers[:500]!r}")
    return answers


def _creations() -> list[dict[str, object]]:
    body = {
        "customer_id": os.environ["CUSTOMER"],
        "name": "Twenty pumps for the new hall",
        "amount": {"value": "125000.00", "currency": "EUR"},
        "expected_close": "2030-06-30",
        "owner": "rep-17",
    }
    return [
        {"path": "/v1/opportunities", "key": uuid4().hex, "body": body} for _ in range(LINES // 2)
    ]


def _changes(deals: list[str], number: int) -> list[dict[str, object]]:
    body = {"amount": {"value": f"{number}.00", "currency": "EUR"}}
    return [
        {"path": f"/v1/opportunities/{deal}/amount", "key": uuid4().hex, "body": body}
        for deal in deals
    ]


def main() -> None:
    """One measurement."""
    port, connections, seconds = (float(word) for word in sys.argv[1:4])
    counts: list[int] = []
    started = time.perf_counter()

    def load() -> None:
        done = 0
        connection = http.client.HTTPConnection("127.0.0.1", int(port))
        deals = [json.loads(a)["id"] for a in _sent(connection, _creations()).splitlines()]
        number = 1
        while time.perf_counter() < started + seconds:
            number += 1
            answers = _sent(connection, [*_creations(), *_changes(deals, number)])
            told = [json.loads(answer) for answer in answers.splitlines()]
            if len(told) != LINES or any(one["status"] >= 300 for one in told):
                raise RuntimeError(next(str(one) for one in told if one["status"] >= 300))
            deals = [one["id"] for one in told[: LINES // 2]]
            done += LINES
        counts.append(done)
        connection.close()

    threads = [threading.Thread(target=load) for _ in range(int(connections))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(counts) != len(threads):
        raise RuntimeError("a connection failed")
    rate = sum(counts) / (time.perf_counter() - started)
    sys.stdout.write(json.dumps({"rate": rate}) + "\n")


if __name__ == "__main__":
    main()
