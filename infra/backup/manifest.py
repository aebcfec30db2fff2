"""What a backup says of itself, and whether its files are what it says."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import msgspec
from msgspec import Meta, Struct, field

from infra.backup.copied import EventRows, Malformed, Rows
from infra.backup.tables import CARRIED, EVENTS
from infra.proof.leaves import COLUMNS
from infra.proof.notes import NotANote, checkpoint_in
from infra.proof.tree import Frontier

MANIFEST: Final = "manifest.json"
KIND: Final = "crm-ledger backup"
BLOCK: Final = 2**20
"""Positions in a file of events, a power of two: each but the last is a whole tree of its own."""

_PIECE: Final = 1_048_576

Name = Annotated[str, Meta(pattern=r"^[a-z0-9_]([a-z0-9_.-]{0,98}[a-z0-9_])?$")]
Column = Annotated[str, Meta(pattern=r"^[a-z_][a-z0-9_]{0,62}$")]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Meta(ge=0, le=2**62)]


class BackupRefused(Exception):
    """A backup that cannot be made, read or restored; the message says why, and the way out.

    - ``NotWhole``: no backup, or not what its manifest says
    - ``NotEmpty``: the log to restore into holds something
    - ``OtherSchema``: the backup was made by a program whose tables this one does not have
    - ``LogDamaged``: the log itself is not what a log is
    """


class NotWhole(BackupRefused):
    pass


class NotEmpty(BackupRefused):
    pass


class OtherSchema(BackupRefused):
    pass


class LogDamaged(BackupRefused):
    pass


class File(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`root`, in hex: of the tree over the events in the file, which are from `first` on."""

    name: Name
    rows: Count
    bytes: Count
    sha256: Digest
    first: Count | None = None
    root: Digest | None = None


class Table(Struct, frozen=True, forbid_unknown_fields=True):
    columns: list[Column]
    rows: Count
    files: list[File]


class Applied(Struct, frozen=True, forbid_unknown_fields=True):
    """A migration that had been applied."""

    number: Count
    name: str
    checksum: str


class Manifest(Struct, frozen=True, forbid_unknown_fields=True):
    """`root`, in hex: of the tree over all events. `checkpoint`: the newest that was signed, as it
    was published. `log_id`: carried over by a restore, other than `store_epoch`. `erasures`: the
    ledger of erasures, a line each. `block`: positions in a file of events."""

    made_at: datetime
    log_id: str | None
    store_epoch: UUID
    position: Count
    recorded_at: datetime
    root: Digest
    checkpoint: str | None
    migrations: dict[str, list[Applied]]
    tables: dict[str, Table]
    erasures: File | None
    block: Annotated[int, Meta(ge=1, le=2**40)]
    kind: Literal["crm-ledger backup"] = KIND
    version: Literal[1] = 1
    compression: Literal["zstd"] = "zstd"
    format: str = field(default="COPY binary")


class Backup:
    """A folder that holds a backup."""

    def __init__(self, folder: Path) -> None:
        """Reads the manifest alone. Raises NotWhole."""
        self.folder = folder
        try:
            text = (folder / MANIFEST).read_bytes()
            self.manifest = msgspec.json.decode(text, type=Manifest)
        except OSError as error:
            reason = f"{MANIFEST} cannot be read: {error.strerror}"
            raise NotWhole(f"{folder} holds no whole backup: {reason}") from None
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise NotWhole(f"{folder / MANIFEST} is not of a backup: {error}") from None
        _consistent(folder, self.manifest)

    def path(self, file: File) -> Path:
        return self.folder / file.name

    def files(self) -> list[tuple[str, File]]:
        """All of them, with the table that they are of; the ledger of erasures is of none."""
        found = [(name, one) for name, t in self.manifest.tables.items() for one in t.files]
        return found + ([("", self.manifest.erasures)] if self.manifest.erasures else [])

    def check_sums(self) -> None:
        """Raises NotWhole for a file that is missing or was changed."""
        for _, file in self.files():
            path = self.path(file)
            try:
                found = checksum(path)
            except OSError as error:
                raise NotWhole(f"{path} cannot be read: {error.strerror}") from None
            if found != (file.bytes, file.sha256):
                raise NotWhole(f"{path} is not as it was written: size or SHA-256 differ")

    def check_rows(self, told: Callable[[int], None] = lambda _: None) -> None:
        """Reads every row: counts, positions without a gap, and the tree over the events, also at
        the checkpoint. `told` hears how many events were read. Raises NotWhole."""
        tree = Watched.of(self.manifest)
        for name, file in self.files():
            if not name:
                continue
            try:
                self._check_file(name, file, tree, told)
            except Malformed as error:
                raise NotWhole(f"{self.path(file)}: {error}") from None
        demand_roots(self.manifest, tree)

    def _check_file(
        self, name: str, file: File, tree: Frontier, told: Callable[[int], None]
    ) -> None:
        own = Frontier()
        if name == EVENTS:

            def hashed(leaf: bytes) -> None:
                own.add(leaf)
                tree.add(leaf)

            rows: Rows = EventRows(file.first or 1, hashed)
        else:
            rows = Rows()
        with self.opened(file) as stream:
            for piece in pieces(stream):
                rows.write(piece)
                if name == EVENTS:
                    told(tree.size)
        rows.close()
        if rows.rows != file.rows:
            raise Malformed(f"{rows.rows:,} rows, {file.rows:,} were written")
        if name == EVENTS and own.root().hex() != file.root:
            raise Malformed("its events are not those that were written")

    def opened(self, file: File) -> Any:
        """The file's content, to be read; closed by its ``with``. Reading raises OSError."""
        import pyarrow as pa  # heavy, and only needed here

        return pa.CompressedInputStream(pa.OSFile(str(self.path(file)), "rb"), "zstd")


class Watched(Frontier):
    """A tree that keeps what its root was at one size."""

    @classmethod
    def of(cls, manifest: Manifest) -> Watched:
        """At its checkpoint."""
        text = manifest.checkpoint
        return cls(None if text is None else checkpoint_in(text).size)

    def __init__(self, size: int | None) -> None:
        super().__init__()
        self._at = size
        self.found: bytes | None = self.root() if size == 0 else None

    def add(self, hashed: bytes) -> None:
        super().add(hashed)
        if self.size == self._at:
            self.found = self.root()


def demand_roots(manifest: Manifest, tree: Watched) -> None:
    """Raises NotWhole unless the tree over all events is that of the manifest, and of the
    checkpoint in it."""
    if tree.size != manifest.position:
        raise NotWhole(f"there are {tree.size:,} events, the manifest says {manifest.position:,}")
    if tree.root().hex() != manifest.root:
        raise NotWhole("the events are not those that were backed up")
    if manifest.checkpoint is not None and tree.found != checkpoint_in(manifest.checkpoint).root:
        raise NotWhole("the events are not those of the signed checkpoint in the manifest")


def pieces(stream: Any) -> Iterator[bytes]:
    """Raises Malformed where what is compressed is damaged."""
    while True:
        try:
            piece: bytes = stream.read(_PIECE)
        except OSError:
            raise Malformed("it cannot be unpacked") from None
        if not piece:
            return
        yield piece


def checksum(path: Path) -> tuple[int, str]:
    """Size and SHA-256. Raises OSError."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return path.stat().st_size, digest


def _consistent(folder: Path, manifest: Manifest) -> None:
    """Raises NotWhole for what no backup says of itself."""
    events = manifest.tables.get(EVENTS)
    strange = sorted(manifest.tables.keys() - CARRIED.keys())
    names = [file.name for table in manifest.tables.values() for file in table.files]
    reason = None
    if events is None or tuple(events.columns) != COLUMNS:
        reason = "the columns of the events are not those of this program"
    elif not {"vault.keys", "log.receipts"} <= manifest.tables.keys():
        reason = "it holds no keys of persons, or no receipts"
    elif strange:
        reason = f"it holds a table that is not known here: {strange[0]}"
    elif any(t.rows != sum(file.rows for file in t.files) for t in manifest.tables.values()):
        reason = "the counts of files do not add up"
    elif events.rows != manifest.position:
        reason = f"{events.rows:,} events for a log of {manifest.position:,}"
    elif not _blockwise(events.files, manifest.position, manifest.block):
        reason = "its files do not hold all positions, block by block"
    elif len(set(names)) != len(names) or set(manifest.migrations) != {"log", "vault"}:
        reason = "names occur twice, or are missing"
    elif manifest.checkpoint is not None:
        reason = _strange_checkpoint(manifest.checkpoint, manifest.position)
    if reason is not None:
        raise NotWhole(f"{folder / MANIFEST} is not of a whole backup: {reason}")


def _blockwise(files: list[File], position: int, block: int) -> bool:
    """Whether the files hold these positions, each but the last a whole tree."""
    firsts = range(1, position + 1, block)
    return (
        block.bit_count() == 1
        and len(files) == len(firsts)
        and all(file.first == first for file, first in zip(files, firsts, strict=True))
        and all(file.rows == block for file in files[:-1])
    )


def _strange_checkpoint(text: str, position: int) -> str | None:
    try:
        if checkpoint_in(text).size > position:
            return "its checkpoint is of a longer log"
    except NotANote:
        return "its checkpoint cannot be read"
    return None
