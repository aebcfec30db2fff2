"""What the processes hold while commands come in for an hour: API, relay, and a projector.

`python -m tests.bench soak [MINUTES [RATE]]`; 60 and 100 commands a second by default.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from deploy.kafka.broker import Broker
from infra.embedded import EmbeddedPostgres
from tests.bench.databases import scratch
from tests.bench.http import customer
from tests.bench.rounds import ROOT, peak, resident, tell
from tests.bench.table import Line, rows
from tests.bench.transport import crm, environment_of, port_of

READ_MODEL = "funnel"
"""The largest."""
MINUTES = 60
RATE = 100
"""Commands a second."""
CONNECTIONS = 8
EVERY = 5.0
"""Seconds between two looks."""
FLAT = 1.05
"""What the last tenth of the time may need of what the second tenth did."""


def measure(folder: Path, minutes: float, rate: float) -> list[Line]:
    """Of each process the memory in the second and in the last tenth of the time, and its most.

    In the first tenth they take what they need: states of deals, caches.
    """
    with ExitStack() as stack:
        server = stack.enter_context(EmbeddedPostgres(folder / "postgres"))
        broker = stack.enter_context(Broker(folder / "kafka"))
        url = server.admin_url
        environment = environment_of(broker.bootstrap, "soak", url, folder)
        api, log = stack.enter_context(crm(environment, folder, "api"))
        port = port_of(log)
        relay, _ = stack.enter_context(crm(environment, folder, "relay"))
        projector, _ = stack.enter_context(crm(environment, folder, "project", READ_MODEL))
        token = (folder / "crm" / "token").read_text().strip()
        command = [sys.executable, "-m", "tests.bench.http_load", port, str(CONNECTIONS)]
        command += [str(minutes * 60), "commands", str(rate)]
        known = {"TOKEN": token, "CUSTOMER": customer(int(port), token)}
        load = stack.enter_context(
            subprocess.Popen(command, env={**os.environ, **known}, cwd=ROOT, text=True)
        )
        processes = {"API": api.pid, "relay": relay.pid, "projector": projector.pid}
        seen: dict[str, list[float]] = {name: [] for name in processes}
        while load.poll() is None:
            for name, number in processes.items():
                seen[name].append(resident(number))
            if len(seen["API"]) % 60 == 0:
                tell(
                    "  " + ", ".join(f"{name} {found[-1]:,.0f} MB" for name, found in seen.items())
                )
            time.sleep(EVERY)
        if load.returncode:
            raise RuntimeError("the load failed")
        lines = []
        for name, found in seen.items():
            tenth = max(1, len(found) // 10)
            early = statistics.median(found[tenth : 2 * tenth])
            late = statistics.median(found[-tenth:])
            most = 250 if name == "API" else 200
            what = f"{name}: memory, {minutes:g} minutes at {rate:g} commands/s"
            lines += [
                Line(what, peak(processes[name]), "MB", target=most, at_most=True),
                Line(
                    f"{what}, at the end",
                    late,
                    "MB",
                    against="its second tenth",
                    theirs=early,
                    target=FLAT,
                    at_most=True,
                ),
            ]
        return lines


def main(arguments: list[str]) -> None:
    """What the arguments say."""
    minutes = float(arguments[0]) if arguments else MINUTES
    rate = float(arguments[1]) if arguments[1:] else RATE
    with scratch() as folder:
        tell("\n".join(rows(measure(folder, minutes, rate))))
