"""A client that records what it asked and what it was told, and asks again until it knows."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any
from urllib.parse import urlsplit

from tests.faults.distributed.script import Command, Script

PATIENCE = 90.0
TIMEOUT = 8.0
"""Seconds until a request counts as lost: longer than a stopped process can hold the log up."""

AVOIDED = 5.0
"""Seconds for which a client keeps away from a process that did not answer, if it has another."""

# A repetition that came while the first still runs, or others that keep changing the same.
_AGAIN = {"urn:crm-ledger:problem:key-in-flight", "urn:crm-ledger:problem:still-conflicting"}


@dataclass(slots=True)
class Asked:
    """A command and what the client was told: `answer` (ok), `refusal` (status and type), or
    neither as long as it does not know."""

    command: Command
    answer: dict[str, Any] | None = None
    refusal: tuple[int, str] | None = None
    doubts: list[str] = field(default_factory=list)
    """What each try came to that did not tell."""
    tried_at: float = 0.0
    """When the last try was sent, by the system's clock."""

    @property
    def known(self) -> bool:
        return self.answer is not None or self.refusal is not None


class Journal:
    """All that clients of a deployment asked, from its first day on."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self._lock = threading.Lock()

    def add(self, asked: Asked) -> None:
        with self._lock:
            self.asked.append(asked)

    def ok(self) -> list[Asked]:
        return [asked for asked in self.asked if asked.answer is not None]

    def refused(self) -> list[Asked]:
        return [asked for asked in self.asked if asked.refusal is not None]

    def unknown(self) -> list[Asked]:
        return [asked for asked in self.asked if not asked.known]

    def forget(self, lost: Sequence[Asked]) -> None:
        """What a restored backup no longer has."""
        gone = {id(asked) for asked in lost}
        self.asked = [asked for asked in self.asked if id(asked) not in gone]


class Lost(Exception):
    """The request came to no answer that tells."""


class Caller:
    """One client's way to one API process at a time, over a connection that is kept."""

    def __init__(self, urls: Callable[[], Sequence[str]], token: str) -> None:
        self._urls = urls
        self._token = token
        self._connections: dict[str, http.client.HTTPConnection] = {}
        self._silent: dict[str, float] = {}

    def choice(self, random: Random) -> str:
        """One of the processes, as a balancer would choose it."""
        urls = list(self._urls())
        since = time.monotonic() - AVOIDED
        good = [url for url in urls if self._silent.get(url, since) <= since]
        return random.choice(good or urls)

    def post(self, url: str, path: str, body: bytes, **headers: str) -> tuple[int, bytes]:
        """Status and body. Raises `Lost`."""
        connection = self._connections.get(url)
        if connection is None:
            address = urlsplit(url)
            assert address.hostname is not None
            connection = http.client.HTTPConnection(address.hostname, address.port, timeout=TIMEOUT)
            self._connections[url] = connection
        try:
            connection.request(
                "POST",
                path,
                body,
                {
                    "Authorization": f"Bearer {self._token}",
                    "Content-Type": "application/json",
                    **{name.replace("_", "-"): value for name, value in headers.items()},
                },
            )
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            del self._connections[url]
            self._silent[url] = time.monotonic()
            raise Lost(type(error).__name__) from None

    def urls(self) -> Sequence[str]:
        return self._urls()

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()


def ask(caller: Caller, asked: Asked, url: str) -> None:
    """One try."""
    asked.tried_at = time.time()
    command = asked.command
    try:
        status, body = caller.post(
            url, command.path, json.dumps(command.body).encode(), Idempotency_Key=command.key
        )
    except Lost as lost:
        asked.doubts.append(str(lost))
        return
    _take(asked, status, json.loads(body))


def _take(asked: Asked, status: int, content: dict[str, Any]) -> None:
    if status in (200, 201):
        asked.answer = {"status": status, **content}
    elif status >= 500 or content.get("type") in _AGAIN:
        asked.doubts.append(f"{status} {content.get('type')}")
    else:
        asked.refusal = (status, str(content.get("type")))


class Load:
    """Commands at a bounded rate, by a few clients side by side, each with a script of its own.

    A client that was not told tries again, three times, by way of another process where there is
    one; then it leaves that command for later and what it is about alone, and goes on.
    """

    def __init__(
        self,
        journal: Journal,
        urls: Callable[[], Sequence[str]],
        token: str,
        seed: str,
        name: str,
        *,
        rate: float = 80.0,
        clients: int = 6,
    ) -> None:
        """`rate`: commands a second, at most. `name`: no other load of the journal has it."""
        self._journal = journal
        self._urls = urls
        self._token = token
        self._seed = seed
        self._name = name
        self._pause = clients / rate
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._failed: BaseException | None = None
        self.asked: list[Asked] = []
        self.told = Counter[str]()
        self._threads = [
            threading.Thread(target=self._work, args=(number,), name=f"client-{number}")
            for number in range(clients)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def answered(self, more: int, patience: float = PATIENCE, what: str = "ok") -> None:
        """Waits until so many more commands were told `what`."""
        deadline = time.monotonic() + patience
        with self._changed:
            wanted = self.told[what] + more
            while self.told[what] < wanted:
                left = deadline - time.monotonic()
                if self._failed is not None:
                    raise self._failed
                assert left > 0, (
                    f"only {self.told[what] - wanted + more} of {more} commands were told {what} in"
                    f" {patience:g} s; so far {dict(self.told)}; {self._reasons()}"
                )
                self._changed.wait(left)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()
        if self._failed is not None:
            raise self._failed

    def settle(self, patience: float = PATIENCE) -> None:
        """Asks for everything that is still not known, until it is."""
        caller = Caller(self._urls, self._token)
        deadline = time.monotonic() + patience
        try:
            while doubtful := [asked for asked in self.asked if not asked.known]:
                assert time.monotonic() < deadline, f"still not known: {self._reasons()}"
                for asked in doubtful:
                    for url in caller.urls():
                        if not asked.known:
                            ask(caller, asked, url)
                    self._tell(asked)
                if any(not asked.known for asked in doubtful):
                    time.sleep(0.3)
        finally:
            caller.close()

    @property
    def doubted(self) -> int:
        """How many commands were not told at once."""
        return sum(1 for asked in self.asked if asked.doubts)

    def _reasons(self) -> str:
        doubts = Counter(asked.doubts[-1] for asked in self.asked if asked.doubts)
        return f"doubts {dict(doubts)}"

    def _work(self, number: int) -> None:
        script = Script(f"{self._seed}.{number}", f"{self._name}.{number}")
        random = Random(f"{self._seed}.{number}.client")
        caller = Caller(self._urls, self._token)
        due = time.monotonic() + random.random() * self._pause
        try:
            while not self._stop.wait(max(0.0, due - time.monotonic())):
                if random.random() < 0.02:
                    count = self._bulk(script, caller, random)
                else:
                    count = 1
                    self._one(script, caller, random)
                due = max(due + count * self._pause, time.monotonic() - self._pause)
        except BaseException as error:
            with self._changed:
                self._failed = error
                self._changed.notify_all()
        finally:
            caller.close()

    def _noted(self, script: Script) -> Asked:
        asked = Asked(script.draw())
        self.asked.append(asked)
        self._journal.add(asked)
        return asked

    def _one(self, script: Script, caller: Caller, random: Random) -> None:
        asked = self._noted(script)
        for attempt in range(4):
            if attempt and self._stop.wait(0.2 * attempt):
                break
            ask(caller, asked, caller.choice(random))
            if asked.known:
                break
        self._tell(asked)

    def _bulk(self, script: Script, caller: Caller, random: Random) -> int:
        """Many in one request; what its answer does not tell is asked for one by one later."""
        group = [self._noted(script) for _ in range(random.randrange(3, 12))]
        lines = [
            {"path": asked.command.path, "key": asked.command.key, "body": asked.command.body}
            for asked in group
        ]
        body = "\n".join(map(json.dumps, lines)).encode()
        url = caller.choice(random)
        said = b""
        for asked in group:
            asked.tried_at = time.time()
        try:
            status, said = caller.post(url, "/v1/bulk", body, Content_Type="application/x-ndjson")
            if status != 200:
                raise Lost(f"{status} for a bulk request")
            answers = [json.loads(line) for line in said.splitlines()]
        except (Lost, json.JSONDecodeError) as lost:
            for asked in group:
                asked.doubts.append(str(lost))
        else:
            for answer in answers:
                one = group[answer.pop("line") - 1]
                _take(one, answer.pop("status"), answer.get("problem", answer))
            for asked in group:
                if not asked.known and not asked.doubts:
                    asked.doubts.append("no line in the answer")
        for asked in group:
            self._tell(asked)
        return len(group)

    def _tell(self, asked: Asked) -> None:
        if asked.known:
            Script.told(asked.command, asked.answer)
        with self._changed:
            if asked.answer is not None:
                self.told["ok"] += 1
            elif asked.refusal is not None:
                self.told["refused"] += 1
            else:
                self.told["unknown"] += 1
            self._changed.notify_all()
