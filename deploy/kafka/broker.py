"""A real Apache Kafka of one node, on this machine, for development and tests.

``python deploy/kafka/broker.py`` runs one until it is interrupted. In code it is ``Broker``: one
per directory, shared by all processes that use it: the first starts it, the last stops it. It never
outlives its users, also when they are killed: a small process beside it (``keeper.py``) waits for
the lock that each of them holds.

Needs Java 17 or later and Maven, which finds the jars once; ``deploy/kafka/setup.sh`` sees to both.
"""

from __future__ import annotations

import argparse
import base64
import fcntl
import hashlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

HERE = Path(__file__).resolve().parent
CLASSPATHS = HERE / ".classpath"
MEMORY = ("-Xms128m", "-Xmx384m", "-XX:+UseSerialGC")
LOGGING = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"

START_TIMEOUT = 120.0
"""Seconds: after a kill the broker checks its files first, on a busy machine slowly."""

STOP_TIMEOUT = 60.0

_TRIES = 3
_PORT_TIMEOUT = 10.0
"""Seconds: the system may take a while to close what a killed process had open."""

_PORTS = range(20_000, 30_000, 2)
"""Below the ports that the system gives to clients: a client that tries to reach a stopped broker
on one of those can come to be connected to itself, and then the broker cannot have it back."""


class BrokerError(Exception):
    """The broker cannot be used; the message says why, with the end of the broker's own log."""


class _EndedEarly(BrokerError):
    pass


class Broker:
    """The broker of ``directory``, from ``start`` to ``stop`` (or in a ``with`` statement).

    It listens on 127.0.0.1, at ``port`` and (its controller) the port after it; without ``port`` it
    takes free ones. Both are kept for as long as the directory is there. Not for several threads.
    """

    def __init__(
        self,
        directory: Path,
        port: int | None = None,
        *,
        advertised: int | None = None,
        start_timeout: float = START_TIMEOUT,
    ) -> None:
        """`advertised`: the port that clients are sent to, where a proxy stands in between."""
        self._home = Path(os.path.abspath(directory))
        self._wanted_port = port
        self._advertised = advertised
        self._start_timeout = start_timeout
        self._use: int | None = None  # the open file that holds the shared lock
        self._log_begins = 0

    @property
    def bootstrap(self) -> str:
        """Its address, as clients want it. Known after the first start, and stays."""
        port = self._port()
        if port is None:
            raise BrokerError(f"the broker in {self._home} has never been started")
        return f"127.0.0.1:{port}"

    @property
    def pid(self) -> int | None:
        """The process of the broker, if it runs; for tests that send it signals."""
        try:
            pid = int((self._home / "pid").read_text())
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            # After a reboot the number may be another program's.
            ours = os.path.samefile(f"/proc/{pid}/cwd", self._home)
        except (OSError, ValueError):
            return None
        return pid if ours and state not in "ZX" else None

    def start(self) -> None:
        """Starts the broker, or joins the one that runs; returns when it answers.

        Raises ``BrokerError``.
        """
        self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._only_one():
            if self._use is None:
                use = self._open("users.lock")
                fcntl.flock(use, fcntl.LOCK_SH)  # waits for a keeper that is ending its broker
                self._use = use
            try:
                self._bring_up()
            except BaseException:
                self._leave()
                raise

    def _bring_up(self) -> None:
        """Tries again where it ended as it started: the one before may not have let go of
        everything yet when the machine is busy."""
        for tries_left in reversed(range(_TRIES)):
            if self.pid is None:
                self._clear_the_way()
                self._launch()
            try:
                self._wait_until_it_answers()
                return
            except _EndedEarly:
                if not tries_left:
                    raise

    def _clear_the_way(self) -> None:
        """No process of a former start is left, and both ports are free, or another's for good."""
        deadline = time.monotonic() + _PORT_TIMEOUT
        port = self._port()
        while True:
            former = _processes_in(self._home)
            for pid in former:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            free = port is None or (_is_free(port) and _is_free(port + 1))
            if (free and not former) or time.monotonic() > deadline:
                return
            time.sleep(0.05)

    def stop(self) -> None:
        """Leaves the broker; it is stopped, cleanly, when nobody else uses it."""
        if self._use is None:
            return
        with self._only_one():
            if self._alone():
                self._end(signal.SIGTERM)
            self._leave()

    def kill(self) -> None:
        """Ends the broker as a crash does, whoever else uses it. ``start`` starts it again."""
        self._end(signal.SIGKILL)
        self._leave()

    def wipe(self) -> None:
        """Loses all data of a stopped broker. The next start is that of a new cluster at the same
        address: its topics are gone, and one of the same name has another id."""
        with self._only_one():
            if self.pid is not None:
                raise BrokerError("a broker that runs cannot be wiped: stop or kill it first")
            shutil.rmtree(self._home / "data", ignore_errors=True)

    def __enter__(self) -> Broker:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def last_words(self) -> str:
        """The end of what the broker has said since it was last started here."""
        with suppress(OSError), (self._home / "broker.log").open("rb") as log:
            log.seek(self._log_begins)
            lines = log.read()[-20_000:].decode(errors="replace").splitlines()[-30:]
            return "\n".join(lines) or "(it said nothing)"
        return "(no log)"

    def _launch(self) -> None:
        jars = classpath()
        port = self._port() or self._take_port()
        if self._wanted_port not in (None, port):
            raise BrokerError(f"the broker in {self._home} is one at port {port}")
        properties = self._home / "server.properties"
        properties.write_text(_properties(port, self._advertised or port), encoding="utf-8")
        if not (self._home / "data").exists():
            self._format(jars)
        log = self._home / "broker.log"
        self._log_begins = log.stat().st_size if log.exists() else 0
        keeper = [sys.executable, "-I", str(HERE / "keeper.py"), str(self._home)]
        java = [_program("java"), *MEMORY, LOGGING, "-cp", jars, "kafka.Kafka", properties.name]
        started = subprocess.run([*keeper, *java], check=False, capture_output=True, text=True)
        if started.returncode != 0 or not started.stdout.strip().isdigit():
            raise BrokerError(f"the broker could not be started:\n{started.stderr}")

    def _format(self, jars: str) -> None:
        """Makes the data of a new cluster; all of it or nothing."""
        unfinished = self._home / "unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        command = [
            *(_program("java"), "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
            *(LOGGING, "-cp", jars, "kafka.tools.StorageTool", "format", "--standalone"),
            *("--cluster-id", _new_cluster_id(), "--config", "../server.properties"),
        ]
        # Its folder for data is named relative to where it runs.
        done = subprocess.run(
            command, cwd=unfinished, check=False, capture_output=True, text=True, errors="replace"
        )
        if done.returncode != 0:
            raise BrokerError(f"Kafka's storage could not be made:\n{done.stdout}{done.stderr}")
        (unfinished / "data").rename(self._home / "data")
        unfinished.rmdir()

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + self._start_timeout
        while not _listens(self.bootstrap):
            self._not_dead_nor_late(deadline)
            time.sleep(0.05)
        try:
            patience = max(5.0, deadline - time.monotonic())
            with KafkaAdminClient(
                bootstrap_servers=self.bootstrap, bootstrap_timeout_ms=int(1000 * patience)
            ) as admin:
                while not self._is_this_one_and_ready(admin.describe_cluster()):
                    self._not_dead_nor_late(deadline)
                    time.sleep(0.05)
        except KafkaError as error:
            raise BrokerError(f"the broker does not answer: {error}\n{self.last_words()}") from None

    def _is_this_one_and_ready(self, described: dict[str, Any]) -> bool:
        """Another that has the port may answer in its place."""
        identity = f"cluster.id={described['cluster_id']}"
        ours = identity in (self._home / "data" / "meta.properties").read_text().splitlines()
        return ours and not all(node.get("is_fenced") for node in described["brokers"])

    def _not_dead_nor_late(self, deadline: float) -> None:
        if self.pid is None:
            raise _EndedEarly(f"the broker ended as it started:\n{self.last_words()}")
        if time.monotonic() > deadline:
            raise BrokerError(f"the broker was not ready in time:\n{self.last_words()}")

    def _end(self, number: signal.Signals) -> None:
        pid = self.pid
        if pid is None:
            return
        for one in (number, signal.SIGCONT):  # a stopped process ends only when it goes on
            with suppress(ProcessLookupError):
                os.kill(pid, one)
        deadline = time.monotonic() + STOP_TIMEOUT
        # A zombie is not enough: its other threads may hold the ports and files for a while yet.
        while Path(f"/proc/{pid}").exists():
            if time.monotonic() > deadline:
                raise BrokerError(f"the broker (process {pid}) does not end:\n{self.last_words()}")
            time.sleep(0.02)

    def _alone(self) -> bool:
        """Whether nobody else uses the broker. Call it under ``_only_one``.

        Trying for the exclusive lock lets go of the shared one for a moment. A keeper that gets it
        then ends the broker, which is right: there was no other user; we wait for it here.
        """
        assert self._use is not None  # noqa: S101 - for the type checker
        try:
            fcntl.flock(self._use, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            alone = False
        else:
            alone = True
        fcntl.flock(self._use, fcntl.LOCK_SH)
        return alone

    def _leave(self) -> None:
        use, self._use = self._use, None
        if use is not None:
            os.close(use)

    @contextmanager
    def _only_one(self) -> Iterator[None]:
        """Holds the lock under which the broker is started, stopped and wiped."""
        file = self._open("transition.lock")
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
        finally:
            os.close(file)

    def _open(self, name: str) -> int:
        return os.open(self._home / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _port(self) -> int | None:
        with suppress(OSError, ValueError):
            return int((self._home / "port").read_text())
        return None

    def _take_port(self) -> int:
        port = self._wanted_port or _free_port()
        (self._home / "port").write_text(str(port))
        return port


def classpath() -> str:
    """The jars of the broker that ``pom.xml`` names, fetched by Maven when they are missing.

    Raises ``BrokerError``.
    """
    pom = HERE / "pom.xml"
    kept = CLASSPATHS / hashlib.sha256(pom.read_bytes()).hexdigest()[:16]
    with suppress(OSError):
        jars = kept.read_text(encoding="utf-8")
        if jars and all(Path(jar).is_file() for jar in jars.split(os.pathsep)):
            return jars
    with tempfile.TemporaryDirectory(prefix="crm-kafka-") as folder:
        found = Path(folder, "classpath")
        command = [
            *(_program("mvn"), "--quiet", "--batch-mode", "--file", str(pom)),
            *("dependency:build-classpath", f"-Dmdep.outputFile={found}"),
        ]
        done = subprocess.run(
            command, cwd=folder, check=False, capture_output=True, text=True, errors="replace"
        )
        if done.returncode != 0 or not found.is_file():
            reason = "\n".join(f"{done.stdout}{done.stderr}".splitlines()[:12])
            raise BrokerError(f"Maven could not fetch Kafka. Is the network there?\n{reason}")
        jars = found.read_text(encoding="utf-8").strip()
    with suppress(OSError):  # in a folder that is not ours to write, Maven is asked each time
        CLASSPATHS.mkdir(exist_ok=True)
        new = CLASSPATHS / f"new-{uuid.uuid4().hex}"
        new.write_text(jars, encoding="utf-8")
        new.replace(kept)
    return jars


def _program(name: str) -> str:
    home = os.environ.get("JAVA_HOME")
    if name == "java" and home and os.access(f"{home}/bin/java", os.X_OK):
        return f"{home}/bin/java"
    found = shutil.which(name)
    if found is None:
        raise BrokerError(
            f"{name} was not found. Kafka needs Java 17 or later and Maven: deploy/kafka/setup.sh"
            " installs them, or says what to install."
        )
    return found


def _properties(port: int, advertised: int) -> str:
    broker, controller = f"127.0.0.1:{port}", f"127.0.0.1:{port + 1}"
    own = {
        "listeners": f"PLAINTEXT://{broker},CONTROLLER://{controller}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{advertised}",
        "controller.quorum.bootstrap.servers": controller,
        "log.dirs": "data",
    }
    lines = "".join(f"{name}={value}\n" for name, value in own.items())
    return f"{(HERE / 'server.properties').read_text(encoding='utf-8')}\n{lines}"


def _new_cluster_id() -> str:
    while True:
        name = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not name.startswith("-"):  # it would be taken for an option
            return name


def _processes_in(home: Path) -> list[int]:
    """The brokers that run there, whatever is on record."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                command = (entry / "cmdline").read_bytes().split(b"\0")
                if b"kafka.Kafka" in command and b"-cp" in command:
                    broker = command[0].endswith(b"java") and os.path.samefile(entry / "cwd", home)
                    found += [int(entry.name)] if broker else []
    return found


def _free_port() -> int:
    for port in random.sample(_PORTS, len(_PORTS)):
        if all(_is_free(one) for one in (port, port + 1)):
            return port
    raise BrokerError(f"no port is free from {_PORTS.start} to {_PORTS.stop}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _listens(address: str) -> bool:
    host, port = address.split(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError:
        return False
    return True


def main() -> int:
    """Runs a broker in the foreground, until SIGINT or SIGTERM; exit code 1 if it cannot."""
    options = argparse.ArgumentParser(description="Run a Kafka of one node until interrupted.")
    options.add_argument(
        "--directory", type=Path, help="keep its data here; by default nowhere: it ends with it"
    )
    options.add_argument(
        "--port", type=int, help="port to listen on, with the one after it; by default free ones"
    )
    options.add_argument(
        "--prepare", action="store_true", help="only fetch what is needed to run one"
    )
    given = options.parse_args()
    told = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: told.set())
    try:
        if given.prepare:
            classpath()
            return 0
        with (
            tempfile.TemporaryDirectory(prefix="crm-kafka-") as temporary,
            Broker(given.directory or Path(temporary), given.port) as broker,
        ):
            sys.stdout.write(f"CRM_KAFKA_BOOTSTRAP={broker.bootstrap}\n")
            sys.stdout.flush()
            while not told.wait(1):
                if broker.pid is None:
                    raise BrokerError(f"the broker has ended:\n{broker.last_words()}")
    except BrokerError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
