"""How the parts are put together; every process takes from here what it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog

from api.tokens import Tokens
from domain.pipeline import DEFAULT_PIPELINE_ID
from infra.cluster import LOGIN
from infra.commands import Commands, LoopCRM, Request
from infra.definitions import load as load_definitions
from infra.embedded import EmbeddedPostgres
from infra.erasure import Erasures
from infra.erasure_file import ErasureFile
from infra.eventstore.doorbell import Doorbell
from infra.eventstore.factory import Factory
from infra.eventstore.feed import StoreFeed
from infra.migrations import (
    ALL_SCHEMAS,
    READ_SCHEMAS,
    VAULT_SCHEMAS,
    SchemaTooOld,
    check,
    migrate,
)
from infra.postgres import Pool, connect
from infra.settings import Settings
from infra.vault import Vault, WrongMasterKey, holds_keys
from projections.catalogue import PROJECTIONS, projections
from projections.projection import Projection

log = structlog.get_logger(__name__)


def now() -> datetime:
    """The clock of the product."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Databases:
    """Addresses of the log and of the read models, which may be the same database; of the vault
    where it is not in the log's."""

    log: str
    read: str
    vault: str | None = None

    @property
    def keys(self) -> str:
        """Where the keys of personal data are."""
        return self.vault or self.log


@contextmanager
def databases(settings: Settings, *, administering: bool = True) -> Iterator[Databases]:
    """The databases, up to date; the embedded one runs while this is entered.

    ``administering`` False is for workers whose login may have the rights of one role only: where
    the schemas are up to date, none are needed to make them so.

    Raises ``EmbeddedPostgresError``, ``MigrationError`` and ``psycopg2.OperationalError``.
    """
    with ExitStack() as stack:
        if settings.database_url is None:
            server = stack.enter_context(EmbeddedPostgres(settings.data_dir))
            addresses = Databases(server.url(), server.url())
            administered = Databases(server.admin_url, server.admin_url)
            member = LOGIN
        else:
            url = settings.database_url.get_secret_value()
            administered = addresses = Databases(url, url)
            member = None
        at_log = dict(ALL_SCHEMAS)
        wanted: list[tuple[str, Mapping[str, str], str | None]]
        wanted = [(administered.log, at_log, member)]
        for apart, names in (
            (settings.read_database_url, READ_SCHEMAS),
            (settings.vault_database_url, VAULT_SCHEMAS),
        ):
            if apart is not None:
                wanted.append((apart.get_secret_value(), names, None))
                for part in names:
                    del at_log[part]
        addresses = in_settings(settings, addresses)
        for url, schemas, login in wanted:
            if administering or not _up_to_date(url, schemas):
                migrate(url, schemas, member=login, told=log.info)
        yield addresses


def in_settings(settings: Settings, addresses: Databases) -> Databases:
    """The addresses with those that the settings name apart."""
    read, vault = settings.read_database_url, settings.vault_database_url
    return Databases(
        addresses.log,
        addresses.read if read is None else read.get_secret_value(),
        None if vault is None else vault.get_secret_value(),
    )


def _up_to_date(url: str, schemas: Mapping[str, str]) -> bool:
    try:
        check(url, schemas)
    except SchemaTooOld:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Ledger:
    """What takes commands."""

    crm: LoopCRM
    commands: Commands
    vault: Vault
    tokens: Tokens
    doorbell: Doorbell
    erasures: Erasures

    async def prepare(self) -> None:
        """Defines what is there from the beginning, the default pipeline, and records erasures
        that a crash, or the restoring of a backup, left without an event."""
        await self.commands.execute(
            self.crm.define_default_pipeline,
            target=DEFAULT_PIPELINE_ID,
            request=Request("system", None),
        )
        await self.erasures.complete(self.commands)


def signing_key_file(settings: Settings) -> Path:
    """Where the key lies that tokens are signed with."""
    return settings.data_dir / "signing.key"


@contextmanager
def ledger(
    settings: Settings, addresses: Databases, clock: Callable[[], datetime] = now
) -> Iterator[Ledger]:
    """The write side, with nobody in the vault who was erased. Its ``commands`` are to be closed
    on the event loop that used them.

    Raises ``WrongMasterKey`` where the vault's keys were wrapped with another one, or are not in
    the database that the settings name, and ``NoErasuresFile``.
    """
    _demand_keys(addresses)
    crm = LoopCRM(
        {
            "PERSISTENCE_MODULE": "infra.eventstore.factory",
            "IS_SNAPSHOTTING_ENABLED": "yes",
            "LOG_DATABASE_URL": addresses.log,
            "VAULT_DATABASE_URL": addresses.keys,
            "MASTER_KEY_FILE": str(settings.master_key_file),
        },
        clock=clock,
        timezone=settings.zone,
    )
    try:
        factory = crm.factory
        if not isinstance(factory, Factory):
            raise TypeError("the application must record in our log")
        commands = Commands(crm, factory.vault)
        factory.at_erasures.append(commands.forget)
        yield Ledger(
            crm=crm,
            commands=commands,
            vault=factory.vault,
            tokens=Tokens.of_file(signing_key_file(settings), clock),
            doorbell=factory.doorbell,
            erasures=erasures_of(settings, factory),
        )
    finally:
        crm.close()


def erasures_of(settings: Settings, factory: Factory) -> Erasures:
    """Who was erased, with nobody of them in the vault. Raises ``NoErasuresFile``."""
    file = ErasureFile(settings.erasures_file)
    erasures = Erasures(factory.vault, factory.vault_pool, factory.pool, file)
    try:
        erasures.reapply()
    except OSError as error:
        raise NoErasuresFile(
            f"the file of erasures {file.path} cannot be used: {error.strerror}"
        ) from None
    return erasures


class NoErasuresFile(Exception):
    """The file that says who was erased cannot be read or written."""


def _demand_keys(addresses: Databases) -> None:
    """With a vault in another database: keys that are still in the log's were not moved there."""
    if addresses.vault is None:
        return
    with Pool(addresses.vault, size=1, role="crm_vault", search_path=["vault"]) as there:
        if holds_keys(there):
            return
    with (
        Pool(addresses.log, size=1, role="crm_vault", search_path=["vault"]) as here,
        here.connection() as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT to_regclass('vault.keys')")
        if cursor.fetchall()[0][0] is None:
            return
        cursor.execute("SELECT EXISTS (SELECT FROM keys WHERE wrapped IS NOT NULL)")
        if not cursor.fetchall()[0][0]:
            return
    raise WrongMasterKey(
        "CRM_VAULT_DATABASE_URL names a database without keys of personal data, and there are some"
        " in the log's. Copy schema vault there first: pg_dump --schema=vault, then pg_restore"
    )


def models_of(settings: Settings) -> dict[str, Projection]:
    """The read models, by name, under the definitions in force. Raises ``SettingsError``."""
    return projections(load_definitions(settings.definitions_file))


@dataclass(frozen=True, slots=True)
class ReadSide:
    """What fills the read models."""

    pool: Pool
    log_pool: Pool
    doorbell: Doorbell

    def feed(self, projection: Projection) -> StoreFeed:
        """The events that a projection wants."""
        return StoreFeed(self.log_pool, self.doorbell, projection.topics)


@contextmanager
def read_side(
    addresses: Databases,
    doorbell: Doorbell | None = None,
    session: Mapping[str, str] | None = None,
) -> Iterator[ReadSide]:
    """Connections for projectors and rebuilds; with a doorbell of its own, unless one is given.
    `session`: further parameters of the server for them."""
    size = 3 * len(PROJECTIONS)
    with ExitStack() as stack:
        pool = Pool(
            addresses.read,
            size=size,
            role="crm_projector",
            search_path=["read"],
            application_name="crm-projector",
            settings=session,
        )
        stack.callback(pool.close)
        log_pool = Pool(
            addresses.log,
            size=size,
            role="crm_projector",
            search_path=["log"],
            application_name="crm-feed",
            autocommit=True,
            settings=session,
        )
        stack.callback(log_pool.close)
        if doorbell is None:
            doorbell = Doorbell(
                lambda: connect(
                    addresses.log,
                    role="crm_projector",
                    search_path=["log"],
                    application_name="crm-doorbell",
                    autocommit=True,
                )
            )
            doorbell.start()
            stack.callback(doorbell.stop)
        yield ReadSide(pool, log_pool, doorbell)
