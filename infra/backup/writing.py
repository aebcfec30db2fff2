"""From the database into files, beside whoever writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from psycopg2.extensions import cursor as Cursor  # noqa: N812  (it is a class)

from infra import crashpoints
from infra.backup.copied import EventRows, Malformed, Rows
from infra.backup.manifest import (
    BLOCK,
    MANIFEST,
    Applied,
    File,
    LogDamaged,
    Manifest,
    Table,
    checksum,
)
from infra.backup.tables import CARRIED, EVENTS, in_vault
from infra.postgres import Connection, quote
from infra.proof.leaves import COLUMNS
from infra.proof.tree import Frontier


def write(
    connection: Connection,
    folder: Path,
    ledger: Path,
    *,
    vault: Connection | None = None,
    block: int = BLOCK,
    told: Callable[[int, int], None] = lambda _done, _total: None,
) -> Manifest:
    """Writes a backup into an empty folder. `ledger`: the file of erasures, which may be missing.
    `vault`: where the vault is, if that is another database.

    All tables but the events are read in one snapshot, of one moment; the events up to that moment
    after it, part by part: they never change, and a snapshot held for hours would keep the server
    from clearing away old versions of the rows that every append updates. A vault elsewhere is
    read in a snapshot of a later moment. So there is a key for every event that needs one: it was
    committed before the event. `told` hears the events written, and how many there are. Raises
    LogDamaged, OSError and what the database raises.
    """
    made_at = datetime.now(UTC)
    tables: dict[str, Table] = {}
    with _snapshot(connection) as cursor:
        cursor.execute("SELECT position, recorded_at, store_epoch FROM log.head")
        position, recorded_at, epoch = cursor.fetchall()[0]
        if set(columns(cursor, EVENTS)) != set(COLUMNS):
            raise LogDamaged(f"the columns of {EVENTS} are not those of this program")
        migrations = {"log": applied(cursor, "log")}
        identity, checkpoint = log_id(cursor), checkpoint_up_to(cursor, position)
        with nullcontext(cursor) if vault is None else _snapshot(vault) as in_the_vault:
            migrations["vault"] = applied(in_the_vault, "vault")
            for name in CARRIED:
                where = in_the_vault if in_vault(name) else cursor
                listed = columns(where, name)
                if listed and name != EVENTS:
                    tables[name] = _whole_table(where, name, listed, folder)
    tree, files = Frontier(), []
    for first in range(1, position + 1, block):
        with connection, connection.cursor() as cursor:
            last = min(first + block - 1, position)
            files.append(_events(cursor, first, last, tree, folder, lambda n: told(n, position)))
    manifest = Manifest(
        made_at=made_at,
        log_id=identity,
        store_epoch=epoch,
        position=position,
        recorded_at=recorded_at,
        root=tree.root().hex(),
        checkpoint=checkpoint,
        migrations=migrations,
        tables={EVENTS: Table(list(COLUMNS), position, files), **tables},
        erasures=_ledger(ledger, folder),  # last: it may hold more than the tables, never less
        block=block,
    )
    crashpoints.reach("backup.before_manifest")
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    (folder / MANIFEST).write_bytes(text + b"\n")
    return manifest


@contextmanager
def _snapshot(connection: Connection) -> Iterator[Cursor]:
    connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
    with connection, connection.cursor() as cursor:
        yield cursor


def applied(cursor: Cursor, schema: str) -> list[Applied]:
    """The migrations that were applied to a schema; none where there is no such schema."""
    cursor.execute("SELECT to_regclass(%s) IS NOT NULL", [f"{quote(schema)}.migration"])
    if not cursor.fetchall()[0][0]:
        return []
    cursor.execute(f"SELECT number, name, checksum FROM {quote(schema)}.migration ORDER BY number")
    return [Applied(*row) for row in cursor.fetchall()]


def columns(cursor: Cursor, table: str) -> list[str]:
    """What has to be written of a table: no column that is computed. None if it is not there."""
    cursor.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0"
        " AND NOT attisdropped AND attgenerated = '' ORDER BY attnum",
        [table],
    )
    return [row[0] for row in cursor.fetchall()]


def log_id(cursor: Cursor) -> str | None:
    """The log's identity, which restores keep; None where it has none yet."""
    if "log_id" not in columns(cursor, "log.seal"):
        return None
    cursor.execute("SELECT log_id::text FROM log.seal LIMIT 1")
    rows = cursor.fetchall()
    return rows[0][0] if rows else None


def checkpoint_up_to(cursor: Cursor, position: int) -> str | None:
    """The newest that was signed for this log, of at most so many events, as it was published;
    None where none was."""
    if "note" not in columns(cursor, "log.checkpoint"):
        return None
    cursor.execute(
        "SELECT note FROM log.checkpoint"
        " WHERE log_id = (SELECT log_id FROM log.seal) AND size <= %s"
        " ORDER BY size DESC, number DESC LIMIT 1",
        [position],
    )
    rows = cursor.fetchall()
    return rows[0][0] if rows else None


def select_events(first: int, last: int) -> str:
    """A statement that copies the events of these positions out, in the order of positions."""
    return (
        f"COPY (SELECT {', '.join(COLUMNS)} FROM log.events"
        f" WHERE position BETWEEN {int(first)} AND {int(last)} ORDER BY position)"
        " TO STDOUT (FORMAT binary)"
    )


def _whole_table(cursor: Cursor, name: str, listed: list[str], folder: Path) -> Table:
    rows = Rows()
    path = folder / f"{name}.copy.zst"
    with _packed(path) as file:
        sink = _Both(rows, file)
        names = ", ".join(map(quote, listed))
        cursor.copy_expert(f"COPY {name} ({names}) TO STDOUT (FORMAT binary)", sink)
        sink.flush()
    rows.close()
    written = File(path.name, rows.rows, *checksum(path))
    return Table(listed, rows.rows, [written])


def _events(
    cursor: Cursor, first: int, last: int, tree: Frontier, folder: Path, told: Callable[[int], None]
) -> File:
    own = Frontier()
    rows = EventRows(first, own.add)
    path = folder / f"{EVENTS}-{first:012}.copy.zst"
    try:
        with _packed(path) as file:
            sink = _Both(rows, file, lambda: told(first - 1 + own.size))
            cursor.copy_expert(select_events(first, last), sink)
            sink.flush()
        rows.close()
    except Malformed as error:
        raise LogDamaged(f"the log is damaged: {error}; see crm doctor") from None
    if own.size != last - first + 1:
        raise LogDamaged(f"the log is damaged: it ends at position {first - 1 + own.size:,}")
    tree.add(own.root())
    told(last)
    return File(path.name, rows.rows, *checksum(path), first=first, root=own.root().hex())


class _Both:
    """Where a COPY goes: counted and hashed, and packed into the file."""

    def __init__(self, rows: Rows, file: Any, told: Callable[[], None] = lambda: None) -> None:
        self._rows = rows
        self._file = file
        self._told = told
        self._pieces: list[bytes] = []
        self._size = 0

    def write(self, row: bytes) -> int:
        self._pieces.append(row)
        self._size += len(row)
        if self._size >= 1_048_576:
            self.flush()
        return len(row)

    def flush(self) -> None:
        piece, self._pieces, self._size = b"".join(self._pieces), [], 0
        self._rows.write(piece)
        self._file.write(piece)
        self._told()


@contextmanager
def _packed(path: Path) -> Iterator[Any]:
    import pyarrow as pa  # heavy, and only needed here

    with pa.OSFile(str(path), "wb") as raw, pa.CompressedOutputStream(raw, "zstd") as file:
        yield file


def _ledger(ledger: Path, folder: Path) -> File | None:
    try:
        text = ledger.read_bytes()
    except FileNotFoundError:
        return None
    text = text[: text.rfind(b"\n") + 1]  # a line that is being written comes with the next backup
    path = folder / "erasures.ndjson"
    path.write_bytes(text)
    return File(path.name, text.count(b"\n"), *checksum(path))
