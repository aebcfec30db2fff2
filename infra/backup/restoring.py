"""Into an empty database, in one transaction: all of it, or nothing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias
from uuid import UUID

import psycopg2
from psycopg2.errors import QueryCanceled
from psycopg2.extensions import cursor as Cursor  # noqa: N812  (it is a class)

from infra import crashpoints
from infra.backup.copied import EventRows, Malformed
from infra.backup.manifest import (
    Backup,
    File,
    LogDamaged,
    Manifest,
    NotEmpty,
    NotWhole,
    OtherSchema,
    Table,
    Watched,
    demand_roots,
)
from infra.backup.tables import EVENTS, SCHEMAS, in_vault
from infra.backup.writing import applied, columns, select_events
from infra.erasure_file import ErasureFile
from infra.migrations import migrations
from infra.postgres import Connection, quote
from infra.vault import WrongMasterKey

_HOLDS: Final = {"log": (EVENTS, "log.receipts"), "vault": ("vault.keys", "vault.erasures")}
"""Tables with anything in which a schema is not empty. Others may hold rows from migrations."""

Fits: TypeAlias = Callable[[UUID, bytes], bool]
"""Whether a master key that is here opens the key of this person."""


@dataclass(frozen=True, slots=True)
class Restored:
    position: int
    epoch: UUID
    rows: int
    keys: int
    """Of persons, that are not destroyed."""


def numbers(manifest: Manifest) -> dict[str, int]:
    """How many migrations of each schema the database of the backup had.

    Raises OtherSchema if this program has not got these.
    """
    for schema in SCHEMAS:
        known = {one.number: (one.name, one.checksum) for one in migrations(schema)}
        for one in manifest.migrations[schema]:
            if one.number not in known:
                raise OtherSchema(
                    f"the backup was made by a later version of the program: schema {schema} was"
                    f" at {one.number:04}_{one.name}. Use that version or a newer one."
                )
            if known[one.number] != (one.name, one.checksum):
                raise OtherSchema(
                    f"the backup was made by another program: its schema {schema} has"
                    f" {one.number:04}_{one.name}, which is not the file that this one has."
                )
    return {schema: len(manifest.migrations[schema]) for schema in SCHEMAS}


def is_empty(connection: Connection, schema: str) -> bool:
    """Whether the log or the vault holds nothing. What is not there at all is empty."""
    with connection, connection.cursor() as cursor:
        return not _held(cursor, schema)


def demand_empty(connection: Connection, schema: str) -> None:
    """Raises NotEmpty unless it's empty."""
    with connection, connection.cursor() as cursor:
        _demand_empty(cursor, schema)


def demand_schema(connection: Connection, schema: str, manifest: Manifest) -> None:
    """Raises OtherSchema if the database is further than that of the backup was: what those
    migrations did to rows would not be done to the backup's."""
    with connection, connection.cursor() as cursor:
        found = applied(cursor, schema)
    if len(found) > len(manifest.migrations[schema]):
        raise OtherSchema(
            f"schema {schema} of the database is at {found[-1].number:04}_{found[-1].name},"
            " later than the backup. Restore into a new database; or, since it is empty:"
            f" DROP SCHEMA {schema} CASCADE."
        )


def restore(
    connection: Connection,
    backup: Backup,
    ledger: Path,
    *,
    fits: Fits | None,
    vault: Connection | None = None,
    told: Callable[[int, int], None] = lambda _done, _total: None,
) -> Restored:
    """Copies the backup in and reads the events back, in one transaction.

    The connection is the owner's, its schemas at the migrations of the backup; the files' checksums
    have been checked. The log gets a new epoch. `vault`: where the vault is, if that is another
    database: its transaction is committed a moment before the log's, and if it holds keys already,
    they stay, as long as all persons of the backup are among them. `fits`: None if there is no
    master key. `ledger`: the file of erasures, to which the backup's lines are added before
    anything is committed. `told` hears events, each counted twice: copied in, and read back.

    Raises BackupRefused, WrongMasterKey and what the database raises; then log and vault are as
    they were.
    """
    manifest = backup.manifest
    twice = 2 * manifest.position
    with ExitStack() as stack:
        cursor = _begun(stack, connection)
        in_the_vault = cursor if vault is None else _begun(stack, vault)  # committed first
        cursor.execute("LOCK TABLE log.head, log.events IN ACCESS EXCLUSIVE MODE")
        _demand_empty(cursor, "log")
        keep_vault = vault is not None and _held(in_the_vault, "vault") is not None
        if keep_vault:
            _demand_persons(in_the_vault, backup)
        else:
            in_the_vault.execute("LOCK TABLE vault.keys IN ACCESS EXCLUSIVE MODE")
            _demand_empty(in_the_vault, "vault")
        rebuilt = _drop_indexes(cursor)
        rows = 0
        for name, table in manifest.tables.items():
            if not in_vault(name):
                rows += _copy_in(cursor, backup, name, table, lambda done: told(done, twice))
            elif not keep_vault:
                rows += _copy_in(in_the_vault, backup, name, table)
        for statement in rebuilt:
            _remake(cursor, statement)
        crashpoints.reach("restore.copied")
        cursor.execute(
            "UPDATE log.head SET position = %s, recorded_at = %s, store_epoch = gen_random_uuid()"
            " RETURNING store_epoch",
            [manifest.position, manifest.recorded_at],
        )
        epoch = cursor.fetchall()[0][0]
        keys = _demand_master_key(in_the_vault, fits)
        demand_sound(cursor)
        _read_back(cursor, manifest, lambda done: told(manifest.position + done, twice))
        if manifest.erasures is not None:
            ErasureFile(ledger).take_over(backup.path(manifest.erasures))
        crashpoints.reach("restore.before_commit")
    return Restored(manifest.position, epoch, rows, keys)


def _begun(stack: ExitStack, connection: Connection) -> Cursor:
    stack.enter_context(connection)
    cursor: Cursor = stack.enter_context(connection.cursor())
    cursor.execute("SET LOCAL lock_timeout TO '10s'")
    return cursor


def demand_sound(cursor: Cursor) -> None:
    """Raises LogDamaged unless positions run from 1 to the head's without a gap, and the versions
    of every stream from 1 without a gap. Needs to read log.head and log.events."""
    cursor.execute(
        "SELECT head.position, count(events.position), coalesce(max(events.position), 0),"
        " coalesce(max(events.recorded_at), head.recorded_at) <= head.recorded_at"
        " FROM log.head AS head LEFT JOIN log.events AS events ON true"
        " GROUP BY head.position, head.recorded_at"
    )
    [(position, events, last, ordered)] = cursor.fetchall()
    if not position == events == last:
        raise LogDamaged(
            f"the head is at {position:,}, the last event at {last:,}, and there are {events:,}"
            " events: these must be the same"
        )
    if not ordered:
        raise LogDamaged("the last event was recorded later than the head says")
    cursor.execute(
        "SELECT stream_id FROM log.events GROUP BY stream_id"
        " HAVING min(version) <> 1 OR max(version) <> count(*) LIMIT 1"
    )
    for (stream,) in cursor.fetchall():
        raise LogDamaged(f"the versions of stream {stream} do not run from 1 without a gap")


def _held(cursor: Cursor, schema: str) -> str | None:
    """A table of the log or the vault that holds anything."""
    for table in _HOLDS[schema]:
        if columns(cursor, table):
            cursor.execute(f"SELECT EXISTS (SELECT FROM {table})")
            if cursor.fetchall()[0][0]:
                return table
    return None


def _demand_empty(cursor: Cursor, schema: str) -> None:
    table = _held(cursor, schema)
    if table is not None:
        raise NotEmpty(
            f"the database is not empty: {table} holds rows. A backup goes into an empty one only:"
            " name another by CRM_DATABASE_URL, or another CRM_DATA_DIR (with the master key of"
            " the backup in it, and the file of erasures if there is one)."
        )


def _demand_persons(cursor: Cursor, backup: Backup) -> None:
    """Raises NotEmpty unless everybody whose key is in the backup is in the vault that is here,
    with a key or erased."""
    table = backup.manifest.tables["vault.keys"]
    cursor.execute("CREATE TEMP TABLE backed_up (LIKE vault.keys) ON COMMIT DROP")
    for file in table.files:
        _copy_file(cursor, backup, "backed_up", table.columns, file)
    cursor.execute(
        "SELECT count(*) FROM backed_up"
        " WHERE NOT EXISTS (SELECT FROM vault.keys WHERE keys.subject = backed_up.subject)"
    )
    missing = cursor.fetchall()[0][0]
    if missing:
        raise NotEmpty(
            f"the vault holds keys, but not those of {missing:,} persons of the backup: it is that"
            " of another log. Name that of the backup, or an empty database, by"
            " CRM_VAULT_DATABASE_URL."
        )


def _drop_indexes(cursor: Cursor) -> list[str]:
    """Drops those of the events but the primary key's: made at the end they are made many times
    faster. Gives the statements that make them again."""
    cursor.execute(
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE conrelid = 'log.events'::regclass AND contype = 'u'"
    )
    constraints: list[tuple[str, str]] = cursor.fetchall()
    cursor.execute(
        "SELECT relname, pg_get_indexdef(indexrelid), obj_description(indexrelid)"
        " FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid"
        " WHERE indrelid = 'log.events'::regclass"
        " AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)"
    )
    indexes: list[tuple[str, str, str | None]] = cursor.fetchall()
    made = []
    for name, definition in constraints:
        cursor.execute(f"ALTER TABLE log.events DROP CONSTRAINT {quote(name)}")
        made.append(f"ALTER TABLE log.events ADD CONSTRAINT {quote(name)} {definition}")
    for name, definition, comment in indexes:
        cursor.execute(f"DROP INDEX log.{quote(name)}")
        made.append(definition)
        if comment is not None:
            literal = cursor.mogrify("%s", [comment]).decode()
            made.append(f"COMMENT ON INDEX log.{quote(name)} IS {literal}")
    return made


def _remake(cursor: Cursor, statement: str) -> None:
    try:
        cursor.execute(statement)
    except psycopg2.IntegrityError:
        raise NotWhole("the backup holds two events of one stream and version") from None


def _copy_in(
    cursor: Cursor,
    backup: Backup,
    name: str,
    table: Table,
    told: Callable[[int], None] = lambda _: None,
) -> int:
    there = columns(cursor, name)
    if not there or not set(table.columns) <= set(there):
        raise OtherSchema(f"the backup is of a {name} with columns that are not here")
    cursor.execute(f"DELETE FROM {name}")  # what a migration put there
    rows = 0
    for file in table.files:
        rows += _copy_file(cursor, backup, name, table.columns, file)
        if name == EVENTS:
            told(rows)
    if rows != table.rows:
        raise NotWhole(f"{rows:,} rows of {name} came in, {table.rows:,} were written")
    _set_sequences(cursor, name)
    return rows


def _copy_file(cursor: Cursor, backup: Backup, name: str, listed: list[str], file: File) -> int:
    names = ", ".join(map(quote, listed))
    with backup.opened(file) as stream:
        try:
            cursor.copy_expert(f"COPY {name} ({names}) FROM STDIN (FORMAT binary)", stream)
        except (psycopg2.DataError, psycopg2.IntegrityError, QueryCanceled, OSError) as error:
            reason = str(error).partition("\n")[0]
            raise NotWhole(f"{backup.path(file)} cannot be copied in: {reason}") from None
    return cursor.rowcount


def _set_sequences(cursor: Cursor, table: str) -> None:
    """Numbers that the database gives go on after the highest that came in."""
    for column in columns(cursor, table):
        cursor.execute("SELECT pg_get_serial_sequence(%s, %s)", [table, column])
        sequence = cursor.fetchall()[0][0]
        if sequence is not None:
            cursor.execute(
                f"SELECT setval(%s, coalesce(max({quote(column)}), 0) + 1, false) FROM {table}",
                [sequence],
            )


def _read_back(cursor: Cursor, manifest: Manifest, told: Callable[[int], None]) -> None:
    tree = Watched.of(manifest)

    def seen(*_: object) -> None:
        if tree.size % 10_000 == 0:
            told(tree.size)

    rows = EventRows(1, tree.add, seen)
    try:
        cursor.copy_expert(select_events(1, manifest.position), rows)
        rows.close()
    except Malformed as error:
        raise NotWhole(f"the events cannot be read back: {error}") from None
    demand_roots(manifest, tree)


def _demand_master_key(cursor: Cursor, fits: Fits | None) -> int:
    """How many keys of persons there are. Raises WrongMasterKey if the oldest cannot be opened."""
    cursor.execute("SELECT count(*) FROM vault.keys WHERE wrapped IS NOT NULL")
    keys: int = cursor.fetchall()[0][0]
    if keys and fits is not None:
        cursor.execute(
            "SELECT subject, wrapped FROM vault.keys WHERE wrapped IS NOT NULL"
            " ORDER BY created_at, subject LIMIT 1"
        )
        found: list[tuple[UUID, Any]] = cursor.fetchall()
        if not fits(found[0][0], bytes(found[0][1])):
            raise WrongMasterKey(
                "the master key that lies here is not the one that the keys in the backup were"
                " wrapped with. Put that of the backup's time in its place, or name it by"
                " CRM_MASTER_KEY_FILE; nothing was restored"
            )
    return keys
