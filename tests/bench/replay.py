"""The log as lines for auditors, and the state of a long stream: on one core, in one process.

As a program: `python -m tests.bench.replay URL lines|state` does one and prints
{"rate", "megabytes"} or {"milliseconds"}.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

from infra.history import answers, states
from infra.history.lines import Lines
from infra.history.reading import Reading, span
from infra.history.texts import Marked
from infra.postgres import Pool, connect
from tests.bench.rounds import Rates, peak, run_json, tell
from tests.bench.table import Line

LONG = UUID("00000000-0000-4000-8000-000000001000")
VERSIONS = 1_000
_COLUMNS = """position, stream_id, version, topic, class_version, partition_key, occurred_at,
    recorded_at, actor, command_id, correlation_id, state"""
_REGISTERED = '{"kind":"company","name":"Long","identified":true,"attributes":{}}'
_ORDERED = '{"order_id":"#","amount":{"value":"#.00","currency":"CNY"}}'
_ASKED = (1, 10, 250, 500, 750, 999, 1_000)


def lengthen(admin_url: str) -> None:
    """Adds a customer with 1,000 events, mostly orders, to the end of the log."""
    connection = connect(admin_url)
    with connection, connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO log.events ({_COLUMNS}) SELECT head.position + n, %(id)s, n,"
            "  CASE n WHEN 1 THEN 'crm.customer.registered' ELSE 'crm.customer.order-placed' END,"
            "  1, %(id)s, head.recorded_at, head.recorded_at, 'bench', gen_random_uuid(),"
            "  gen_random_uuid(), convert_to("
            "    CASE n WHEN 1 THEN %(registered)s ELSE replace(%(ordered)s, '#', n::text) END,"
            "    'UTF8')"
            " FROM log.head, generate_series(1, %(versions)s) AS n",
            {"id": LONG, "versions": VERSIONS, "registered": _REGISTERED, "ordered": _ORDERED},
        )
        cursor.execute("UPDATE log.head SET position = position + %s", (VERSIONS,))
    connection.close()


def _lines(pool: Pool) -> dict[str, float]:
    where = span(pool)
    reading, lines = Reading(pool, where), Lines(Marked(lambda subjects: set()))
    size = 0
    cpu, began = time.process_time(), time.perf_counter()
    while not reading.ended:
        size += len(lines.of(reading.next()))
    return {
        "rate": where.end / (time.process_time() - cpu),
        "through": where.end / (time.perf_counter() - began),
        "bytes": size,
        "megabytes": peak(),
    }


def _state(pool: Pool) -> dict[str, float]:
    """Of the slowest version, and of the slowest date; each the median of five."""
    now = datetime.now(UTC) + timedelta(days=1)
    texts = Marked(lambda subjects: set())
    slowest = {}
    for what, whens in (
        ("version", [states.AfterVersion(version) for version in _ASKED]),
        ("as_of", [states.AsOf(now)]),
    ):
        found = []
        for when in whens:
            times = []
            for _ in range(5):
                began = time.perf_counter()
                answers.told_state(states.state(pool, LONG, when), texts)
                times.append((time.perf_counter() - began) * 1000)
            found.append(statistics.median(times))
        slowest[what] = max(found)
    began = time.perf_counter()
    states.differences(pool, LONG, states.AfterVersion(0), states.AfterVersion(VERSIONS))
    return {**slowest, "difference": (time.perf_counter() - began) * 1000}


def measure(url: str, rounds: int) -> list[Line]:
    """For a log that `lengthen` was called on."""
    rates = Rates("replay")
    for _ in range(rounds):
        found = run_json([sys.executable, "-m", "tests.bench.replay", url, "lines"])
        rates.rounds.append(found["rate"])
        tell(
            f"  replay: {found['rate']:,.0f} events a second of CPU, {found['through']:,.0f} by the"
            f" clock, {found['bytes'] / 1e6:,.0f} MB, {found['megabytes']:,.0f} MB of memory"
        )
    state = run_json([sys.executable, "-m", "tests.bench.replay", url, "state"])
    return [
        Line("replay as lines, a second of CPU", rates.median, target=50_000, spread=rates.spread),
        *(
            Line(
                f"state of {VERSIONS:,} events by {what}",
                state[what],
                "ms",
                target=30,
                at_most=True,
            )
            for what in ("version", "as_of")
        ),
        Line(f"difference over {VERSIONS:,} events", state["difference"], "ms"),
    ]


def main() -> None:
    """One measurement."""
    url, what = sys.argv[1:3]
    with Pool(url, size=1, role="crm_reader", search_path=["log"]) as pool:
        found = _lines(pool) if what == "lines" else _state(pool)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
