"""``crm verify``: is the log what was signed? Changes nothing, and needs no more than to read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from infra.postgres import Connection, connect
from infra.proof.keyring import Keyring
from infra.proof.locating import Verdict, verify
from infra.proof.notes import (
    MOST_BYTES,
    Checkpoint,
    NotANote,
    Note,
    NotTrusted,
    SigningKey,
    VerifyingKey,
    origin_of,
    parse,
)
from infra.proof.publishing import CheckpointFolder
from infra.proof.snapshots import wrong_snapshots
from infra.proof.sources import DatabaseSource, ExportSource
from infra.proof.stored import Stored
from infra.proof.verifying import NoTiles, Source, Tiles
from infra.settings import Settings
from workers.wiring import databases

GOOD, WRONG = 0, 1

MOST_CHECKPOINTS = 5_000
"""Stored checkpoints that are held against the log; of more, some are left out, evenly."""

_SHOWN = 20


class CannotVerify(Exception):
    """What was asked for cannot be verified: a file or a key is missing or not to be read."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What to hold the log against: files with checkpoints, and vkeys. With `export`, the events
    are read from that file instead of the database."""

    checkpoints: Sequence[Path] = ()
    keys: Sequence[str] = ()
    export: Path | None = None


@dataclass(slots=True)
class _Evidence:
    """Checkpoints that a trusted key signed, and what is wrong with the others."""

    good: list[Checkpoint] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def run_verify(
    settings: Settings,
    asked: Asked,
    told: Callable[[str], None],
    console: Console | None = None,
) -> int:
    """Tells line by line what was found; exit code 0 if all is good, 1 if something is wrong.

    Raises ``CannotVerify``, and what keeps the database from being used.
    """
    given = _given(asked)
    # Read before the log is: what is published by then is in the log by then.
    latest = CheckpointFolder(settings.checkpoint_dir).latest()
    with ExitStack() as stack:
        progress = stack.enter_context(_progress(console))
        if asked.export is not None:
            return _export(settings, asked, asked.export, given, told, progress)
        addresses = stack.enter_context(databases(settings, administering=False))
        streaming, reading = (stack.enter_context(_reader(addresses.log)) for _ in range(2))
        _share_snapshot(streaming, reading)
        if latest is not None:
            given[str(settings.checkpoint_dir / "latest")] = _parsed("latest", latest)
        return _database(settings, asked, given, streaming, reading, told, progress)


def _database(
    settings: Settings,
    asked: Asked,
    given: dict[str, Note],
    streaming: Connection,
    reading: Connection,
    told: Callable[[str], None],
    progress: Progress,
) -> int:
    stored = Stored(reading)
    origin, head = origin_of(stored.log_id()), stored.head()
    ring = Keyring(_trusted(settings, asked, origin))
    evidence = _Evidence()
    in_table = dict(_stored_notes(stored, evidence))
    ring.learn([*given.values(), *in_table.values()], _readable(stored.vkeys()))
    _weigh(evidence, ring, {**given, **in_table}, origin)
    source = DatabaseSource(streaming)
    verdict = _verified(source, stored, evidence, head, progress)
    snapshots = [str(one) for one in wrong_snapshots(reading)]
    return _tell(verdict, evidence, snapshots, told)


def _export(
    settings: Settings,
    asked: Asked,
    path: Path,
    given: dict[str, Note],
    told: Callable[[str], None],
    progress: Progress,
) -> int:
    if not given:
        raise CannotVerify("an export is verified against a checkpoint: name one by --checkpoint")
    if not path.is_file():
        raise CannotVerify(f"{path} is not there")
    origin = next(iter(given.values())).checkpoint.origin
    ring = Keyring(_trusted(settings, asked, origin))
    ring.learn(list(given.values()), [])
    evidence = _Evidence()
    _weigh(evidence, ring, given, origin)
    verdict = _verified(ExportSource(path), NoTiles(), evidence, None, progress)
    return _tell(verdict, evidence, [], told)


def _verified(
    source: Source, tiles: Tiles, evidence: _Evidence, head: int | None, progress: Progress
) -> Verdict:
    task = progress.add_task("events", total=head)
    return verify(
        source,
        tiles,
        evidence.good,
        head=head,
        reached=lambda position: progress.update(task, completed=position),
    )


def _tell(
    verdict: Verdict, evidence: _Evidence, snapshots: list[str], told: Callable[[str], None]
) -> int:
    wrong = [f"checkpoint: {text}" for text in evidence.wrong]
    wrong += [str(fault) for fault in verdict.faults]
    wrong += verdict.tiles + snapshots
    for line in wrong[:_SHOWN]:
        told(f"WRONG  {line}")
    if len(wrong) > _SHOWN:
        told(f"WRONG  and {len(wrong) - _SHOWN:,} things more")
    if not verdict.events and not evidence.good and not wrong:
        told("ok     the log is empty: there is nothing to prove")
        return GOOD
    if not evidence.good and verdict.events:
        told(
            f"WRONG  {verdict.events:,} events, and no checkpoint that is to be trusted: nothing"
            " is proven. crm seal --once makes the first"
        )
        return WRONG
    text = f"{verdict.proven:,} events are what was signed ({len(evidence.good):,} checkpoints)"
    after = verdict.events - verdict.proven
    if after > 0 and not verdict.faults:
        text += f"; {after:,} after them are not sealed yet"
    told(f"{'ok    ' if not wrong else 'proven'} {text}")
    return WRONG if wrong else GOOD


def _given(asked: Asked) -> dict[str, Note]:
    """The checkpoints in the files that were named."""
    found = {}
    for path in asked.checkpoints:
        try:
            with path.open("rb") as file:
                text = file.read(MOST_BYTES + 1)
        except OSError as error:
            raise CannotVerify(f"{path} cannot be read: {error.strerror or error}") from None
        try:
            found[str(path)] = parse(text)
        except NotANote as error:
            raise CannotVerify(f"{path} is no checkpoint: {error}") from None
    return found


def _parsed(name: str, text: str) -> Note:
    try:
        return parse(text)
    except NotANote as error:
        raise CannotVerify(f"{name} is no checkpoint: {error}") from None


def _trusted(settings: Settings, asked: Asked, origin: str) -> list[VerifyingKey]:
    """The keys that were named, else the one in the key file."""
    if asked.keys:
        try:
            return [VerifyingKey.parse(text) for text in asked.keys]
        except ValueError as error:
            raise CannotVerify(f"--key: {error}") from None
    try:
        seed = settings.seal_key_file.read_bytes()
    except OSError as error:
        raise CannotVerify(
            f"no key to trust: {settings.seal_key_file} cannot be read"
            f" ({error.strerror or error}), and none is named by --key"
        ) from None
    if len(seed) != 32:
        raise CannotVerify(f"{settings.seal_key_file} must hold 32 bytes")
    return [SigningKey(origin, seed).verifying]


def _stored_notes(stored: Stored, evidence: _Evidence) -> Iterator[tuple[str, Note]]:
    """The checkpoints in the table. Of very many some are left out; never a handover."""
    count = stored.count()
    stride = -(-count // MOST_CHECKPOINTS) or 1
    for number, one in enumerate(stored.checkpoints(), 1):
        name = f"the stored one of size {one.size:,} (number {one.number:,})"
        try:
            note = parse(one.note)
        except NotANote as error:
            evidence.wrong.append(f"{name} is no note: {error}")
            continue
        if note.checkpoint.size != one.size:
            evidence.wrong.append(f"{name} says size {note.checkpoint.size:,}")
        if (count - number) % stride == 0 or len(note.signatures) > 1:
            yield name, note


def _readable(vkeys: Sequence[str]) -> Iterator[VerifyingKey]:
    for text in vkeys:
        try:
            yield VerifyingKey.parse(text)
        except ValueError:
            continue  # not evidence, and then of no use


def _weigh(evidence: _Evidence, ring: Keyring, notes: dict[str, Note], origin: str) -> None:
    for name, note in notes.items():
        if note.checkpoint.origin != origin:
            evidence.wrong.append(f"{name} is of another log, {note.checkpoint.origin}")
            continue
        try:
            ring.check(note)
        except NotTrusted as error:
            evidence.wrong.append(f"{name}: {error}")
            continue
        evidence.good.append(note.checkpoint)


@contextmanager
def _reader(url: str) -> Iterator[Connection]:
    connection = connect(url, role="crm_reader", search_path=["log"], application_name="crm-verify")
    connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
    try:
        yield connection
    finally:
        connection.close()


def _share_snapshot(first: Connection, second: Connection) -> None:
    """Both see the log as it is at one moment."""
    with first.cursor() as cursor:
        cursor.execute("SELECT pg_export_snapshot()")
        row = cursor.fetchone()
    with second.cursor() as cursor:
        cursor.execute("SET TRANSACTION SNAPSHOT %s", row)


def _progress(console: Console | None) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console or Console(stderr=True),
        transient=True,
    )
