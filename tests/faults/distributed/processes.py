"""A process of the product, as an operator has it: started, stopped, killed, made to stand."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[3]
PATIENCE = 60.0


class Process:
    """``crm`` with these arguments; what it says goes into files that start with `name`.

    Ended by its number only, and only by who started it.
    """

    def __init__(
        self, name: str, arguments: list[str], environment: Mapping[str, str], folder: Path
    ) -> None:
        self.name = name
        self.starts = 0
        self._arguments = arguments
        self.environment = dict(environment)
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._alterations: tuple[str, ...] = ()

    def altered(self, *alterations: str) -> None:
        """From the next start on it is altered so (see `launcher`); nothing: as it is."""
        self._alterations = alterations

    @property
    def is_altered(self) -> bool:
        return bool(self._alterations)

    def start(self, **settings: str) -> None:
        """`settings` hold for this start only, as ``CRASHPOINT="commit.before:3"``."""
        assert not self.alive, f"{self.name} runs already"
        self.starts += 1
        program = ["workers.cli"]
        if self._alterations:
            program = ["tests.faults.distributed.launcher", *self._alterations, "--"]
        with self.log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *program, *self._arguments],
                cwd=ROOT,
                env=self.environment | {f"CRM_{name}": value for name, value in settings.items()},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def log(self) -> Path:
        return self._folder / f"{self.name}-{self.starts:03}.log"

    @property
    def text(self) -> str:
        """What the present run, or the last one, has said."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def standing_still(self) -> bool:
        """Whether it is there, but stopped."""
        state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        return self.alive and state == "T"

    @property
    def away(self) -> bool:
        """Whether it was killed or stopped, or never started. One that failed is an error."""
        if self._process is not None and (code := self._process.poll()) is not None and code > 0:
            raise AssertionError(f"{self.name} ended with {code}: {self.last_words()}")
        return not self.alive or self.standing_still

    def kill(self) -> None:
        """As a machine that fails would."""
        if self._process is not None and self.alive:
            self._process.kill()
            self._process.wait(PATIENCE)

    def stop(self) -> int:
        """As an operator would; gives the exit code."""
        assert self._process is not None
        self._process.terminate()
        return self.ended()

    def ended(self, patience: float = PATIENCE) -> int:
        """Waits until it is gone; gives the exit code."""
        assert self._process is not None
        try:
            return self._process.wait(patience)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} does not end: {self.last_words()}") from None

    def restart(self, **settings: str) -> None:
        """Stops it, if it runs, and starts it anew."""
        if self.alive:
            self.stop()
        self.start(**settings)

    def dies(self, patience: float = PATIENCE) -> None:
        """Waits until it has killed itself at its crash point."""
        code = self.ended(patience)
        assert code == -signal.SIGKILL, f"{self.name} ended with {code}: {self.last_words()}"

    def pause(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def stands_still(self, patience: float = PATIENCE) -> None:
        """Waits until it stands still at its crash point."""
        deadline = time.monotonic() + patience
        while not self.standing_still:
            assert self.alive, f"{self.name} has ended: {self.last_words()}"
            assert time.monotonic() < deadline, f"{self.name} does not stop: {self.last_words()}"
            time.sleep(0.05)

    def says(self, pattern: str, patience: float = PATIENCE) -> re.Match[str]:
        """Waits until the present run has said this."""
        deadline = time.monotonic() + patience
        while True:
            alive = self.alive
            if found := re.search(pattern, self.text):
                return found
            assert alive, f"{self.name} has ended: {self.last_words()}"
            assert time.monotonic() < deadline, (
                f"{self.name} says no {pattern}: {self.last_words()}"
            )
            time.sleep(0.05)

    def last_words(self) -> str:
        lines = [line for line in self.text.splitlines() if '"logger": "kafka.' not in line]
        return "\n" + "\n".join(lines[-25:])

    def close(self) -> None:
        """Whatever it does, it is gone afterwards."""
        if self._process is not None and self.alive:
            self._process.kill()  # works on a stopped process too
            self._process.wait()
