"""A PostgreSQL server of the trial's own, which can be stopped in every way there is."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Any

import psycopg2

from infra import cluster as clusters
from infra.embedded import EmbeddedPostgres
from infra.migrations import migrate
from infra.postgres import Connection, connect

PATIENCE = 60.0


class Shutdown(Enum):
    FAST = signal.SIGINT
    IMMEDIATE = signal.SIGQUIT
    KILL = signal.SIGKILL


class Database:
    """``start`` may be called again after ``stop``: the server recovers what it has to."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._server: EmbeddedPostgres | None = None
        self._disk: Path | None = None
        self.crashes = 0
        """How often it was ended without warning; counted once it is down."""

    def put_on_a_small_disk(self, megabytes: int) -> None:
        """Before the first start: the server's files get a disk of their own. Needs root."""
        home = clusters.home_of(self._directory)
        size = f"size={megabytes}m,mode=0711"
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", size, "crm-faults", str(home)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert mounted.returncode == 0, (
            "a full disk is shown on one of its own, which only root may mount: run this as root,"
            f" in a container with CAP_SYS_ADMIN. mount said: {mounted.stderr.strip()}"
        )
        self._disk = home

    def fill_the_disk(self, spare: int) -> None:
        """Leaves so many bytes, but for what the server takes meanwhile."""
        assert self._disk is not None
        with (self._disk / "filler").open("ab") as filler:
            while (left := shutil.disk_usage(self._disk).free - spare) > 0:
                with suppress(OSError):
                    os.posix_fallocate(filler.fileno(), filler.tell(), left)
                    return

    def empty_the_disk(self) -> None:
        assert self._disk is not None
        (self._disk / "filler").unlink(missing_ok=True)

    def start(self) -> None:
        former, server = self._server, EmbeddedPostgres(self._directory)
        server.start()
        self._server = server
        if former is not None:
            former.stop()  # leaves the server, which `server` uses
        migrate(self.admin_url, member=clusters.LOGIN)

    def close(self) -> None:
        """Ends the server for good."""
        if self._server is not None:
            if self.processes() and self._postmaster() is None:
                self.stop(Shutdown.KILL)
            self._server.stop()
        if self._disk is not None:
            subprocess.run(["umount", str(self._disk)], check=True)

    def stop(self, how: Shutdown) -> None:
        """Returns when no process of the server is left."""
        # Killed, the postmaster could not end its children: a machine that fails ends them too.
        postmaster = self._postmaster()
        ends = self.processes() if how is Shutdown.KILL else [postmaster] if postmaster else []
        for pid in ends:
            with suppress(ProcessLookupError):
                os.kill(pid, how.value)
        deadline = time.monotonic() + PATIENCE
        while self.processes():
            assert time.monotonic() < deadline, f"PostgreSQL does not stop: {how.name}"
            time.sleep(0.02)
        self.crashes += how is not Shutdown.FAST

    @property
    def url(self) -> str:
        """The address that the product uses."""
        return self._running.url()

    @property
    def admin_url(self) -> str:
        return self._running.admin_url

    def connect(self, **how: Any) -> Connection:
        """A session of the superuser's, in autocommit."""
        return connect(self.admin_url, autocommit=True, **how)

    def query(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        connection = self.connect()
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement, list(parameters) or None)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def value(self, statement: str, parameters: Sequence[Any] = ()) -> Any:
        return self.query(statement, parameters)[0][0]

    def reachable(self) -> bool:
        try:
            self.query("SELECT 1")
        except psycopg2.OperationalError:
            return False
        return True

    def amcheck(self) -> str:
        """What pg_amcheck finds wrong with any table or index of the database: nothing."""
        return self._program(
            "pg_amcheck", f"--database={clusters.DATABASE}", "--install-missing", "--heapallindexed"
        )

    def dump(self, file: Path, *schemas: str) -> None:
        """These schemas as they are now, in a file that ``restore`` takes."""
        chosen = [f"--schema={schema}" for schema in schemas]
        said = self._program(
            "pg_dump", f"--dbname={clusters.DATABASE}", "--format=custom", f"--file={file}", *chosen
        )
        assert not said, said

    def restore(self, file: Path) -> None:
        """Puts the schemas of the file in the place of those that are there."""
        said = self._program(
            "pg_restore",
            *(f"--dbname={clusters.DATABASE}", "--clean", "--if-exists", "--single-transaction"),
            str(file),
        )
        assert not said, said

    def processes(self) -> list[int]:
        """The processes of this server that are there."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with suppress(OSError):
                    state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                    if state not in "ZX" and os.path.samefile(entry / "cwd", self._cluster):
                        found.append(int(entry.name))
        return found

    @property
    def _running(self) -> EmbeddedPostgres:
        assert self._server is not None, "the database has not been started"
        return self._server

    @property
    def _cluster(self) -> Path:
        return clusters.home_of(self._directory) / "cluster"

    def _postmaster(self) -> int | None:
        with suppress(OSError, ValueError):
            pid = int((self._cluster / "postmaster.pid").read_text().split("\n", 1)[0])
            return pid if pid in self.processes() else None
        return None

    def _program(self, name: str, *arguments: str) -> str:
        cluster = clusters.prepare(clusters.home_of(self._directory))
        where = [f"--host={cluster.socket_dir}", f"--port={clusters.PORT}"]
        answer = subprocess.run(
            [
                str(cluster.programs / name),
                *where,
                f"--username={clusters.SUPERUSER}",
                *arguments,
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        if answer.returncode == 0:
            return ""
        return f"{name}: {answer.returncode}: {answer.stdout}{answer.stderr}"
