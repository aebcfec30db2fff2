"""PostgreSQL of the product's own, in the data directory: no server to install.

One server per data directory, shared by all processes that use it: the first starts it, the last
stops it. It outlives a process that is killed, and the next one finds it again. Nobody reaches it
over the network, and locally only the users it belongs to (peer authentication on a socket).
"""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote as quote_url

import psycopg2
import structlog

from infra import cluster as clusters
from infra.cluster import DATABASE, LOGIN, PORT, SUPERUSER, Cluster, EmbeddedPostgresError
from infra.postgres import connect

__all__ = ["EmbeddedPostgres", "EmbeddedPostgresError"]

log = structlog.get_logger(__name__)

START_TIMEOUT = 900.0
"""Seconds: after a crash, recovery may take minutes."""

STOP_TIMEOUT = 300.0


class EmbeddedPostgres:
    """The server of ``data_dir``, from ``start`` to ``stop`` (or in a ``with`` statement).

    ``start`` returns the address of a login that has no rights of its own and may act as any of
    the product's roles; ``url(role)`` acts as one from the beginning. ``admin_url`` is the
    superuser's, for migrations only.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        start_timeout: float = START_TIMEOUT,
        stop_timeout: float = STOP_TIMEOUT,
    ) -> None:
        self._data_dir = data_dir
        self._start_timeout = start_timeout
        self._stop_timeout = stop_timeout
        self._cluster: Cluster | None = None
        self._use: int | None = None  # the open file that holds the shared lock

    def start(self) -> str:
        """Starts the server, or joins the one that runs. Raises ``EmbeddedPostgresError``."""
        if self._use is not None:
            return self.url()
        deadline = time.monotonic() + self._start_timeout
        home = clusters.home_of(self._data_dir)
        with _only_one(home, deadline):
            use = _open_lock(home / "users.lock")
            try:
                fcntl.flock(use, fcntl.LOCK_SH)
                self._cluster = clusters.prepare(home)
                self._run(self._cluster, alone=_try_alone(use), deadline=deadline)
            except EmbeddedPostgresError:
                os.close(use)  # a server that still recovers goes on: the next start joins it
                raise
            except BaseException:
                if self._cluster is not None and _try_alone(use):
                    _stop(self._cluster, self._stop_timeout)
                os.close(use)
                raise
            self._use = use
        return self.url()

    def stop(self) -> None:
        """Leaves the server; it is stopped, cleanly, when nobody else uses it."""
        use, cluster, self._use = self._use, self._cluster, None
        if use is None or cluster is None:
            return
        try:
            with _only_one(cluster.home, time.monotonic() + self._stop_timeout):
                if _try_alone(use):
                    _stop(cluster, self._stop_timeout)
        finally:
            os.close(use)

    def __enter__(self) -> EmbeddedPostgres:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def url(self, role: str | None = None, database: str = DATABASE) -> str:
        """The address of ``database`` for the product's login, acting as ``role`` if given."""
        options = f"&options={quote_url(f'-c role={role}', safe='')}" if role else ""
        return self._address(LOGIN, database) + options

    @property
    def admin_url(self) -> str:
        """The superuser's address of the product's database."""
        return self._address(SUPERUSER, DATABASE)

    def _address(self, user: str, database: str) -> str:
        if self._cluster is None:
            raise EmbeddedPostgresError("the embedded PostgreSQL has not been started")
        host = quote_url(str(self._cluster.socket_dir), safe="")
        return f"postgresql://{user}@/{database}?host={host}&port={PORT}"

    def _run(self, cluster: Cluster, *, alone: bool, deadline: float) -> None:
        server = _server(cluster)
        if server is not None and alone and not _is_current(cluster, server):
            log.info("the running PostgreSQL is of another version or place: starting it anew")
            _stop(cluster, self._stop_timeout)
            server = None
        if server is None:
            _clear_the_way(cluster, deadline)
            clusters.configure(cluster)
            log.info("starting PostgreSQL", directory=str(cluster.path))
            cluster.run("pg_ctl", "start", "--no-wait", "--silent", "--pgdata", str(cluster.path))
        elif not clusters.admits_me(cluster):
            clusters.configure(cluster)
            os.kill(server, signal.SIGHUP)
        self._wait_until_ready(cluster, deadline)
        self._make_database()

    def _wait_until_ready(self, cluster: Cluster, deadline: float) -> None:
        begun = told = time.monotonic()
        while True:
            try:
                connect(self._address(SUPERUSER, "postgres")).close()
            except psycopg2.OperationalError as error:
                reason = str(error).strip()
            else:
                return
            now = time.monotonic()
            if now - begun > 3 and _server(cluster) is None:
                raise EmbeddedPostgresError(f"PostgreSQL did not start: {cluster.last_words()}")
            if now > deadline:
                raise EmbeddedPostgresError(f"PostgreSQL was not ready in time: {reason}")
            if now - told > 10:
                told = now
                log.info("waiting for PostgreSQL", seconds=round(now - begun), reason=reason)
            time.sleep(0.05)

    def _make_database(self) -> None:
        connection = connect(self._address(SUPERUSER, "postgres"), autocommit=True)
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT FROM pg_roles WHERE rolname = %s", (LOGIN,))
                if cursor.rowcount == 0:
                    cursor.execute(f"CREATE ROLE {LOGIN} LOGIN NOINHERIT")
                cursor.execute("SELECT FROM pg_database WHERE datname = %s", (DATABASE,))
                if cursor.rowcount == 0:
                    cursor.execute(f"CREATE DATABASE {DATABASE}")
        finally:
            connection.close()


@contextmanager
def _only_one(home: Path, deadline: float) -> Iterator[None]:
    """Holds the lock under which the server is started and stopped."""
    file = _open_lock(home / "transition.lock")
    try:
        told = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise EmbeddedPostgresError(
                        f"another process has been starting or stopping PostgreSQL in {home}"
                        " for too long"
                    ) from None
                if not told:
                    told = True
                    log.info("another process is starting or stopping PostgreSQL; waiting for it")
                time.sleep(0.05)
        yield
    finally:
        os.close(file)


def _open_lock(path: Path) -> int:
    return clusters.open_private(path, os.O_RDWR)


def _try_alone(use: int) -> bool:
    """Whether nobody else uses the server. Call it under ``_only_one``: trying for the exclusive
    lock lets go of the shared one for a moment."""
    try:
        fcntl.flock(use, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        alone = False
    else:
        alone = True
    fcntl.flock(use, fcntl.LOCK_SH)
    return alone


def _stop(cluster: Cluster, timeout: float) -> None:
    """A fast shutdown: sessions are ended, everything is written, nothing needs recovery.

    Waits for all of the server's processes: it removes its note before it ends, and the one that
    writes its messages ends after it.
    """
    server = _server(cluster)
    if server is None:
        return
    log.info("stopping PostgreSQL")
    os.kill(server, signal.SIGINT)
    deadline = time.monotonic() + timeout
    while left := _remains(cluster):
        if time.monotonic() > deadline:
            raise EmbeddedPostgresError(f"PostgreSQL does not stop: processes {left}")
        with suppress(ChildProcessError):  # it is ours to collect when we are process 1
            os.waitpid(server, os.WNOHANG)
        time.sleep(0.02)


def _server(cluster: Cluster) -> int | None:
    """The process of the cluster's server, if it runs.

    The number in ``postmaster.pid`` alone says nothing: after a crash it may be another program's.
    """
    pid = _noted_pid(cluster)
    return pid if pid is not None and _works_in(cluster, pid) else None


def _noted_pid(cluster: Cluster) -> int | None:
    try:
        return abs(int((cluster.path / "postmaster.pid").read_text().split("\n", 1)[0]))
    except (OSError, ValueError):
        return None


def _works_in(cluster: Cluster, pid: int) -> bool:
    """Whether ``pid`` is a live process of this server: a ``postgres`` that works in its directory
    (a shell may, too)."""
    process = Path("/proc") / str(pid)
    try:
        before, _, after = (process / "stat").read_text().rpartition(")")
        if after.split()[0] in "ZX" or before.partition("(")[2] != "postgres":
            return False
        try:
            return os.path.samefile(process / "cwd", cluster.path)
        except PermissionError:  # root without the right to look into others' processes
            command = (process / "cmdline").read_bytes().split(b"\0")
            return (
                process.stat().st_uid == cluster.owner.pw_uid
                and os.fsencode(cluster.path) in command
            )
    except OSError:
        return False


def _is_current(cluster: Cluster, server: int) -> bool:
    """Whether the server runs the program that this product would start."""
    try:
        return os.readlink(f"/proc/{server}/exe") == str((cluster.programs / "postgres").resolve())
    except OSError:
        return True


def _clear_the_way(cluster: Cluster, deadline: float) -> None:
    """After a crash: waits for what is left of the old server, then removes its notes of itself.

    PostgreSQL does not start where such a note has the number of a process that is there, as it
    may be, of another program. It can only be that here, since the server's own were waited for.
    """
    told = False
    while left := _remains(cluster):
        if time.monotonic() > deadline:
            raise EmbeddedPostgresError(
                f"processes of a PostgreSQL that crashed are still there: {left}"
            )
        if not told:
            told = True
            log.info("waiting for the rest of a PostgreSQL that crashed", processes=left)
            for pid in left:
                with suppress(OSError):
                    os.kill(pid, signal.SIGQUIT)
        time.sleep(0.05)
    noted = _noted_pid(cluster)
    if noted is not None and Path("/proc", str(noted)).exists():
        log.info("removing the note of a PostgreSQL that crashed", process=noted)
        (cluster.path / "postmaster.pid").unlink(missing_ok=True)
    (cluster.socket_dir / f".s.PGSQL.{PORT}.lock").unlink(missing_ok=True)


def _remains(cluster: Cluster) -> list[int]:
    return [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and _works_in(cluster, int(entry.name))
    ]
