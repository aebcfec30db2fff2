"""The schema, by plain numbered SQL files: ``<part>/NNNN_name.sql``.

The parts are ``log``, ``vault``, ``read`` and ``bi``; each lives in a schema of its own, by default
of the same name. A file names no schema: it runs with the part's schema as its search path.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.errors

from infra.postgres import Connection, connect, quote

LOG_SCHEMAS: Mapping[str, str] = {"log": "log", "vault": "vault"}
VAULT_SCHEMAS: Mapping[str, str] = {"vault": "vault"}
READ_SCHEMAS: Mapping[str, str] = {"read": "read", "bi": "bi"}
ALL_SCHEMAS: Mapping[str, str] = {**LOG_SCHEMAS, **READ_SCHEMAS}

ROLES = (
    "crm_writer",
    "crm_vault",
    "crm_relay",
    "crm_sealer",
    "crm_projector",
    "crm_reader",
    "crm_backup",
    "bi_reader",
    "crm_bi",  # what bi_reader was called at first
)
"""What sessions act as; none of them can log in. They belong to the server, not to a database."""

OLDEST_SERVER = 140000


class MigrationError(Exception):
    """The schema cannot be brought to what this program needs; the message says why.

    - ``SchemaTooNew``: a later version of the program has been here
    - ``SchemaTooOld``: migrations are still to be applied (only from ``check``)
    - ``MigrationChanged``: a file that was applied is not what it was
    - ``RightsMissing``: the login may not do it; the message holds the SQL for an administrator
    """


class SchemaTooNew(MigrationError):
    pass


class SchemaTooOld(MigrationError):
    pass


class MigrationChanged(MigrationError):
    pass


class RightsMissing(MigrationError):
    pass


@dataclass(frozen=True, slots=True)
class Migration:
    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()

    def __str__(self) -> str:
        return f"{self.number:04}_{self.name}"


def migrations(part: str, folder: Path | None = None) -> list[Migration]:
    """The files of a part in order. Raises ``ValueError`` unless they are numbered 1, 2, 3, ..."""
    found = []
    for path in sorted(((folder or Path(__file__).parent) / part).glob("*.sql")):
        match = re.fullmatch(r"(\d{4})_([a-z0-9_]+)\.sql", path.name)
        if match is None:
            raise ValueError(f"{path.name} is not named NNNN_name.sql")
        # universal newlines: the same file from another checkout has the same checksum
        found.append(Migration(int(match[1]), match[2], path.read_text(encoding="utf-8")))
    if [migration.number for migration in found] != list(range(1, len(found) + 1)):
        raise ValueError(f"the migrations of {part} are not numbered 1, 2, 3, ... once each")
    return found


def migrate(
    url: str,
    schemas: Mapping[str, str] = ALL_SCHEMAS,
    *,
    member: str | None = None,
    folder: Path | None = None,
    through: Mapping[str, int] | None = None,
    told: Callable[[str], None] = lambda _: None,
) -> None:
    """Brings ``schemas`` (part → name) up to date, making roles and schemas that are missing.

    The login of ``url`` is made a member of the roles, and so is ``member``, if given.

    Safe to call from any number of processes at once; each file is applied once, in a transaction
    of its own. ``through``: for a backup of an earlier version, the last number of each part that
    is applied. ``told`` hears a line for each. Raises ``MigrationError``.
    """
    connection = connect(url, application_name="crm migrate", autocommit=True)
    try:
        if connection.server_version < OLDEST_SERVER:
            raise MigrationError(
                f"PostgreSQL {OLDEST_SERVER // 10000} or later is needed;"
                f" this server is {connection.info.parameter_status('server_version')}"
            )
        _ensure_roles(connection, [connection.info.user, *([member] if member else [])])
        for part, schema in schemas.items():
            known = migrations(part, folder)
            last = len(known) if through is None else through[part]
            _migrate_part(connection, schema, known[:last], told)
    finally:
        connection.close()


def check(
    url: str, schemas: Mapping[str, str] = ALL_SCHEMAS, *, folder: Path | None = None
) -> dict[str, int]:
    """The number of the last migration of each part, changing nothing.

    Raises ``SchemaTooOld`` when some are still to be applied, and what ``migrate`` raises.
    """
    connection = connect(url, application_name="crm check", autocommit=True)
    try:
        versions = {}
        for part, schema in schemas.items():
            known = migrations(part, folder)
            applied = _applied(connection, schema)
            missing = _still_to_apply(schema, known, applied)
            if missing:
                raise SchemaTooOld(f"schema {schema}: {missing[0]} has not been applied yet")
            versions[part] = len(applied)
        return versions
    finally:
        connection.close()


def _migrate_part(
    connection: Connection, schema: str, known: list[Migration], told: Callable[[str], None]
) -> None:
    lock = int.from_bytes(
        hashlib.sha256(f"crm migrations of {schema}".encode()).digest()[:8], "big", signed=True
    )
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", (lock,))
        try:
            for migration in _still_to_apply(schema, known, _applied(connection, schema)):
                _apply(connection, schema, migration)
                told(f"schema {schema}: applied {migration}")
        finally:
            if not connection.closed:
                cursor.execute("SELECT pg_advisory_unlock(%s)", (lock,))


def _applied(connection: Connection, schema: str) -> list[tuple[int, str, str]]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass(%s)", (f"{quote(schema)}.migration",))
        if _one(cursor.fetchone()) is None:
            return []
        cursor.execute(
            f"SELECT number, name, checksum FROM {quote(schema)}.migration ORDER BY number"
        )
        return cursor.fetchall()


def _still_to_apply(
    schema: str, known: list[Migration], applied: list[tuple[int, str, str]]
) -> list[Migration]:
    if len(applied) > len(known):
        number, name, _ = applied[-1]
        raise SchemaTooNew(
            f"schema {schema} is at {number:04}_{name}, but this version of the program only knows"
            f" migrations up to {len(known):04}: a later version has been used on this database."
            " Use that version or a newer one."
        )
    for migration, (number, name, checksum) in zip(known, applied, strict=False):
        if (migration.number, migration.name, migration.checksum) != (number, name, checksum):
            raise MigrationChanged(
                f"schema {schema}: {migration} is not the file that was applied as"
                f" {number:04}_{name}. An applied migration is never edited: undo the change and"
                " write it as a new file."
            )
    return known[len(applied) :]


def _apply(connection: Connection, schema: str, migration: Migration) -> None:
    record = f"""
        CREATE SCHEMA IF NOT EXISTS {quote(schema)};
        SET LOCAL search_path = {quote(schema)};
        CREATE TABLE IF NOT EXISTS migration (
            number int PRIMARY KEY,
            name text NOT NULL,
            checksum text NOT NULL,
            applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
        );
        COMMENT ON TABLE migration IS 'The migrations that were applied to this schema.';
        -- any login may see how far the schema is; the other tables stay closed to it
        GRANT USAGE ON SCHEMA {quote(schema)} TO PUBLIC;
        GRANT SELECT ON migration TO PUBLIC;
        INSERT INTO migration (number, name, checksum)
            VALUES ({migration.number}, '{migration.name}', '{migration.checksum}');
    """
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"BEGIN; {record}")
            cursor.execute(migration.sql)
            cursor.execute("COMMIT")
    except psycopg2.errors.InsufficientPrivilege as error:
        _roll_back(connection)
        login, database = connection.info.user, connection.info.dbname
        advice = (
            f" An administrator can run: GRANT CREATE ON DATABASE {quote(database)} TO"
            f" {quote(login)} WITH GRANT OPTION;"
            if "for database" in str(error)
            else " Use the login that made the schema, or a superuser, to bring it up to date."
        )
        raise RightsMissing(
            f"the login {login} may not apply {migration} in schema {schema}:"
            f" {_first_line(error)}.{advice}"
        ) from error
    except psycopg2.Error as error:
        _roll_back(connection)
        raise MigrationError(
            f"schema {schema}: {migration} failed: {_first_line(error)}"
        ) from error


def _roll_back(connection: Connection) -> None:
    if not connection.closed:
        with connection.cursor() as cursor:
            cursor.execute("ROLLBACK")


def _ensure_roles(connection: Connection, members: Sequence[str]) -> None:
    """Roles are shared by all databases of a server, advisory locks are not: two that begin at
    the same moment in two databases may meet, and the one that comes second tries again."""
    for attempt in range(20):
        try:
            _make_roles(connection, members)
        except (
            psycopg2.errors.DuplicateObject,
            psycopg2.errors.UniqueViolation,
            psycopg2.errors.InternalError_,  # "tuple concurrently updated"
        ):
            time.sleep(0.01 * (attempt + 1))
        except psycopg2.errors.InsufficientPrivilege as error:
            raise RightsMissing(_for_an_administrator(connection)) from error
        else:
            return
    raise MigrationError("others keep changing the roles of this server; start again")


def _make_roles(connection: Connection, members: Sequence[str]) -> None:
    # From 16 on, who creates a role may administer it without being able to act as it.
    acts_as = "SET" if connection.server_version >= 160000 else "MEMBER"
    with connection.cursor() as cursor:
        for role in ROLES:
            cursor.execute("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = %s)", (role,))
            if not _one(cursor.fetchone()):
                cursor.execute(f"CREATE ROLE {quote(role)} NOLOGIN")
            for member in members:
                cursor.execute("SELECT pg_has_role(%s, %s, %s)", (member, role, acts_as))
                if not _one(cursor.fetchone()):
                    cursor.execute(f"GRANT {quote(role)} TO {quote(member)}")


def _for_an_administrator(connection: Connection) -> str:
    roles = ", ".join(quote(role) for role in ROLES)
    statements = [f"CREATE ROLE {quote(role)} NOLOGIN;" for role in ROLES]
    with connection.cursor() as cursor:
        cursor.execute("SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)", (list(ROLES),))
        present = {row[0] for row in cursor.fetchall()}
    statements = [
        statement for role, statement in zip(ROLES, statements, strict=True) if role not in present
    ]
    statements.append(f"GRANT {roles} TO {quote(connection.info.user)};")
    return (
        f"the login {connection.info.user} may not make the roles that the program acts as."
        f" An administrator can run: {' '.join(statements)}"
    )


def _one(row: tuple[Any, ...] | None) -> Any:
    return row[0] if row else None


def _first_line(error: psycopg2.Error) -> str:
    return str(error).strip().partition("\n")[0]
