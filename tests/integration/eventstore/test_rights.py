"""What the product's writer may do in the database, as the role it uses."""

from __future__ import annotations

from uuid import uuid4

import psycopg2
import pytest
from psycopg2 import errors

from infra.eventstore.factory import Factory
from tests.integration.eventstore.stepping import PATIENCE, Log, command

pytestmark = pytest.mark.database


def execute(factory: Factory, statement: str) -> None:
    with factory.pool.connection() as connection, connection.cursor() as cursor:
        cursor.execute(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET actor = 'somebody else'",
        "UPDATE events SET state = '{}'",
        "DELETE FROM events",
        "TRUNCATE events",
        "TRUNCATE head",
        "DELETE FROM head",
        "INSERT INTO head (one, position, recorded_at) VALUES (false, 9, now())",
        "UPDATE receipts SET status = 500",
        "UPDATE snapshots SET version = 9",
        "DROP TABLE events",
        "ALTER TABLE events DISABLE TRIGGER ALL",
        "CREATE TABLE more (n int)",
        "CREATE RULE r AS ON INSERT TO events DO INSTEAD NOTHING",
    ],
)
def test_what_was_recorded_stays(log: Log, log_factory: Factory, statement: str) -> None:
    log_factory.committer.submit(command()).result(PATIENCE)
    with pytest.raises(errors.InsufficientPrivilege):
        execute(log_factory, statement)
    assert log.check() == 1


def test_the_writer_acts_as_the_restricted_role(log: Log, log_factory: Factory) -> None:
    log_factory.committer.submit(command()).result(PATIENCE)
    sessions = "SELECT DISTINCT usename FROM pg_stat_activity WHERE application_name = 'crm-log'"
    assert log.rows(sessions)
    with log_factory.pool.connection() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT current_user")
        assert cursor.fetchone() == ("crm_writer",)


def test_the_writer_cannot_look_into_the_vault(
    log_environment: dict[str, str], log_factory: Factory
) -> None:
    schema = log_environment["VAULT_SCHEMA"]
    log_factory.vault.prepare([uuid4()])
    for statement in (f"SELECT * FROM {schema}.keys", f"DELETE FROM {schema}.keys"):
        with pytest.raises(errors.InsufficientPrivilege):
            execute(log_factory, statement)


def test_the_vault_cannot_look_into_the_log_nor_lose_a_key(
    log: Log, log_environment: dict[str, str], log_factory: Factory
) -> None:
    log_factory.vault.prepare([uuid4()])
    vault = log_environment["VAULT_SCHEMA"]
    connection = log.connect("crm_vault", autocommit=True)
    try:
        for statement in (
            f"SELECT * FROM {log.schema}.events",
            f"DELETE FROM {vault}.keys",
            f"TRUNCATE {vault}.keys",
        ):
            with pytest.raises(psycopg2.ProgrammingError), connection.cursor() as cursor:
                cursor.execute(statement)
    finally:
        connection.close()


def test_the_writer_sessions_give_up_in_time(log_factory: Factory) -> None:
    """A stopped process must not hold the head for ever, nor one wait for ever."""
    connection = log_factory.committer._connect()
    try:
        with connection.cursor() as cursor:
            for setting, expected in {
                "lock_timeout": "5s",
                "idle_in_transaction_session_timeout": "5s",
                "statement_timeout": "1min",
            }.items():
                cursor.execute("SELECT current_setting(%s)", [setting])
                assert cursor.fetchone() == (expected,)
    finally:
        connection.close()
