"""`make bench`: everything durable, on the embedded server, in one run; a table at the end."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from pathlib import Path
from uuid import uuid4

from infra.cluster import DATABASE
from infra.embedded import EmbeddedPostgres
from infra.migrations import migrate
from infra.postgres import connect
from tests.bench import append, audit, company, folding, http, questions, replay, transport
from tests.bench.rounds import tell

WRITERS = 32
EVENTS = 200_000
CARRIED = 40_000
REPLAYED = 300_000
ROUNDS = 3


def _database(server: EmbeddedPostgres, name: str) -> str:
    """The superuser's address of a new database with the product's schemas."""
    connection = connect(server.admin_url, autocommit=True)
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
    connection.close()
    url = server.admin_url.replace(f"/{DATABASE}?", f"/{name}?")
    migrate(url)
    return url


def _copy(server: EmbeddedPostgres, name: str) -> str:
    """The superuser's address of a copy of a database that nobody is connected to."""
    copied = f"{name}_{uuid4().hex[:8]}"
    connection = connect(server.admin_url, autocommit=True)
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {copied} TEMPLATE {name}")
    connection.close()
    return server.admin_url.replace(f"/{DATABASE}?", f"/{copied}?")


def _transport(folder: Path, rounds: int) -> list[str]:
    """Rows of the table about events through Kafka."""
    with EmbeddedPostgres(folder / "transport") as server:
        tell(f"through Kafka, about {CARRIED:,} events")
        url = _database(server, "carried")
        company.fill(url, CARRIED)
        measured = transport.measure(
            folder,
            url,
            copy=lambda: _copy(server, "carried"),
            empty=lambda: _database(server, f"empty_{uuid4().hex[:8]}"),
            rounds=rounds,
        )
    rates = measured.rates
    rows = [
        _row(
            transport.OURS,
            rates[transport.OURS].median,
            transport.CLIENT,
            rates[transport.CLIENT].median,
            0.5,
        )
    ]
    for what, value, target in (
        ("p50", measured.median_p50, 100),
        ("p99", measured.median_p99, 500),
    ):
        met = "met" if value < target else "NOT MET"
        rows.append(f"| commit to visible, {what} ms | {value:,.0f} | | | | < {target} | {met} |")
    for name, value in measured.megabytes.items():
        met = "met" if value < 200 else "NOT MET"
        rows.append(f"| {name}, MB | {value:,.0f} | | | | < 200 | {met} |")
    return rows


def _replay(folder: Path, rounds: int) -> list[str]:
    """Rows of the table about history for auditors."""
    with EmbeddedPostgres(folder / "replay") as server:
        tell(f"replay, about {REPLAYED:,} events")
        url = _database(server, "replay")
        company.fill(url, REPLAYED)
        replay.lengthen(url)
        return replay.measure(url, rounds)


def _row(what: str, ours: float, against: str, theirs: float, target: float) -> str:
    ratio = ours / theirs
    met = "met" if ratio >= target else "NOT MET"
    return f"| {what} | {ours:,.0f} | {against} | {theirs:,.0f} | {ratio:.2f} | {target} | {met} |"


def main() -> None:
    """All measurements but those of `questions` and `audit`; only those through Kafka, or of
    history, if `transport` or `replay` is the argument."""
    if sys.argv[1:2] == ["audit"]:
        audit.main(sys.argv[2:])
        return
    if sys.argv[1:2] == ["questions"]:
        questions.main(sys.argv[2:])
        return
    table = ["| what | ours /s | against | theirs /s | ratio | target | |", "|" + " --- |" * 7]
    with tempfile.TemporaryDirectory(prefix="crm-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        if sys.argv[1:] == ["transport"]:
            tell("\n".join([*table, *_transport(folder, ROUNDS)]))
            return
        if sys.argv[1:] == ["replay"]:
            tell("\n".join([*table, *_replay(folder, ROUNDS)]))
            return
        with EmbeddedPostgres(folder / "append") as server:
            tell(f"append, one event a command, {WRITERS} writers")
            rates = append.measure(_database(server, "append"), WRITERS, 5, ROUNDS)
            ours = rates[append.OURS].median
            for peer, target in ((append.LIBRARY, 6.0), (append.PGBENCH, 0.8)):
                table.append(_row("append", ours, peer, rates[peer].median, target))
            tell(f"folding, about {EVENTS:,} events")
            url = _database(server, "folding")
            company.fill(url, EVENTS)
            folded, memory = folding.measure(url, ROUNDS)
        tell(f"commands over HTTP, {WRITERS} connections")
        measured = http.measure(folder, WRITERS, 6, ROUNDS)
        empty = measured.rates[http.EMPTY].median
        table.append(_row(http.API, measured.rates[http.API].median, http.EMPTY, empty, 0.35))
        # One process does the work of several here: told, without a target.
        together = measured.rates[http.PRODUCT].median
        ratio = f"{together / empty:.2f}"
        table.append(
            f"| {http.PRODUCT} | {together:,.0f} | {http.EMPTY} | {empty:,.0f} | {ratio} | | |"
        )
        for what, fold in folded.items():
            met = "met" if fold.median >= 20_000 else "NOT MET"
            table.append(f"| {what} | {fold.median:,.0f} | | | | 20,000/s | {met} |")
            met = "met" if memory[what] < 300 else "NOT MET"
            table.append(f"| {what}, MB | {memory[what]:,.0f} | | | | < 300 | {met} |")
        for contender in (http.API, http.PRODUCT):
            p99 = measured.median_p99(contender)
            met = "met" if p99 < 80 else "NOT MET"
            table.append(f"| {contender}, p99 ms | {p99:,.1f} | | | | < 80 | {met} |")
        table += _replay(folder, ROUNDS)
        table += _transport(folder, ROUNDS)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    tell(f"\n{os.cpu_count()} cores, Python {platform.python_version()}, load {load}\n")
    tell("\n".join(table))


if __name__ == "__main__":
    main()
