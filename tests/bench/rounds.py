"""Interleaved rounds, medians, ratios; programs that are run as processes of their own."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


@dataclass(slots=True)
class Rates:
    """What one contender did in each round, per second."""

    name: str
    rounds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    @property
    def spread(self) -> str:
        return f"{min(self.rounds):,.0f}-{max(self.rounds):,.0f}"


def interleaved(contenders: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, Rates]:
    """Each contender once a round, round after round, so that a noisy spell hits all alike."""
    rates = {name: Rates(name) for name in contenders}
    for number in range(1, rounds + 1):
        for name, run in contenders.items():
            rate = run()
            rates[name].rounds.append(rate)
            tell(f"  round {number}: {name}: {rate:,.0f}/s")
    return rates


def tell(line: str) -> None:
    """A line for whoever watches."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def run_json(
    command: Sequence[str | Path], environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Run a program to its end; the last line it prints is JSON."""
    result = subprocess.run(
        [str(part) for part in command],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        timeout=900,
    )
    answer: dict[str, Any] = json.loads(result.stdout.strip().splitlines()[-1])
    return answer


def peak(process: int | str = "self") -> float:
    """The largest memory of a process so far, in megabytes.

    Not `getrusage`, which starts with what the process was before it became this program.
    """
    return _status(process, "VmHWM")


def resident(process: int | str = "self") -> float:
    """The memory of a process now, in megabytes."""
    return _status(process, "VmRSS")


def _status(process: int | str, name: str) -> float:
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.partition(f"{name}:")[2].split()[0]) / 1024
