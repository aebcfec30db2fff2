"""`make bench`: everything durable, on the embedded server, in one run; a table at the end."""

from __future__ import annotations

import os
import platform
import tempfile
from pathlib import Path

from infra.cluster import DATABASE
from infra.embedded import EmbeddedPostgres
from infra.migrations import migrate
from infra.postgres import connect
from tests.bench import append, company, folding, http
from tests.bench.rounds import tell

WRITERS = 32
EVENTS = 200_000
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


def _row(what: str, ours: float, against: str, theirs: float, target: float) -> str:
    ratio = ours / theirs
    met = "met" if ratio >= target else "NOT MET"
    return f"| {what} | {ours:,.0f} | {against} | {theirs:,.0f} | {ratio:.2f} | {target} | {met} |"


def main() -> None:
    """All measurements."""
    table = ["| what | ours /s | against | theirs /s | ratio | target | |", "|" + " --- |" * 7]
    with tempfile.TemporaryDirectory(prefix="crm-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
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
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    tell(f"\n{os.cpu_count()} cores, Python {platform.python_version()}, load {load}\n")
    tell("\n".join(table))


if __name__ == "__main__":
    main()
