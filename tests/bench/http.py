"""Commands over HTTP, half creations and half changes, against an empty handler and what one writes
in an afternoon with the library alone; in bulk; and how soon they are seen."""

from __future__ import annotations

import json
import os
import re
import signal
import statistics
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from infra.embedded import EmbeddedPostgres
from tests.bench import append, peers
from tests.bench.rounds import ROOT, Rates, interleaved, peak, run_json, tell

EMPTY = "an empty async handler"
STOCK = "FastAPI and `eventsourcing`, stock"
API = "crm-ledger, API alone"
PRODUCT = "crm-ledger, the whole product in one process"
BULK = "crm-ledger, API alone, in bulk"

BULK_CONNECTIONS = 2
VISIBLE_RATE = 500
"""Commands a second while it is measured how soon they are seen."""
_STARTED = r"^(\d+)$"


@dataclass(slots=True)
class Measured:
    """Rates of each contender, and the latencies of every round in milliseconds; of commands until
    they are seen in a read model of the whole product; the largest memory of the API."""

    rates: dict[str, Rates] = field(default_factory=dict)
    p50: dict[str, list[float]] = field(default_factory=dict)
    p99: dict[str, list[float]] = field(default_factory=dict)
    seen_p50: list[float] = field(default_factory=list)
    seen_p99: list[float] = field(default_factory=list)
    megabytes: float = 0.0

    def median_p99(self, name: str) -> float:
        """The median of the rounds' 99th percentiles, in milliseconds."""
        return statistics.median(self.p99[name])


@contextmanager
def _process(
    command: list[str], environment: dict[str, str], port: str
) -> Iterator[tuple[int, int]]:
    """The port that it tells, and the number of the process."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
    )
    try:
        for line in process.stdout or ():
            found = re.search(port, line)
            if found:
                break
        else:
            raise RuntimeError("the server ended before it listened")
        yield int(found[1]), process.pid
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def customer(port: int, token: str) -> str:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/customers",
        data=json.dumps({"name": "Acme"}).encode(),
        headers={
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
            "Idempotency-Key": uuid4().hex,
        },
    )
    with urllib.request.urlopen(request) as response:
        return str(json.load(response)["id"])


def measure(
    folder: Path, connections: int, seconds: float, rounds: int, *, others: bool = True
) -> Measured:
    """Requests a second over so many connections, each contender once a round; without `others`
    only of the API alone and of the empty handler."""
    measured = Measured()
    with ExitStack() as stack:

        def begun(command: list[str], environment: dict[str, str], port: str) -> tuple[int, int]:
            return stack.enter_context(_process(command, environment, port))

        def load(name: str, port: int, mode: str, environment: dict[str, str]) -> float:
            command = [sys.executable, "-m", "tests.bench.http_load"]
            result = run_json(
                [*command, str(port), str(connections), str(seconds), mode], environment
            )
            measured.p50.setdefault(name, []).append(result["p50"])
            measured.p99.setdefault(name, []).append(result["p99"])
            return float(result["rate"])

        def known(port: int, data_dir: Path) -> dict[str, str]:
            token = (data_dir / "token").read_text().strip()
            return {"TOKEN": token, "CUSTOMER": customer(port, token)}

        def bulk() -> float:
            command = [sys.executable, "-m", "tests.bench.bulk", str(api_port)]
            command += [str(BULK_CONNECTIONS), str(seconds)]
            return float(run_json(command, known(api_port, api))["rate"])

        api, product = folder / "api", folder / "product"
        server = [sys.executable, "-m", "tests.bench.http_server"]
        empty_port, _ = begun([*server, "empty"], {}, _STARTED)
        api_port, api_process = begun([*server, "api"], {"CRM_DATA_DIR": str(api)}, _STARTED)
        nobody = {"TOKEN": "x" * 300, "CUSTOMER": str(uuid4())}
        contenders = {
            EMPTY: lambda: load(EMPTY, empty_port, "empty", nobody),
            API: lambda: load(API, api_port, "commands", known(api_port, api)),
        }
        if not others:
            measured.rates = interleaved(contenders, rounds)
            return measured
        database = stack.enter_context(EmbeddedPostgres(folder / "stock"))
        stock = peers.python(
            "stock", "eventsourcing[postgres]>=9.5,<9.6", "fastapi", "uvicorn[standard]"
        )
        stock_port, _ = begun(
            [str(stock), str(peers.HERE / "http_stock.py")],
            append.Place.of(database.admin_url).library(connections),
            _STARTED,
        )
        product_port, _ = begun(
            [str(Path(sys.executable).parent / "crm"), "up"],
            {"CRM_DATA_DIR": str(product), "CRM_PORT": "0"},
            r"listens on http://127\.0\.0\.1:(\d+)",
        )
        contenders |= {
            STOCK: lambda: load(STOCK, stock_port, "commands", nobody),
            BULK: bulk,
            PRODUCT: lambda: load(PRODUCT, product_port, "commands", known(product_port, product)),
        }
        measured.rates = interleaved(contenders, rounds)
        measured.megabytes = peak(api_process)
        joined = stack.enter_context(EmbeddedPostgres(product))
        for number in range(1, rounds + 1):
            seen = _until_seen(joined.admin_url, product_port, product, seconds)
            measured.seen_p50.append(seen["p50"])
            measured.seen_p99.append(seen["p99"])
            tell(
                f"  round {number}: seen after {seen['p50']:.0f} ms (p50), {seen['p99']:.0f} ms"
                f" (p99) at {seen['rate']:.0f} commands/s"
            )
    return measured


def _until_seen(url: str, port: int, data_dir: Path, seconds: float) -> dict[str, float]:
    token = (data_dir / "token").read_text().strip()
    command = [sys.executable, "-m", "tests.bench.visible", str(port), url, "funnel"]
    known = {"TOKEN": token, "CUSTOMER": customer(port, token)}
    seen = run_json([*command, str(VISIBLE_RATE), str(seconds)], known)
    if seen["unseen"]:
        raise RuntimeError(f"{seen['unseen']} commands were never seen")
    return seen
