"""``crm backup`` and ``crm restore``: the log and the vault as files, and back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from rich.console import Console

from infra.backup.manifest import Backup, BackupRefused, Manifest
from infra.backup.restoring import (
    Fits,
    Restored,
    demand_empty,
    demand_schema,
    demand_sound,
    is_empty,
    numbers,
    restore,
)
from infra.backup.writing import write
from infra.cluster import LOGIN, make_data_dir
from infra.embedded import EmbeddedPostgres
from infra.master_keys import MasterKey, beside
from infra.migrations import migrate
from infra.postgres import Connection, connect
from infra.settings import Settings
from infra.vault import WrongMasterKey
from workers.examining import read_models
from workers.exporting.folder import new_folder
from workers.loop import DONE, INTERRUPTED, Signals
from workers.progress import progress, terminal
from workers.wiring import databases, models_of, signing_key_file


def run_backup(settings: Settings, folder: Path, *, console: Console | None = None) -> int:
    """Writes a backup into ``folder``, beside a running product or without one; the exit code.

    130: stopped by SIGINT or SIGTERM. Whatever ends it early, ``folder`` is as it was. Raises
    BackupRefused, InTheWay and what the database raises.
    """
    console = console or terminal()
    _demand_data(settings)
    try:
        with ExitStack() as stack:
            stack.enter_context(Signals())
            new = stack.enter_context(
                new_folder(folder, overwrite=False, advice="each backup goes into one of its own")
            )
            new.chmod(0o700)
            addresses = stack.enter_context(databases(settings, administering=False))
            connection = stack.enter_context(closing(_reader(addresses.log)))
            vault = None
            if addresses.vault is not None:
                vault = stack.enter_context(closing(_reader(addresses.vault)))
            told = stack.enter_context(progress(console, "events written", None))
            manifest = write(connection, new, settings.erasures_file, vault=vault, told=told)
    except KeyboardInterrupt:
        return INTERRUPTED
    size = sum(file.bytes for _, file in Backup(folder).files())
    console.print(f"{folder}: {manifest.position:,} events, {size / 1e6:,.1f} MB")
    console.print(
        "Not in it, and to be kept apart from it:"
        f" {settings.master_key_file} (without it personal text is lost),"
        f" {signing_key_file(settings)} (without it commands that are sent again are not recognised"
        f" but refused) and {settings.seal_key_file}, as far as they are there."
    )
    return DONE


def run_check(folder: Path, *, console: Console | None = None) -> int:
    """Whether a backup is whole and unchanged, without a database; the exit code.

    Raises BackupRefused.
    """
    console = console or terminal()
    backup = Backup(folder)
    try:
        with Signals():
            backup.check_sums()
            with progress(console, "events read", backup.manifest.position) as told:
                backup.check_rows(told)
    except KeyboardInterrupt:
        return INTERRUPTED
    console.print(f"{folder}: whole. {_told(backup.manifest)}")
    return DONE


def run_restore(settings: Settings, folder: Path, *, console: Console | None = None) -> int:
    """Restores a backup into an empty database; the exit code.

    In one transaction: whatever ends it early, nothing was restored, and it can be run again.
    Raises BackupRefused, WrongMasterKey, and what the database raises.
    """
    console = console or terminal()
    backup = Backup(folder)
    through = numbers(backup.manifest)
    try:
        with ExitStack() as stack:
            stack.enter_context(Signals())
            url, member = stack.enter_context(_owner(settings))
            connection = stack.enter_context(closing(connect(url, application_name="crm restore")))
            vault = _vault(stack, settings)
            demand_empty(connection, "log")
            demand_schema(connection, "log", backup.manifest)
            backup.check_sums()
            if vault is None or is_empty(vault, "vault"):
                demand_empty(vault or connection, "vault")
                demand_schema(vault or connection, "vault", backup.manifest)
                at = vault_url(settings) or url
                migrate(at, {"vault": "vault"}, member=member, through=through)
            migrate(url, {"log": "log"}, member=member, through=through)
            total = 2 * backup.manifest.position
            told = stack.enter_context(progress(console, "events copied in and read back", total))
            restored = restore(
                connection,
                backup,
                settings.erasures_file,
                fits=_fitting(settings),
                vault=vault,
                told=told,
            )
            with connection, connection.cursor() as cursor:
                cursor.execute("ANALYZE log.events")
            _tell(settings, console, backup.manifest, restored)
    except KeyboardInterrupt:
        return INTERRUPTED
    return DONE


def run_adopt(settings: Settings, *, console: Console | None = None) -> int:
    """For a database that was brought back by other means, as to an earlier point in time: looks
    whether its log is whole and gives it another epoch; the exit code.

    Read models, and the topic in Kafka, that know the log as it was later are then refused, with
    the way out, whether they went further or not. Raises BackupRefused and what the database
    raises.
    """
    console = console or terminal()
    _demand_data(settings)
    with (
        databases(settings, administering=False) as addresses,
        closing(
            connect(
                addresses.log,
                role="crm_writer",
                search_path=["log"],
                application_name="crm restore --adopt",
            )
        ) as connection,
    ):
        with connection, connection.cursor() as cursor:
            cursor.execute("SET LOCAL lock_timeout TO '10s'")
            cursor.execute("SELECT FROM head FOR UPDATE")  # nobody appends meanwhile
            demand_sound(cursor)
            cursor.execute(
                "UPDATE head SET store_epoch = gen_random_uuid() RETURNING position, store_epoch"
            )
            position, epoch = cursor.fetchall()[0]
        console.print(f"The log ends at position {position:,}. Its epoch is now {epoch}.")
        _look_at_read_models(settings, console)
        _tell_ways(settings, console)
    return DONE


def vault_url(settings: Settings) -> str | None:
    """Where the vault is, if that is another database than the log's."""
    url = settings.vault_database_url
    return None if url is None else url.get_secret_value()


def _reader(url: str) -> Connection:
    return connect(url, role="crm_backup", application_name="crm backup")


def _vault(stack: ExitStack, settings: Settings) -> Connection | None:
    url = vault_url(settings)
    if url is None:
        return None
    return stack.enter_context(closing(connect(url, application_name="crm restore")))


@contextmanager
def _owner(settings: Settings) -> Iterator[tuple[str, str | None]]:
    """The address of the owner of the log, and the login that is to get the roles."""
    if settings.database_url is not None:
        yield settings.database_url.get_secret_value(), None
        return
    make_data_dir(settings.data_dir)
    with EmbeddedPostgres(settings.data_dir) as server:
        yield server.admin_url, LOGIN


def _demand_data(settings: Settings) -> None:
    if settings.embedded and not (settings.data_dir / "postgres").exists():
        raise BackupRefused(
            f"there is no database in {settings.data_dir}: name the product's CRM_DATA_DIR or"
            " CRM_DATABASE_URL"
        )


def _fitting(settings: Settings) -> Fits | None:
    """By the master keys that lie here: that in force, the next and the former one."""
    try:
        masters = [MasterKey(key) for key in beside(settings.master_key_file)]
    except OSError as error:
        raise WrongMasterKey(
            f"{settings.master_key_file} cannot be read: {error.strerror}"
        ) from None
    if not masters:
        return None
    return lambda subject, wrapped: any(
        master.unwrap(subject, wrapped) is not None for master in masters
    )


def _tell(settings: Settings, console: Console, manifest: Manifest, restored: Restored) -> None:
    console.print(
        f"Restored and read back: {_told(manifest)} {restored.keys:,} persons' keys."
        f" The log's epoch is now {restored.epoch}."
    )
    if restored.keys and not settings.master_key_file.exists():
        console.print(
            f"{settings.master_key_file} is not there: put that of the backup's time there before"
            " the product is started, which refuses to start without it."
        )
    signing_key = signing_key_file(settings)
    if manifest.tables["log.receipts"].rows and not signing_key.exists():
        console.print(
            f"{signing_key} is not there: put that of the backup's time there as well, else"
            " commands that are sent again are refused, and tokens have to be made anew."
        )
    _look_at_read_models(settings, console)
    _tell_ways(settings, console)


def _look_at_read_models(settings: Settings, console: Console) -> None:
    with databases(settings, administering=False) as addresses:
        by_kafka = settings.kafka_bootstrap is not None
        models = models_of(settings)
        for found in read_models(settings.partitions, addresses, by_kafka=by_kafka, models=models):
            console.print(f"{found.subject}: {found.text}")


def _tell_ways(settings: Settings, console: Console) -> None:
    if settings.kafka_bootstrap is not None:
        console.print(
            "The topic is of the log as it was: `crm relay --from POSITION` publishes what comes"
            " after a position that readers of the topic have seen as it is, --from 0 all of it."
        )


def _told(manifest: Manifest) -> str:
    signed = " and that of the signed checkpoint in it" if manifest.checkpoint else ""
    return (
        f"{manifest.position:,} events as at {manifest.recorded_at:%Y-%m-%d %H:%M:%S} UTC, backed"
        f" up {manifest.made_at:%Y-%m-%d %H:%M} UTC; their Merkle root is the manifest's{signed}."
    )
