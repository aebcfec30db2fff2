"""Appends one-event commands with receipts through the group commit, from one event loop.

Environment: `LOG_DATABASE_URL`, `LOG_SCHEMA`, `WRITERS`, `SECONDS`. Prints {"rate": commands/s}.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from datetime import UTC, datetime
from uuid import uuid4

import uvloop
from eventsourcing.utils import Environment

from infra.eventstore.factory import Factory
from infra.eventstore.records import Append, Envelope, LedgerEvent, Receipt
from infra.ids import new_id

BODY = json.dumps({"name": "x" * 200, "amount": {"value": "1000.00", "currency": "EUR"}}).encode()


async def measure(factory: Factory, writers: int, seconds: float) -> float:
    """Commands a second while all writers are at work."""
    committer = factory.committer
    done = 0
    end = time.perf_counter() + seconds

    async def write() -> None:
        nonlocal done
        while time.perf_counter() < end:
            stream, command, key = new_id(), new_id(), uuid4().hex
            event = LedgerEvent(stream, 1, "crm.bench.opened", BODY, occurred_at=datetime.now(UTC))
            receipt = Receipt("bench", key, b"h" * 32, 201, stream, 1)
            envelope = Envelope("bench", command, command)
            await committer.submit_from_loop(Append([event], envelope, {}, receipt))
            done += 1

    started = time.perf_counter()
    await asyncio.gather(*[write() for _ in range(writers)])
    return done / (time.perf_counter() - started)


def main() -> None:
    """One measurement."""
    factory = Factory(Environment(name="bench", env=dict(os.environ)))
    rate = uvloop.run(measure(factory, int(os.environ["WRITERS"]), float(os.environ["SECONDS"])))
    factory.close()
    sys.stdout.write(json.dumps({"rate": rate}) + "\n")


if __name__ == "__main__":
    main()
