"""The three questions at any date, as known at any date, over HTTP: `python -m tests.bench
questions [--deals N]`.

A log of N deals and of a tenth of them, each carried into the read models by rebuilds; then every
question is asked at random moments, of an API process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

from infra.embedded import EmbeddedPostgres
from infra.migrations import migrate
from infra.postgres import connect
from projections.catalogue import PROJECTIONS
from tests.bench import five_years, folding
from tests.bench.five_years import END, START, YEARS
from tests.bench.rounds import ROOT, peak, tell

DEALS = 1_000_000
TIMES = 20
MEMORY_MB = 500


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, how often it is asked, and how many milliseconds it may take. `moments`: at
    random times, or at the present. `cold`: of each asking another answer, which none was before.
    """

    name: str
    path: str
    limit: float
    parameters: dict[str, str] = field(default_factory=dict)
    times: int = TIMES
    moments: bool = True


QUESTIONS = (
    Asked("funnel", "/v1/funnel", 300),
    Asked("distribution by level", "/v1/lifecycle", 300, {"classification": "level"}),
    Asked("distribution by path", "/v1/lifecycle", 300, {"classification": "path"}),
    Asked("attribution, last", "/v1/attribution", 300, {"model": "last"}),
    Asked("attribution, u", "/v1/attribution", 300, {"model": "u"}),
    Asked(
        "attribution, linear, part of a year",
        "/v1/attribution",
        300,
        {"model": "linear", "from": "2022-02-10", "to": "2022-11-20"},
    ),
    Asked("forecast, by definition, at present", "/v1/forecast", 1_000, {}, TIMES, False),
    Asked(
        "forecast, learned, at present", "/v1/forecast", 1_000, {"timing": "learned"}, TIMES, False
    ),
    Asked("forecast, by definition", "/v1/forecast", 1_000),
    Asked("forecast, aged", "/v1/forecast", 1_000, {"timing": "aged"}),
    Asked("forecast, learned", "/v1/forecast", 1_000, {"timing": "learned"}),
    Asked("attribution, markov, cold", "/v1/attribution", 10_000, {"model": "markov"}, 1, False),
    Asked("attribution, markov, again", "/v1/attribution", 300, {"model": "markov"}, TIMES, False),
    Asked("attribution, shapley, cold", "/v1/attribution", 10_000, {"model": "shapley"}, 1, False),
    Asked(
        "attribution, shapley, again", "/v1/attribution", 300, {"model": "shapley"}, TIMES, False
    ),
    Asked(
        "backtest of 24 months",
        "/v1/forecast/backtest",
        20_000,
        {"months": "24", "basis": "effective"},
        1,
        False,
    ),
)


@dataclass(slots=True)
class Measured:
    """Milliseconds of each question, of those that the API answers."""

    deals: int
    events: int
    seconds: dict[str, float] = field(default_factory=dict)
    """Of the rebuild of each read model."""
    answers: dict[str, list[float]] = field(default_factory=dict)
    megabytes: float = 0.0


def main(arguments: Sequence[str]) -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench questions")
    parser.add_argument("--deals", type=int, default=DEALS)
    parser.add_argument("--folder", type=Path, help="keeps what was filled, and goes on from it")
    parser.add_argument("--as-is", action="store_true", help="without rebuilds: they are filled")
    given = parser.parse_args(arguments)
    folder = given.folder or Path(f"/tmp/crm-bench-questions-{os.getpid()}")
    sizes = sorted({max(1, given.deals // 10), given.deals})
    measured = [_measure(folder / str(deals), deals, given.as_is) for deals in sizes]
    tell("\n".join(table(measured)))


def table(measured: Sequence[Measured]) -> list[str]:
    """The figures side by side, smallest log first."""
    largest = measured[-1]
    heads = "".join(f" p50 ms, {m.deals:,} deals | longest |" for m in measured)
    lines = [f"| question |{heads} target ms | |", "|" + " --- |" * (3 + 2 * len(measured))]
    for asked in QUESTIONS:
        if asked.name not in largest.answers:
            lines.append(f"| {asked.name} |" + " |" * (2 * len(measured)) + " | not answered |")
            continue
        figures = "".join(
            f" {statistics.median(ms):,.0f} | {max(ms):,.0f} |"
            for m in measured
            if (ms := m.answers.get(asked.name, [float("nan")]))
        )
        met = "met" if statistics.median(largest.answers[asked.name]) < asked.limit else "NOT MET"
        lines.append(f"| {asked.name} |{figures} < {asked.limit:,.0f} | {met} |")
    memory = "".join(f" {m.megabytes:,.0f} | |" for m in measured)
    met = "met" if largest.megabytes < MEMORY_MB else "NOT MET"
    lines.append(f"| memory of the API, MB |{memory} < {MEMORY_MB} | {met} |")
    for name in largest.seconds:
        rates = "".join(
            f" {m.events / m.seconds[name]:,.0f} | |" if name in m.seconds else " | |"
            for m in measured
        )
        lines.append(f"| rebuild of {name}, events/s |{rates} | |")
    lines.append("| events |" + "".join(f" {m.events:,} | |" for m in measured) + " | |")
    return lines


def _measure(folder: Path, deals: int, as_is: bool) -> Measured:
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    folder.parent.chmod(0o755)
    with EmbeddedPostgres(folder) as server:
        events = _filled(server, deals)
        measured = Measured(deals, events)
        for name in () if as_is else PROJECTIONS:
            rate = folding.once(server.admin_url, name, "shared")["rate"]
            measured.seconds[name] = events / rate
            tell(f"  {name}: {rate:,.0f} events/s")
        if not as_is:
            _vacuum(server.admin_url)
        with _api(folder) as (port, process):
            token = (folder / "token").read_text().strip()
            _timed(port, token, "/v1/pipelines", {})  # the first connections, the first imports
            for asked in QUESTIONS:
                _ask(measured, asked, port, token)
            measured.megabytes = peak(process)
    return measured


def _filled(server: EmbeddedPostgres, deals: int) -> int:
    """The events in the log, which is filled if it is empty."""
    migrate(server.admin_url, member="crm")
    connection = connect(server.admin_url)
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT position FROM log.head")
        events = int(cursor.fetchall()[0][0])
    connection.close()
    if events:
        return events
    tell(f"making up {deals:,} deals")
    return five_years.fill(server.admin_url, deals)


def _vacuum(admin_url: str) -> None:
    """As the server does by itself after a while."""
    connection = connect(admin_url, autocommit=True)
    with connection.cursor() as cursor:
        for projection in PROJECTIONS.values():
            for name in (*projection.tables(), *projection.sums()):
                cursor.execute(f"VACUUM ANALYZE read.{name}")
    connection.close()


@contextmanager
def _api(folder: Path) -> Iterator[tuple[int, int]]:
    """(port, process id) of an API alone."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.http_server", "api"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
        env={**os.environ, "CRM_DATA_DIR": str(folder)},
    )
    try:
        ports = (line for line in process.stdout or () if line.strip().isdecimal())
        yield int(next(ports)), process.pid
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def _ask(measured: Measured, asked: Asked, port: int, token: str) -> None:
    moments = random.Random(17)
    found = []
    for _ in range(asked.times):
        parameters = dict(asked.parameters)
        if asked.moments:
            as_of = START + YEARS * moments.random()
            parameters["as_of"] = min(as_of, END).isoformat()
            parameters["known_at"] = str(moments.randint(1, measured.events))
        try:
            found.append(_timed(port, token, asked.path, parameters))
        except urllib.error.HTTPError as error:
            tell(f"  {asked.name}: {error.code} {error.read()[:200]!r}")
            return
    measured.answers[asked.name] = found
    tell(f"  {asked.name}: {statistics.median(found):,.1f} ms, at most {max(found):,.1f}")


def _timed(port: int, token: str, path: str, parameters: dict[str, str]) -> float:
    """Milliseconds until the answer is there."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}?{urlencode(parameters)}",
        headers={"Authorization": f"Bearer {token}"},
    )
    started = time.perf_counter()
    with urllib.request.urlopen(request, timeout=300) as response:
        json.load(response)
    return (time.perf_counter() - started) * 1000
