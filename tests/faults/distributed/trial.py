"""One scenario under way: a load, faults, and the checks at the end; and what came of all."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from tests.faults.distributed.checker import Checker
from tests.faults.distributed.deployment import Deployment
from tests.faults.distributed.load import Load


@dataclass(slots=True)
class Outcome:
    """What a scenario came to. `doubted`: commands that were not told at once; `lost`: ok ones that
    were not in the log when it was checked."""

    seed: str
    scenario: str
    seconds: float = 0.0
    ok: int = 0
    refused: int = 0
    doubted: int = 0
    unknown: int = 0
    faults: int = 0
    lost: int = 0
    passed: bool = False
    failure: str = ""


class Trial:
    """`short`: each fault once or twice, instead of many times."""

    def __init__(self, name: str, deployment: Deployment, seed: str, *, short: bool) -> None:
        self.deployment = deployment
        self.short = short
        self.random = Random(f"{seed}.{name}")
        self.outcome = Outcome(seed, name)
        self._seed = seed
        self.spoilt = False
        self._loads: list[Load] = []
        self._begun = time.monotonic()

    def times(self, many: int, few: int = 1) -> range:
        """How often to do it."""
        return range(few if self.short else many)

    def fault(self, count: int = 1) -> None:
        self.outcome.faults += count

    @contextmanager
    def load(self, rate: float = 80.0, clients: int = 6, *, heal: bool = True) -> Iterator[Load]:
        """Commands while this is entered; afterwards every outcome is known, and everything runs
        again, unless `heal` is false."""
        seed = f"{self._seed}/{self.outcome.scenario}/{len(self._loads)}"
        name = f"{self.outcome.scenario}-{secrets.token_hex(3)}"
        deployment = self.deployment
        load = Load(
            deployment.journal,
            deployment.urls,
            deployment.token,
            seed,
            name,
            rate=rate,
            clients=clients,
        )
        self._loads.append(load)
        load.start()
        try:
            yield load
        except BaseException:
            end_beside_a_failure(load)
            raise
        load.stop()
        if heal:
            deployment.heal()
        load.settle()

    def check(self, parked: Iterable[UUID] = (), changed: int | None = None) -> None:
        """`parked`: keys whose events cannot be applied; `changed`: where a sealed event is not
        what it was."""
        checker = Checker(self.deployment)
        self.outcome.lost += checker.lost()
        checker.everything(self.random, parked, changed)

    def check_log(self) -> None:
        """As `check`, where the read models cannot go on."""
        checker = Checker(self.deployment)
        self.outcome.lost += checker.lost()
        checker.log()
        checker.commands()

    def spoils(self) -> None:
        """The next scenario needs another deployment."""
        self.spoilt = True

    def one(self, path: str, **body: object) -> str:
        """A command of nobody's script, which must succeed; its id."""
        status, answer = self._ask("POST", path, body, secrets.token_hex(8))
        assert status in (200, 201), answer
        return str(answer["id"])

    def get(self, path: str) -> tuple[int, Any]:
        """Status and content of what a read is told."""
        return self._ask("GET", path, None, "-")

    def _ask(self, method: str, path: str, body: object, key: str) -> tuple[int, Any]:
        address = urlsplit(self.deployment.urls()[0])
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
        try:
            connection.request(
                method,
                path,
                None if body is None else json.dumps(body).encode(),
                {
                    "Authorization": f"Bearer {self.deployment.token}",
                    "Content-Type": "application/json",
                    "Idempotency-Key": key,
                },
            )
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def end(self, failure: BaseException | None = None) -> Outcome:
        outcome = self.outcome
        outcome.seconds = round(time.monotonic() - self._begun, 1)
        outcome.passed = failure is None
        outcome.failure = "" if failure is None else f"{type(failure).__name__}: {failure}"[:1000]
        for load in self._loads:
            for asked in load.asked:
                outcome.ok += asked.answer is not None
                outcome.refused += asked.refusal is not None
                outcome.unknown += not asked.known
                outcome.doubted += bool(asked.doubts)
        return outcome


def end_beside_a_failure(load: Load) -> None:
    """Ends a load whose scenario has failed; that failure is what is told."""
    try:
        load.stop()
    except BaseException as error:
        sys.stderr.write(f"the load failed too: {error!r}\n")


def chosen_seed() -> str:
    """``FAULTS_SEED``, or a new one."""
    return os.environ.get("FAULTS_SEED") or str(secrets.randbelow(10**6))


class Report:
    """Outcomes, as a table and, where ``FAULTS_REPORT`` names a file, as a line of JSON each."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []

    def add(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        if file := os.environ.get("FAULTS_REPORT"):
            with Path(file).open("a", encoding="utf-8") as output:
                output.write(json.dumps(asdict(outcome)) + "\n")

    def table(self) -> str:
        columns = ("seconds", "ok", "refused", "doubted", "unknown", "faults", "lost")
        total = Outcome(self.outcomes[0].seed if self.outcomes else "", "all")
        total.passed = all(each.passed for each in self.outcomes)
        for column in columns:
            setattr(total, column, round(sum(getattr(each, column) for each in self.outcomes), 1))
        width = max([len("scenario"), *(len(each.scenario) for each in self.outcomes)])
        lines = [f"{'scenario':{width}}" + "".join(f"{name:>9}" for name in columns)]
        for each in [*self.outcomes, total]:
            values = "".join(f"{getattr(each, name):>9}" for name in columns)
            lines.append(f"{each.scenario:{width}}{values}  {'' if each.passed else 'FAILED'}")
        return f"seed {total.seed}\n" + "\n".join(line.rstrip() for line in lines)


REPORT = Report()
"""Of the scenarios that this process has run."""
