"""The older part of the log as Parquet files, which can be read, replayed and proven without it.

A file holds one block of positions, a power of two, so that its events are a whole subtree of the
log's Merkle tree; the manifest names each block's root. Every column is kept exactly: ids as 16
bytes, times in microseconds, ``state`` as stored. What is archived stays in the database as well.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import msgspec
from msgspec import Meta, Struct, structs

from infra import crashpoints
from infra.backup.copied import EventRows, Malformed, fixed, variable
from infra.backup.manifest import Count, Digest, Name, checksum
from infra.backup.writing import checkpoint_up_to, log_id, select_events
from infra.durable import settle
from infra.postgres import Connection
from infra.proof.leaves import COLUMNS, Row, packed
from infra.proof.notes import NotANote, checkpoint_in
from infra.proof.tree import Frontier, leaf_hash

MANIFEST: Final = "archive.json"
BLOCK: Final = 2**18
"""Positions in a file."""

_GROUP: Final = 65_536
"""Rows of a row group of Parquet, which are in memory at once."""

_SINCE_1970: Final = 946_684_800_000_000
"""Microseconds from 1970, from which Parquet counts, to 2000, from which PostgreSQL does."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class ArchiveRefused(Exception):
    """An archive that cannot be made, gone on with or read; the message says why."""


class Part(Struct, frozen=True, forbid_unknown_fields=True):
    """A file: its positions are `first` to `last`; `root`, in hex, of the tree over them."""

    name: Name
    first: Count
    last: Count
    rows: Count
    bytes: Count
    sha256: Digest
    root: Digest


class Contents(Struct, frozen=True, forbid_unknown_fields=True):
    """What the manifest says. `checkpoint`: a signed one whose tree ends within the archive, as
    it was published; the newest there was."""

    log_id: str | None
    block: Annotated[int, Meta(ge=1, le=2**40)]
    checkpoint: str | None
    parts: list[Part]
    kind: Literal["crm-ledger archive"] = "crm-ledger archive"
    version: Literal[1] = 1

    @property
    def end(self) -> int:
        """The last position that is archived, 0 if none."""
        return len(self.parts) * self.block


class Archive:
    """A folder that holds an archive."""

    def __init__(self, folder: Path) -> None:
        """Reads the manifest alone. Raises ArchiveRefused."""
        self.folder = folder
        self.contents = _contents(folder)

    @property
    def end(self) -> int:
        """The last position that is archived."""
        return self.contents.end

    def rows(self, first: int = 1, last: int | None = None) -> Iterator[Row]:
        """The events of these positions, in order. Memory: a row group.

        Raises ArchiveRefused for a file that cannot be read, ValueError for positions that are not
        archived.
        """
        for columns in self._columns(first, last):
            for row in zip(*columns, strict=True):
                yield _row(row)

    def leaves(self, first: int = 1, last: int | None = None) -> Iterator[bytes]:
        """The leaves of the log's Merkle tree at these positions, in order; raises as `rows`."""
        for columns in self._columns(first, last):
            for row in zip(*columns, strict=True):
                yield _leaf(row)

    def root(self, size: int) -> bytes:
        """The root of the log's tree over its first `size` events. Of a part that ends there, what
        the manifest says; only of a part that goes further the file is read. Raises as `rows`."""
        if not 0 <= size <= self.end:
            raise ValueError(f"the archive ends at position {self.end:,}")
        block = self.contents.block
        whole, rest = divmod(size, block)
        tree = Frontier()
        for part in self.contents.parts[:whole]:
            tree.add(bytes.fromhex(part.root))
        if rest:
            last = Frontier()
            for leaf in self.leaves(whole * block + 1, size):
                last.add(leaf_hash(leaf))
            tree.add(last.root())  # the rightmost, smaller than its neighbours
        return tree.root()

    def check(self, told: Callable[[int], None] = lambda _: None) -> None:
        """Reads all of it: each file is what was written, its events are those of the tree, and
        the tree is that of the checkpoint. `told` hears how many events were read.

        Raises ArchiveRefused. Whether the checkpoint was signed by the log's key is not asked.
        """
        for part in self.contents.parts:
            path = self.folder / part.name
            try:
                found = checksum(path)
            except OSError as error:
                raise ArchiveRefused(f"{path} cannot be read: {error.strerror}") from None
            if found != (part.bytes, part.sha256):
                raise ArchiveRefused(f"{path} is not as it was written: size or SHA-256 differ")
            if _root_of(path, part) != part.root:
                raise ArchiveRefused(f"the events in {path} are not those that were archived")
            told(part.last)
        text = self.contents.checkpoint
        if text is not None:
            signed = checkpoint_in(text)
            if self.root(signed.size) != signed.root:
                raise ArchiveRefused(
                    f"the archive is not what the signed checkpoint of {signed.size:,} events says"
                )

    def _columns(self, first: int, last: int | None) -> Iterator[list[list[Any]]]:
        last = self.end if last is None else last
        if not first >= 1 or last > self.end:
            raise ValueError(f"the archive holds positions 1 to {self.end:,}")
        for part in self.contents.parts:
            if part.last >= first and part.first <= last:
                yield from _within(self.folder / part.name, first, last)


def extend(
    connection: Connection,
    folder: Path,
    to: int,
    *,
    block: int = BLOCK,
    told: Callable[[int], None] = lambda _: None,
) -> Contents:
    """Archives what is not yet in the folder, up to position `to`, in whole blocks: what is left
    over comes with a later archive. `block` is for a new archive; one that is there keeps its own.

    Each part is read back before the manifest names it, so who is stopped goes on from there.
    `told` hears the position come to. Reads in one short transaction a block. Raises
    ArchiveRefused, OSError and what the database raises.
    """
    connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone(folder):
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT position FROM log.head")
            position = cursor.fetchall()[0][0]
            identity = log_id(cursor)
        if not 1 <= to <= position:
            raise ArchiveRefused(f"the log has positions from 1 to {position:,}")
        contents = _begun(folder, identity, block)
        if contents.parts:
            _demand_same_log(connection, contents, identity, position)
        while contents.end + contents.block <= to:
            part = _write_part(connection, folder, contents.end + 1, contents.block)
            parts = [*contents.parts, part]
            with connection, connection.cursor() as cursor:
                checkpoint = checkpoint_up_to(cursor, part.last)
            contents = structs.replace(contents, parts=parts, checkpoint=checkpoint)
            crashpoints.reach("archive.written")
            _save(folder, contents)
            told(part.last)
    return contents


def _begun(folder: Path, identity: str | None, block: int) -> Contents:
    if (folder / MANIFEST).exists():
        return _contents(folder)
    others = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
    strange = [name for name in others if not name.startswith("events-")]
    if strange:
        raise ArchiveRefused(f"{folder} holds what is not of an archive: {min(strange)}")
    if block.bit_count() != 1:
        raise ValueError("a block is a power of two")
    return Contents(log_id=identity, block=block, checkpoint=None, parts=[])


def _demand_same_log(
    connection: Connection, contents: Contents, identity: str | None, position: int
) -> None:
    """Holds the last part against the log: a tree of other events has another root."""
    part = contents.parts[-1]
    other = None not in (identity, contents.log_id) and identity != contents.log_id
    if other or position < part.last or _root_in_log(connection, part) != part.root:
        raise ArchiveRefused(
            f"the archive is of another log, or of one that was restored to before position"
            f" {part.last:,}: begin another archive"
        )


def _root_in_log(connection: Connection, part: Part) -> str:
    tree = Frontier()
    with connection, connection.cursor() as cursor:
        _copy(cursor, EventRows(part.first, tree.add), part.first, part.last)
    return tree.root().hex()


def _copy(cursor: Any, rows: EventRows, first: int, last: int) -> None:
    try:
        cursor.copy_expert(select_events(first, last), rows)
        rows.close()
    except Malformed as error:
        raise ArchiveRefused(f"the log is damaged: {error}; see crm doctor") from None


def _write_part(connection: Connection, folder: Path, first: int, block: int) -> Part:
    last = first + block - 1
    path = folder / f"events-{first:012}-{last:012}.parquet"
    draft = folder / f".{path.name}.{uuid.uuid4().hex[:8]}"
    tree = Frontier()
    try:
        with _ParquetFile(draft) as file, connection, connection.cursor() as cursor:
            _copy(cursor, EventRows(first, tree.add, file.add), first, last)
        if tree.size != block:
            raise ArchiveRefused("the log is damaged: it ends early; see crm doctor")
        size, digest = checksum(draft)
        part = Part(path.name, first, last, block, size, digest, tree.root().hex())
        if _root_of(draft, part) != part.root:
            raise ArchiveRefused(f"{draft} does not read back as it was written")
        settle(draft)
        draft.replace(path)
        settle(folder)
    finally:
        draft.unlink(missing_ok=True)
    return part


def _save(folder: Path, contents: Contents) -> None:
    draft = folder / f".{MANIFEST}.new"
    text = msgspec.json.format(msgspec.json.encode(contents), indent=2)
    draft.write_bytes(text + b"\n")
    settle(draft)
    draft.replace(folder / MANIFEST)
    settle(folder)


def _contents(folder: Path) -> Contents:
    path = folder / MANIFEST
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Contents)
    except OSError as error:
        raise ArchiveRefused(f"{path} cannot be read: {error.strerror}") from None
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise ArchiveRefused(f"{path} is not of an archive: {error}") from None
    for number, part in enumerate(found.parts):
        first = number * found.block + 1
        if (part.first, part.last, part.rows) != (first, first + found.block - 1, found.block):
            raise ArchiveRefused(f"{path} is not of an archive: its parts do not follow each other")
    if found.block.bit_count() != 1:
        raise ArchiveRefused(f"{path} is not of an archive: its parts are no subtrees")
    if found.checkpoint is not None:
        with suppress(NotANote):
            if checkpoint_in(found.checkpoint).size <= found.end:
                return found
        raise ArchiveRefused(f"{path} is not of an archive: its checkpoint cannot be read")
    return found


def _root_of(path: Path, part: Part) -> str:
    tree = Frontier()
    for columns in _within(path, part.first, part.last):
        for row in zip(*columns, strict=True):
            tree.add(leaf_hash(_leaf(row)))
    return tree.root().hex()


def _within(path: Path, first: int, last: int) -> Iterator[list[list[Any]]]:
    """The columns of the rows in the file that have these positions, group by group."""
    import pyarrow as pa  # heavy, and only needed here
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            if file.schema_arrow.names != list(COLUMNS):
                raise ArchiveRefused(f"{path} has other columns")
            for group in range(file.num_row_groups):
                table = file.read_row_group(group)
                positions = table.column("position").to_pylist()
                start = next((i for i, p in enumerate(positions) if p >= first), len(positions))
                end = next((i for i, p in enumerate(positions) if p > last), len(positions))
                if start < end:
                    yield [_values(pa, one.slice(start, end - start)) for one in table.columns]
    except (OSError, pa.ArrowException) as error:
        reason = str(error).partition("\n")[0]
        raise ArchiveRefused(f"{path} cannot be read: {reason}") from None


def _values(pa: Any, column: Any) -> list[Any]:
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    values: list[Any] = column.to_pylist()
    return values


class _ParquetFile:
    """Takes rows of a binary COPY of the events."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._pa = pa
        self._schema = pa.schema(
            [pa.field(name, kind(pa), nullable=name in _NULLABLE) for name, kind in _KINDS.items()]
        )
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")
        self._waiting: list[Sequence[Any]] = []

    def __enter__(self) -> _ParquetFile:
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        if self._waiting and failed is None:
            self._flush()
        self._writer.close()

    def add(self, buffer: bytes, at: int, _end: int) -> None:
        found = fixed(buffer, at)
        times = (found.occurred_at + _SINCE_1970, found.recorded_at + _SINCE_1970)
        if max(times) >= 2**63:
            raise ArchiveRefused(f"position {found.position:,} has a time that is no time")
        self._waiting.append((*found[:5], *times, *found[7:], *variable(buffer, at)))
        if len(self._waiting) >= _GROUP:
            self._flush()

    def _flush(self) -> None:
        columns = [
            self._column(field.type, values)
            for field, values in zip(self._schema, zip(*self._waiting, strict=True), strict=True)
        ]
        self._writer.write_batch(self._pa.RecordBatch.from_arrays(columns, schema=self._schema))
        self._waiting = []

    def _column(self, kind: Any, values: Sequence[Any]) -> Any:
        if self._pa.types.is_timestamp(kind):
            return self._pa.array(values, self._pa.int64()).cast(kind)
        return self._pa.array(values, kind)


def _id(pa: Any) -> Any:
    return pa.binary(16)


def _moment(pa: Any) -> Any:
    return pa.timestamp("us", tz="UTC")


_KINDS: Final[dict[str, Callable[[Any], Any]]] = {
    "position": lambda pa: pa.int64(),
    "stream_id": _id,
    "version": lambda pa: pa.int32(),
    "class_version": lambda pa: pa.int16(),
    "partition_key": _id,
    "occurred_at": _moment,
    "recorded_at": _moment,
    "command_id": _id,
    "correlation_id": _id,
    "causation_id": _id,
    "topic": lambda pa: pa.string(),
    "actor": lambda pa: pa.string(),
    "reason": lambda pa: pa.string(),
    "traceparent": lambda pa: pa.string(),
    "state": lambda pa: pa.binary(),
}
_NULLABLE: Final = ("causation_id", "reason", "traceparent")


def _row(row: Sequence[Any]) -> Row:
    return Row(
        row[0],
        UUID(bytes=row[1]),
        row[2],
        row[3],
        UUID(bytes=row[4]),
        _EPOCH + timedelta(microseconds=row[5]),
        _EPOCH + timedelta(microseconds=row[6]),
        UUID(bytes=row[7]),
        UUID(bytes=row[8]),
        None if row[9] is None else UUID(bytes=row[9]),
        *row[10:],
    )


def _leaf(row: Sequence[Any]) -> bytes:
    """As `infra.proof.leaves.leaf` has it, without the way by UUIDs and times."""
    times = (row[5] - _SINCE_1970, row[6] - _SINCE_1970)
    return packed(
        (*row[:5], *times, *row[7:9]),
        [one.encode() if isinstance(one, str) else one for one in row[9:]],
    )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Raises ArchiveRefused if another process archives into the folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ArchiveRefused(f"another process archives into {folder} just now") from None
    else:
        yield
    finally:
        os.close(descriptor)
