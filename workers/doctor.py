"""``crm doctor``: is everything all right? Looks, and changes nothing."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg2

from infra.embedded import EmbeddedPostgres, EmbeddedPostgresError
from infra.erasure_file import ErasureFile
from infra.logging import without_secrets
from infra.master_keys import former_of, new_of
from infra.migrations import (
    LOG_SCHEMAS,
    READ_SCHEMAS,
    VAULT_SCHEMAS,
    MigrationError,
    SchemaTooOld,
    check,
)
from infra.postgres import Pool, connect
from infra.settings import Settings
from infra.vault import WrongMasterKey, holds_keys, open_vault
from workers.carriage import carriage
from workers.examining import read_models
from workers.finding import Finding
from workers.sealed import sealed
from workers.wiring import Databases, in_settings, models_of, signing_key_file

LITTLE_SPACE = 1_000_000_000
"""Bytes free on the disk, below which it is a problem."""


def examine(settings: Settings) -> Iterator[Finding]:
    """What there is to say, one thing after the other. Starts the embedded database if needed.

    Raises ``SettingsError`` for a definitions file that cannot be used.
    """
    yield from _files(settings)
    if settings.embedded and not (settings.data_dir / "postgres").exists():
        yield Finding(True, "database", "none yet; crm up makes it")
        return
    with ExitStack() as stack:
        try:
            addresses = _addresses(settings, stack)
            yield _server(settings, addresses)
            yield from _schemas(addresses)
        except (EmbeddedPostgresError, MigrationError, psycopg2.OperationalError) as error:
            reason = " ".join(without_secrets(str(error)).split())
            if isinstance(error, SchemaTooOld):
                reason += "; crm api or crm up applies it"
            yield Finding(False, "database", reason)
            return
        yield _vault(settings, addresses)
        yield _erasures(settings, addresses)
        yield from _log(settings, addresses)
        yield sealed(settings, addresses)
        by_kafka = settings.kafka_bootstrap is not None
        if by_kafka:
            with Pool(
                addresses.log, size=1, role="crm_reader", search_path=["log"], autocommit=True
            ) as log_pool:
                yield from carriage(settings, log_pool)
        models = models_of(settings)
        yield from read_models(settings.partitions, addresses, by_kafka=by_kafka, models=models)


def _files(settings: Settings) -> Iterator[Finding]:
    directory = settings.data_dir
    if not directory.exists():
        yield Finding(True, "data directory", f"{directory} is not there yet; crm up makes it")
        return
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        yield Finding(False, "data directory", f"{directory} is not yours to use")
    else:
        yield Finding(True, "data directory", str(directory))
    free = shutil.disk_usage(directory).free
    yield Finding(free >= LITTLE_SPACE, "disk", f"{free / 1e9:,.1f} GB free")
    for subject, path in (
        ("admin token", settings.token_file),
        ("master key", settings.master_key_file),
        ("signing key", signing_key_file(settings)),
        ("seal key", settings.seal_key_file),
    ):
        if not path.exists():
            yield Finding(True, subject, f"{path} is not there yet; crm up makes it")
        elif _too_open(path):
            yield Finding(False, subject, f"others may read {path}; run: chmod 600 {path}")
        else:
            yield Finding(True, subject, str(path))
    yield from _rotation(settings)


def _rotation(settings: Settings) -> Iterator[Finding]:
    """What a rotation of the master key has left, if anything."""
    for path in (new_of(settings.master_key_file), former_of(settings.master_key_file)):
        if path.exists():
            open_to_others = "; others may read it" if _too_open(path) else ""
            yield Finding(
                not open_to_others,
                "master key",
                f"{path} is there{open_to_others}: crm keys rotate ends the rotation",
            )


def _too_open(path: Path) -> bool:
    """Whether others may use the file who need not.

    A file that belongs to somebody else, or lies where nothing can be changed, was handed to this
    process by way of its group, as Kubernetes hands secrets: its group may read it.
    """
    status = path.stat()
    if status.st_mode & (stat.S_IRWXO | stat.S_IWGRP):
        return True
    handed = status.st_uid != os.geteuid() or os.statvfs(path).f_flag & os.ST_RDONLY
    return not handed and bool(status.st_mode & stat.S_IRWXG)


def _vault(settings: Settings, addresses: Databases) -> Finding:
    subject, path = "keys of personal data", settings.master_key_file
    with Pool(
        addresses.keys, size=1, role="crm_vault", search_path=["vault"], autocommit=True
    ) as pool:
        if not path.exists() and not holds_keys(pool):
            return Finding(True, subject, "none yet")
        try:
            wrong, keys = open_vault(pool, path).misfits()
        except WrongMasterKey as error:
            return Finding(False, subject, str(error))
        except OSError as error:
            return Finding(False, subject, f"{path} cannot be read: {error.strerror}")
    if wrong:
        return Finding(
            False,
            subject,
            f"{wrong:,} of {keys:,} were wrapped with another master key than {path}: a process"
            " ran with a key of its own. Its file is the only way to what it wrote about persons",
        )
    return Finding(True, subject, f"{keys:,}, all wrapped with {path}")


def _erasures(settings: Settings, addresses: Databases) -> Finding:
    """Whether the vault and the file agree about who was erased, and nobody of them has a key."""
    subject, path = "erasures", settings.erasures_file
    rows = _ask(
        addresses.keys,
        "SELECT erasures.subject, wrapped IS NOT NULL FROM vault.erasures"
        " LEFT JOIN vault.keys USING (subject)",
        role="crm_vault",
    )
    try:
        noted = {entry.subject for entry in ErasureFile(path).entries()}
    except OSError as error:
        return Finding(False, subject, f"{path} cannot be read: {error.strerror}")
    back = sum(key for _, key in rows)
    apart = len({row[0] for row in rows} ^ noted)
    if back or apart:
        return Finding(
            False,
            subject,
            f"{back:,} of {len(rows):,} erased persons have a key again, and the vault and {path}"
            f" differ in {apart:,}, as after restoring a backup; crm api or crm up mends it",
        )
    return Finding(True, subject, f"{len(rows):,}, also in {path}" if rows else "none")


def _addresses(settings: Settings, stack: ExitStack) -> Databases:
    if settings.database_url is None:
        log = stack.enter_context(EmbeddedPostgres(settings.data_dir)).url()
    else:
        log = settings.database_url.get_secret_value()
    return in_settings(settings, Databases(log, log))


def _server(settings: Settings, addresses: Databases) -> Finding:
    version = _ask(addresses.log, "SELECT current_setting('server_version')")[0][0]
    where = "in the data directory" if settings.embedded else "outside"
    return Finding(True, "database", f"PostgreSQL {version}, {where}")


def _schemas(addresses: Databases) -> Iterator[Finding]:
    log_schemas = LOG_SCHEMAS if addresses.vault is None else {"log": LOG_SCHEMAS["log"]}
    found = check(addresses.log, log_schemas) | check(addresses.read, READ_SCHEMAS)
    found |= check(addresses.keys, VAULT_SCHEMAS)
    text = ", ".join(f"{part} {number:04}" for part, number in found.items())
    yield Finding(True, "schemas", text)


def _log(settings: Settings, addresses: Databases) -> Iterator[Finding]:
    position, at, events, last = _ask(
        addresses.log,
        "SELECT position, recorded_at, (SELECT count(*) FROM log.events),"
        " (SELECT coalesce(max(position), 0) FROM log.events) FROM log.head",
        role="crm_reader",
    )[0]
    if not position == events == last:
        yield Finding(
            False,
            "log",
            f"the head is at {position:,}, the last event at {last:,}, and there are {events:,}"
            " events: these must be the same. Restore a backup.",
        )
    elif position == 0:
        yield Finding(True, "log", "empty")
    else:
        yield Finding(
            True, "log", f"{position:,} events, the last recorded at {at:%Y-%m-%d %H:%M} UTC"
        )
    receipts, overdue = _ask(
        addresses.log,
        "SELECT count(*), count(*) FILTER (WHERE recorded_at < now() - make_interval(days => %s))"
        " FROM log.receipts",
        [settings.receipt_days + 1],
        role="crm_writer",
    )[0]
    text = f"{receipts:,}, kept for {settings.receipt_days} days"
    if overdue:
        text += f"; {overdue:,} are older: crm up deletes them"
    yield Finding(True, "receipts", text)


def _ask(
    url: str, query: str, parameters: list[Any] | None = None, role: str | None = None
) -> list[tuple[Any, ...]]:
    connection = connect(url, role=role, application_name="crm doctor", autocommit=True)
    try:
        with connection.cursor() as cursor:
            cursor.execute(query, parameters)
            return cursor.fetchall()
    finally:
        connection.close()
