"""Commands over HTTP, half creations and half changes, against an empty handler."""

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
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from tests.bench.rounds import ROOT, Rates, interleaved, run_json

EMPTY = "an empty async handler"
API = "crm-ledger, API alone"
PRODUCT = "crm-ledger, the whole product in one process"


@dataclass(slots=True)
class Measured:
    """Rates of each contender, and the latencies of every round in milliseconds."""

    rates: dict[str, Rates] = field(default_factory=dict)
    p50: dict[str, list[float]] = field(default_factory=dict)
    p99: dict[str, list[float]] = field(default_factory=dict)

    def median_p99(self, name: str) -> float:
        """The median of the rounds' 99th percentiles, in milliseconds."""
        return statistics.median(self.p99[name])


@contextmanager
def _process(command: list[str], environment: dict[str, str], port: str) -> Iterator[int]:
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
        yield int(found[1])
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def _customer(port: int, token: str) -> str:
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


def measure(folder: Path, connections: int, seconds: float, rounds: int) -> Measured:
    """Requests a second over so many connections, each contender once a round."""
    measured = Measured()
    server = [sys.executable, "-m", "tests.bench.http_server"]
    api = {"CRM_DATA_DIR": str(folder / "api")}
    product = {"CRM_DATA_DIR": str(folder / "product"), "CRM_PORT": "0"}
    up = [str(Path(sys.executable).parent / "crm"), "up"]
    with (
        _process([*server, "empty"], {}, r"^(\d+)$") as empty_port,
        _process([*server, "api"], api, r"^(\d+)$") as api_port,
        _process(up, product, r"listens on http://127\.0\.0\.1:(\d+)") as product_port,
    ):

        def load(name: str, port: int, mode: str, environment: dict[str, str]) -> float:
            command = [sys.executable, "-m", "tests.bench.http_load"]
            result = run_json(
                [*command, str(port), str(connections), str(seconds), mode], environment
            )
            measured.p50.setdefault(name, []).append(result["p50"])
            measured.p99.setdefault(name, []).append(result["p99"])
            return float(result["rate"])

        def commands(name: str, port: int, data_dir: Path) -> float:
            token = (data_dir / "token").read_text().strip()
            environment = {"TOKEN": token, "CUSTOMER": _customer(port, token)}
            return load(name, port, "commands", environment)

        nobody = {"TOKEN": "x" * 300, "CUSTOMER": str(uuid4())}
        measured.rates = interleaved(
            {
                EMPTY: lambda: load(EMPTY, empty_port, "empty", nobody),
                API: lambda: commands(API, api_port, folder / "api"),
                PRODUCT: lambda: commands(PRODUCT, product_port, folder / "product"),
            },
            rounds,
        )
    return measured
