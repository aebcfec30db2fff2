"""Where the server under test keeps its data, and its databases."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from infra.cluster import DATABASE
from infra.embedded import EmbeddedPostgres
from infra.migrations import ALL_SCHEMAS, migrate
from infra.postgres import connect


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for a while, in which a server finds its own that runs as another user."""
    with tempfile.TemporaryDirectory(prefix="crm-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def end_of(url: str) -> int:
    """The position of a log's last event."""
    connection = connect(url, autocommit=True)
    with connection.cursor() as cursor:
        cursor.execute("SELECT position FROM log.head")
        [(end,)] = cursor.fetchall()
    connection.close()
    return int(end)


def new_database(
    server: EmbeddedPostgres, name: str, schemas: Mapping[str, str] = ALL_SCHEMAS
) -> str:
    """The superuser's address of a new database with the product's schemas, or some of them."""
    connection = connect(server.admin_url, autocommit=True)
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
    connection.close()
    url = server.admin_url.replace(f"/{DATABASE}?", f"/{name}?")
    migrate(url, schemas)
    return url


def copy_of(server: EmbeddedPostgres, name: str) -> str:
    """The superuser's address of a copy of a database that nobody is connected to."""
    copied = f"{name}_{uuid4().hex[:8]}"
    connection = connect(server.admin_url, autocommit=True)
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {copied} TEMPLATE {name}")
        cursor.execute(f"GRANT CREATE ON DATABASE {copied} TO crm_projector")  # for its rebuilds
    connection.close()
    return server.admin_url.replace(f"/{DATABASE}?", f"/{copied}?")


def drop(server: EmbeddedPostgres, url: str) -> None:
    """A copy that has served."""
    name = url.partition("?")[0].rpartition("/")[2]
    connection = connect(server.admin_url, autocommit=True)
    with connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")
    connection.close()
