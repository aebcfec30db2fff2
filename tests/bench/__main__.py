"""`make bench`: everything durable, on the embedded server, in one run; a table at the end.

`python -m tests.bench [PART…] [--rounds N] [--save FILE]`; parts: append, http, folding, replay,
transport; all of them by default. `python -m tests.bench smoke` runs little of what matters most
and tells which ratios fell by more than a fifth of those in `known.json`. `questions`, `audit`,
`growth` and `soak` take long, and arguments of their own.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

from infra.embedded import EmbeddedPostgres
from projections.catalogue import PROJECTIONS
from tests.bench import (
    append,
    audit,
    company,
    folding,
    growth,
    http,
    questions,
    replay,
    soak,
    transport,
)
from tests.bench.databases import copy_of, new_database, scratch
from tests.bench.rounds import Rates, tell
from tests.bench.table import Line, fallen, load, rows, save

CONNECTIONS = 32
EVENTS = 400_000
FEW = 100_000
CARRIED = 40_000
REPLAYED = 300_000
ROUNDS = 3
KNOWN = Path(__file__).parent / "known.json"
FELL = 0.2
SIMPLEST = "customers"


_APPEND = "append, one event a command, with receipt, {} at once"
_COMMANDS = "commands over HTTP, the API alone"
_LIVE = "{}: folding live"


def _against(
    what: str, ours: Rates, against: str, theirs: Rates, target: float | None = None
) -> Line:
    return Line(
        what, ours.median, against=against, theirs=theirs.median, target=target, spread=ours.spread
    )


# ---- parts ----


def _append(folder: Path, rounds: int) -> list[Line]:
    with EmbeddedPostgres(folder / "append") as server:
        tell("append, one event a command, durable")
        rates = append.measure(new_database(server, "append"), folder, 5, rounds)
    lines = []
    for writers in append.WRITERS:
        what = _APPEND.format(writers)
        ours = rates[append.name(append.OURS, writers)]
        row = rates[append.name(append.ROW, writers)]
        lines.append(_against(what, ours, append.ROW, row, 1.0 if writers == 32 else 0.6))
        for other in append.OTHERS:
            target = 1.3 if (other, writers) == (append.UMADB, 32) else 1.0 if writers > 1 else None
            theirs = rates[append.name(other, writers)]
            lines.append(_against(what, ours, other, theirs, target))
    many = rates[append.name(append.OURS, append.MANY)]
    at_32 = rates[append.name(append.ROW, 32)]
    lines.append(_against(f"append, {append.MANY} at once", many, f"{append.ROW}, 32", at_32, 1.2))
    hundred = rates[append.name(append.ROWS, 1)]
    lines.append(_against(f"append, {append.MANY} at once", many, append.ROWS, hundred))
    return lines


def _http(folder: Path, rounds: int) -> list[Line]:
    tell(f"commands over HTTP, {CONNECTIONS} connections")
    measured = http.measure(folder, CONNECTIONS, 6, rounds)
    rates = measured.rates
    what = _COMMANDS
    return [
        _against(what, rates[http.API], http.EMPTY, rates[http.EMPTY], 0.45),
        _against(what, rates[http.API], http.STOCK, rates[http.STOCK], 5.0),
        Line(f"{what}, p99", measured.median_p99(http.API), "ms", target=60, at_most=True),
        Line(f"{what}, memory", measured.megabytes, "MB", target=250, at_most=True),
        _against(
            "commands over HTTP, the whole product in one process", rates[http.PRODUCT],
            http.EMPTY, rates[http.EMPTY],
        ),
        Line("stock, p99", measured.median_p99(http.STOCK), "ms"),
        Line(
            "commands in bulk", rates[http.BULK].median, target=12_000,
            spread=rates[http.BULK].spread,
        ),
        *(
            Line(
                f"commit to visible, embedded, {http.VISIBLE_RATE} commands/s, {name}",
                statistics.median(found), "ms", target=target, at_most=True,
            )
            for name, found, target in (
                ("p50", measured.seen_p50, 20.0), ("p99", measured.seen_p99, 100.0),
            )
        ),
    ]  # fmt: skip


def _folding(folder: Path, rounds: int) -> list[Line]:
    with EmbeddedPostgres(folder / "folding") as server:
        tell(f"folding, about {EVENTS:,} events")
        company.fill(new_database(server, "folding"), EVENTS)
        rates, memory = folding.measure(server, "folding", folder, rounds)
    lines = []
    runner, copy = rates[folding.RUNNER], rates[folding.COPY]
    for name in PROJECTIONS:
        live, rebuilt = rates[f"{name}, live"], rates[f"{name}, shared"]
        lines += [
            Line(_LIVE.format(name), live.median, target=30_000, spread=live.spread),
            _against(_LIVE.format(name), live, folding.RUNNER, runner),
            _against(_LIVE.format(name), live, folding.COPY, copy),
            Line(f"{name}: memory of it", memory[f"{name}, live"], "MB", target=200, at_most=True),
            Line(
                f"{name}: rebuild, two processes", rebuilt.median, spread=rebuilt.spread,
                target=100_000 if name == SIMPLEST else 50_000,
            ),
            _against(f"{name}: rebuild, two processes", rebuilt, folding.COPY, copy, 0.25),
        ]  # fmt: skip
    return lines


def _replay(folder: Path, rounds: int) -> list[Line]:
    with EmbeddedPostgres(folder / "replay") as server:
        tell(f"replay, about {REPLAYED:,} events")
        url = new_database(server, "replay")
        company.fill(url, REPLAYED)
        replay.lengthen(url)
        return replay.measure(url, rounds)


def _transport(folder: Path, rounds: int) -> list[Line]:
    with EmbeddedPostgres(folder / "transport") as server:
        tell(f"through Kafka, about {CARRIED:,} events")
        url = new_database(server, "carried")
        company.fill(url, CARRIED)
        measured = transport.measure(
            folder,
            url,
            copy=lambda: copy_of(server, "carried"),
            empty=lambda: new_database(server, f"empty_{uuid4().hex[:8]}"),
            rounds=rounds,
        )
    what = f"through Kafka, {transport.RATE} commands/s: commit to visible"
    ours, client = (measured.rates[name] for name in (transport.OURS, transport.CLIENT))
    return [
        _against("through Kafka: relay and one projector", ours, transport.CLIENT, client, 0.5),
        Line(f"{what}, p50", measured.median_p50, "ms", target=100, at_most=True),
        Line(f"{what}, p99", measured.median_p99, "ms", target=500, at_most=True),
        *(
            Line(f"through Kafka: memory, {name}", megabytes, "MB", target=200, at_most=True)
            for name, megabytes in measured.megabytes.items()
        ),
    ]


PARTS: dict[str, Callable[[Path, int], list[Line]]] = {
    "append": _append,
    "http": _http,
    "folding": _folding,
    "replay": _replay,
    "transport": _transport,
}

LONG: dict[str, Callable[[list[str]], None]] = {
    "audit": audit.main,
    "growth": growth.main,
    "questions": questions.main,
    "soak": soak.main,
}


# ---- runs ----


def main() -> None:
    """What the arguments say."""
    if sys.argv[1:2] and sys.argv[1] in LONG:
        LONG[sys.argv[1]](sys.argv[2:])
        return
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join((*PARTS, "smoke")))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--save", type=Path, help="the lines, as JSON")
    given = parser.parse_args()
    smoke = given.parts == ["smoke"]
    if smoke and not KNOWN.exists():
        parser.error(f"there is nothing to compare with: a whole run with --save {KNOWN} first")
    if not smoke and (unknown := set(given.parts) - PARTS.keys()):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    with scratch() as folder:
        if smoke:
            lines = _smoke(folder)
        else:
            parts = given.parts or list(PARTS)
            lines = [line for part in parts for line in PARTS[part](folder, given.rounds)]
    load_now = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    tell(f"\n{os.cpu_count()} cores, Python {platform.python_version()}, load {load_now}\n")
    tell("\n".join(rows(lines)))
    if given.save:
        save(lines, given.save)
    if smoke:
        _judge(lines)


def _smoke(folder: Path) -> list[Line]:
    """Ratios that need no more than two minutes together, named as the whole run names them."""
    rounds, seconds = 3, 2
    with EmbeddedPostgres(folder / "append") as server:
        url = new_database(server, "append")
        rates = append.measure(url, folder, seconds, rounds, numbers=[CONNECTIONS], others=False)
        folded = new_database(server, "folding")
        company.fill(folded, FEW)
        live, copied = folding.once_each(folded, folder)
    measured = http.measure(folder, CONNECTIONS, seconds, rounds, others=False)
    return [
        _against(
            _APPEND.format(CONNECTIONS), rates[append.name(append.OURS, CONNECTIONS)],
            append.ROW, rates[append.name(append.ROW, CONNECTIONS)],
        ),
        _against(_COMMANDS, measured.rates[http.API], http.EMPTY, measured.rates[http.EMPTY]),
        *(_against(_LIVE.format(name), rate, folding.COPY, copied) for name, rate in live.items()),
    ]  # fmt: skip


def _judge(lines: list[Line]) -> None:
    worse = fallen(lines, load(KNOWN), FELL)
    for now, before in worse:
        tell(f"fell: {now.what}, against {now.against}: {before.ratio:.2f} before, {now.ratio:.2f}")
    if worse:
        raise SystemExit(1)
    tell(f"none of {len(lines)} ratios fell by more than {FELL:.0%}")


if __name__ == "__main__":
    main()
