"""Interleaved rounds, medians, ratios, and the peers that are run as processes of their own."""

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
PEERS = ROOT / ".bench"
"""Environments of what we compare with, made once."""


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


def peer(name: str, *requirements: str) -> Path:
    """The interpreter of an environment that holds a peer's packages."""
    home = PEERS / name
    python = home / "bin" / "python"
    if not python.exists():
        tell(f"making an environment for {name}")
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *requirements], check=True)
    return python
