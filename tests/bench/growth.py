"""What a long log costs: appends and reads of streams on 10,000,000 events and on 100,000.

`python -m tests.bench growth [EVENTS [ROUNDS]]`; as a program of its own
`python -m tests.bench.growth URL STREAMS SECONDS` reads streams at random and prints {"rate"}.
Both logs lie on one server; rounds are interleaved.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Sequence
from functools import partial
from hashlib import md5
from typing import Any
from uuid import UUID

from eventsourcing.utils import Environment

from infra.embedded import EmbeddedPostgres
from infra.eventstore.factory import Factory
from infra.postgres import connect
from tests.bench.append import ours
from tests.bench.databases import new_database, scratch
from tests.bench.rounds import interleaved, run_json, tell
from tests.bench.table import Line, rows

FEW = 100_000
MANY = 10_000_000
ROUNDS = 5
SECONDS = 8.0
VERSIONS = 10
"""Events of a stream, spread over the whole log."""
WRITERS = 32
LEAST = 0.9
_AT_ONCE = 500_000
_TABLES = ("log.events", "log.receipts")

_COLUMNS = """position, stream_id, version, topic, class_version, partition_key, occurred_at,
    recorded_at, actor, command_id, correlation_id, state"""
_FILL = f"""
WITH made AS (
    SELECT n AS position, md5(((n - 1) %% %(streams)s)::text)::uuid AS stream,
        ((n - 1) / %(streams)s + 1)::int AS version, gen_random_uuid() AS command,
        timestamptz '2024-01-01 00:00Z' + n * interval '1 second' AS at
    FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n
), receipts_in AS (
    INSERT INTO log.receipts (scope, key, request_hash, status, id, version, position, recorded_at)
    SELECT 'bench', command::text, decode(repeat('ab', 32), 'hex'), 201, stream, version, position,
        clock_timestamp() FROM made ORDER BY position
)
INSERT INTO log.events ({_COLUMNS})
SELECT position, stream, version, 'crm.bench.opened', 1, stream, at, at, 'bench', command, command,
    convert_to('{{"name": "' || repeat('x', 200) || '", "amount": {{"value": "' || position
        || '.00", "currency": "EUR"}}}}', 'UTF8')
FROM made ORDER BY position
"""


def fill(admin_url: str, events: int) -> None:
    """So many events, each of a command of its own with a receipt, in streams of ten.

    Indexes are made anew at the end, so they are as dense as they get.
    """
    connection = connect(admin_url, autocommit=True)
    with connection.cursor() as cursor:
        cursor.execute("SET synchronous_commit TO off; SET maintenance_work_mem TO '512MB'")
        again = [statement for table in _TABLES for statement in _without_indexes(cursor, table)]
        for first in range(1, events + 1, _AT_ONCE):
            last = min(first + _AT_ONCE - 1, events)
            streams = events // VERSIONS
            cursor.execute(_FILL, {"first": first, "last": last, "streams": streams})
        for statement in again:
            cursor.execute(statement)
        cursor.execute("UPDATE log.head SET position = %s", [events])
        for table in _TABLES:
            cursor.execute(f"VACUUM (ANALYZE) {table}")
        cursor.execute("CHECKPOINT")
    connection.close()


def warm(admin_url: str) -> None:
    """Reads the indexes that commands look into, as one has them who has run for a while."""
    connection = connect(admin_url, autocommit=True)
    with connection.cursor() as cursor:
        cursor.execute(
            "SET enable_seqscan TO off; SET enable_bitmapscan TO off;"
            " SET max_parallel_workers_per_gather TO 0"
        )
        for key, table in zip(("stream_id, version", "scope, key"), _TABLES, strict=True):
            cursor.execute(f"SELECT count(*) FROM (SELECT {key} FROM {table} ORDER BY {key}) AS k")
    connection.close()


def _without_indexes(cursor: Any, table: str) -> list[str]:
    """Drops the table's indexes; what makes them again."""
    cursor.execute(
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE conrelid = %s::regclass AND contype IN ('p', 'u')",
        [table],
    )
    constraints = cursor.fetchall()
    cursor.execute(
        "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index"
        " WHERE indrelid = %s::regclass AND NOT EXISTS"
        " (SELECT FROM pg_constraint WHERE conindid = indexrelid)",
        [table],
    )
    indexes = cursor.fetchall()
    for name, _ in constraints:
        cursor.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
    for name, _ in indexes:
        cursor.execute(f"DROP INDEX {name}")
    return [
        *(f"ALTER TABLE {table} ADD CONSTRAINT {name} {made}" for name, made in constraints),
        *(made for _, made in indexes),
    ]


def sizes(admin_url: str, events: int) -> dict[str, float]:
    """Octets an event, of the table and its indexes, and of its receipt."""
    connection = connect(admin_url, autocommit=True)
    with connection.cursor() as cursor:
        found = {}
        for what, size in (
            ("row", "pg_table_size('log.events')"),
            ("indexes", "pg_indexes_size('log.events')"),
            ("receipt", "pg_total_relation_size('log.receipts')"),
        ):
            cursor.execute(f"SELECT {size}")
            [(octets,)] = cursor.fetchall()
            found[what] = octets / events
    connection.close()
    return found


def read(url: str, streams: int, seconds: float) -> float:
    """Streams a second, each read whole, one after the other."""
    done = 0
    environment = {"LOG_DATABASE_URL": url, "LOG_SCHEMA": "log"}
    factory = Factory(Environment(name="bench", env=environment))
    recorder = factory.application_recorder()
    drawn = random.Random(streams)
    began = time.perf_counter()
    while time.perf_counter() < began + seconds:
        name = str(drawn.randrange(streams)).encode()
        stream = UUID(bytes=md5(name, usedforsecurity=False).digest())
        if len(recorder.select_events(stream)) != VERSIONS:
            raise AssertionError(f"{stream} has not {VERSIONS} events")
        done += 1
    rate = done / (time.perf_counter() - began)
    factory.close()
    return rate


def measure(server: EmbeddedPostgres, many: int, rounds: int) -> list[Line]:
    """Fills both logs first."""
    numbers = {"few": FEW, "many": many}
    urls = {}
    octets = {}
    for name, events in numbers.items():
        tell(f"filling a log with {events:,} events")
        urls[name] = new_database(server, name)
        fill(urls[name], events)
        octets[name] = sizes(urls[name], events)
        warm(urls[name])

    def reads(name: str) -> float:
        streams = str(numbers[name] // VERSIONS)
        command = [sys.executable, "-m", "tests.bench.growth", urls[name], streams, str(SECONDS)]
        return float(run_json(command)["rate"])

    contenders = {
        f"{what}, {name}": partial(how, name)
        for what, how in (
            ("append", lambda name: ours(urls[name], WRITERS, SECONDS)),
            ("read", reads),
        )
        for name in numbers
    }
    rates = interleaved(contenders, rounds)

    def line(what: str, told: str) -> Line:
        here, there = (rates[f"{what}, {name}"] for name in ("many", "few"))
        return Line(
            f"{told}, at {many:,} events", here.median, against=f"at {FEW:,}",
            theirs=there.median, target=LEAST, spread=here.spread,
        )  # fmt: skip

    return [
        line("append", f"append, {WRITERS} at once"),
        line("read", f"streams of {VERSIONS} events read"),
        *(
            Line(f"disk, {what}, at {many:,} events", octets["many"][what], "bytes an event")
            for what in octets["many"]
        ),
    ]


def main(arguments: Sequence[str]) -> None:
    """What the arguments say."""
    many = int(arguments[0]) if arguments else MANY
    rounds = int(arguments[1]) if arguments[1:] else ROUNDS
    with scratch() as folder, EmbeddedPostgres(folder / "growth") as server:
        tell("\n".join(rows(measure(server, many, rounds))))


if __name__ == "__main__":
    url, streams, seconds = sys.argv[1:4]
    sys.stdout.write(json.dumps({"rate": read(url, int(streams), float(seconds))}) + "\n")
