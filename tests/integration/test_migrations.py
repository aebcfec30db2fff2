"""The schema: applied once, refused when it is newer or was changed, and the roles' rights."""

from __future__ import annotations

import os
import pwd
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg2
import psycopg2.errors
import pytest

import infra.migrations
from infra.embedded import EmbeddedPostgres
from infra.migrations import (
    ALL_SCHEMAS,
    MigrationChanged,
    MigrationError,
    RightsMissing,
    SchemaTooNew,
    SchemaTooOld,
    check,
    migrate,
    migrations,
)
from infra.postgres import connect

pytestmark = pytest.mark.database

START = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the migrations that a test may change."""
    copy = tmp_path / "migrations"
    shutil.copytree(Path(infra.migrations.__file__).parent, copy)
    return copy


def test_a_second_run_applies_nothing(database_url: str) -> None:
    told: list[str] = []
    migrate(database_url, told=told.append)
    assert told == []
    assert check(database_url) == {
        part: len(migrations(part)) for part in ("log", "vault", "read", "bi")
    }


def test_many_at_once_in_several_databases(new_database: Callable[[], str]) -> None:
    urls = [new_database() for _ in range(3)]
    errors: list[BaseException] = []
    told: list[str] = []

    def run(url: str) -> None:
        try:
            migrate(url, told=told.append)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(url,)) for url in urls * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(told) == len(urls) * sum(len(migrations(part)) for part in ALL_SCHEMAS)


def test_an_old_program_is_refused_on_a_newer_schema(
    database_url: str, fresh_log_schema: str, folder: Path
) -> None:
    number = len(migrations("log")) + 1
    (folder / "log" / f"{number:04}_later.sql").write_text("CREATE TABLE later (a int);")
    migrate(database_url, {"log": fresh_log_schema}, folder=folder)
    for use in (migrate, check):
        with pytest.raises(SchemaTooNew, match=r"_later.*a later version"):
            use(database_url, {"log": fresh_log_schema})


def test_a_changed_file_is_refused(database_url: str, fresh_log_schema: str, folder: Path) -> None:
    file = next((folder / "log").glob("0001_*.sql"))
    file.write_text(file.read_text() + "-- one more word\n")
    with pytest.raises(MigrationChanged, match="An applied migration is never edited"):
        migrate(database_url, {"log": fresh_log_schema}, folder=folder)


def test_line_endings_do_not_change_a_file(
    database_url: str, fresh_log_schema: str, folder: Path
) -> None:
    for file in (folder / "log").glob("*.sql"):
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    migrate(database_url, {"log": fresh_log_schema}, folder=folder)


def test_a_failing_file_leaves_nothing_behind(
    database_url: str, fresh_log_schema: str, folder: Path
) -> None:
    number = len(migrations("log")) + 1
    later = folder / "log" / f"{number:04}_later.sql"
    later.write_text("CREATE TABLE later (a int);\nSELECT 1/0;")
    with pytest.raises(MigrationError, match=r"_later failed: division by zero"):
        migrate(database_url, {"log": fresh_log_schema}, folder=folder)
    with pytest.raises(SchemaTooOld, match="has not been applied"):
        check(database_url, {"log": fresh_log_schema}, folder=folder)
    later.write_text("CREATE TABLE later (a int);")
    migrate(database_url, {"log": fresh_log_schema}, folder=folder)


def test_files_are_numbered_without_gaps(folder: Path) -> None:
    (folder / "log" / "0099_later.sql").write_text("SELECT 1;")
    with pytest.raises(ValueError, match="not numbered"):
        migrations("log", folder)


@pytest.fixture
def plain_login(server: EmbeddedPostgres, new_database: Callable[[], str]) -> Iterator[str]:
    """The address of a database of its own for a login without further rights."""
    url = new_database()
    name = f"plain_{uuid.uuid4().hex[:8]}"
    connection = connect(url, autocommit=True)
    database = connection.info.dbname
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE ROLE {name} LOGIN NOINHERIT")
        cursor.execute(f"ALTER DATABASE {database} OWNER TO {name}")
        cursor.execute("SHOW ident_file")
        (ident_file,) = cursor.fetchall()[0]
        with Path(ident_file).open("a") as users:
            users.write(f'crm "{pwd.getpwuid(os.geteuid()).pw_name}" {name}\n')
        cursor.execute("SELECT pg_reload_conf()")
    login = url.replace("://postgres@", f"://{name}@")
    _wait_until_admitted(login)
    yield login
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER DATABASE {database} OWNER TO postgres")
        cursor.execute(f"DROP OWNED BY {name} CASCADE")
        cursor.execute(f"DROP ROLE {name}")
    connection.close()


def _wait_until_admitted(url: str) -> None:
    for _ in range(100):
        try:
            connect(url).close()
        except psycopg2.OperationalError:
            time.sleep(0.05)
        else:
            return
    pytest.fail("the server does not admit the new login")


class TestRights:
    """What the sessions of the product may do, and what they may not."""

    def test_the_writer_adds_events_and_moves_the_head(
        self, database_url: str, fresh_log_schema: str
    ) -> None:
        _append(database_url, fresh_log_schema, [START])
        connection = connect(database_url, role="crm_writer", search_path=[fresh_log_schema])
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM events")
            assert cursor.fetchone() == (1,)
        connection.close()

    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE events SET actor = 'other'",
            "DELETE FROM events",
            "TRUNCATE events",
            "DELETE FROM head",
            "INSERT INTO head (position, recorded_at) VALUES (0, now())",
            "UPDATE receipts SET status = 500",
            "DROP TABLE events",
            "CREATE TABLE mine (a int)",
            "SELECT * FROM vault.keys",
        ],
    )
    def test_the_writer_may_not(
        self, database_url: str, fresh_log_schema: str, statement: str
    ) -> None:
        connection = connect(database_url, role="crm_writer", search_path=[fresh_log_schema])
        with pytest.raises(psycopg2.errors.InsufficientPrivilege), connection.cursor() as cursor:
            cursor.execute(statement)
        connection.close()

    @pytest.mark.parametrize("role", ["crm_projector", "crm_reader"])
    def test_readers_see_the_log_and_change_nothing(
        self, database_url: str, fresh_log_schema: str, role: str
    ) -> None:
        connection = connect(
            database_url, role=role, search_path=[fresh_log_schema], autocommit=True
        )
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*), position_at(now()) FROM events, head, outbox")
            for statement in (
                "INSERT INTO tracking VALUES ('a', 1)",
                "UPDATE head SET position = 9",
                "SELECT * FROM receipts",
            ):
                with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                    cursor.execute(statement)
        connection.close()

    def test_what_the_projector_makes_can_be_read(
        self, database_url: str, fresh_schemas: dict[str, str]
    ) -> None:
        read, bi = fresh_schemas["read"], fresh_schemas["bi"]
        projector = connect(database_url, role="crm_projector", autocommit=True)
        with projector.cursor() as cursor:
            cursor.execute(f"CREATE TABLE {read}.deals AS SELECT 1 AS a")
            cursor.execute(f"CREATE VIEW {bi}.deals AS SELECT a FROM {read}.deals")
        projector.close()
        for role, readable, closed in (
            ("crm_reader", f"{read}.deals, {bi}.deals", None),
            ("crm_bi", f"{bi}.deals", f"{read}.deals"),
        ):
            connection = connect(database_url, role=role, autocommit=True)
            with connection.cursor() as cursor:
                cursor.execute(f"SELECT * FROM {readable}")
                if closed is not None:
                    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                        cursor.execute(f"SELECT * FROM {closed}")
            connection.close()

    def test_a_login_without_rights_is_told_what_an_administrator_runs(
        self, database_url: str, plain_login: str
    ) -> None:
        with pytest.raises(RightsMissing) as told:
            migrate(plain_login)
        statement = str(told.value).partition("An administrator can run: ")[2]
        assert statement.startswith("GRANT ")
        administrator = connect(database_url, autocommit=True)
        with administrator.cursor() as cursor:
            cursor.execute(statement)
        administrator.close()
        migrate(plain_login)
        connection = connect(plain_login, role="crm_writer", search_path=["log"])
        with connection.cursor() as cursor:
            cursor.execute("UPDATE head SET position = position RETURNING store_epoch")
        connection.close()


def test_position_at_is_the_last_position_recorded_by_then(
    database_url: str, fresh_log_schema: str
) -> None:
    times = [START + timedelta(seconds=second) for second in (0, 0, 1, 1, 1, 5, 9)]
    _append(database_url, fresh_log_schema, times)
    connection = connect(database_url, role="crm_reader", search_path=[fresh_log_schema])
    with connection.cursor() as cursor:
        for second in range(-1, 11):
            instant = START + timedelta(seconds=second)
            cursor.execute("SELECT position_at(%s)", (instant,))
            assert cursor.fetchone() == (sum(time <= instant for time in times),)
        cursor.execute("SELECT position_at('infinity'), position_at('-infinity')")
        assert cursor.fetchone() == (len(times), 0)
        # the search path of the caller plays no part
        cursor.execute("SET search_path = pg_catalog")
        cursor.execute(f"SELECT {fresh_log_schema}.position_at(%s)", (START,))
        assert cursor.fetchone() == (2,)
    connection.close()


def test_the_outbox_shows_events_that_are_no_text(database_url: str, fresh_log_schema: str) -> None:
    _append(database_url, fresh_log_schema, [START], state=b"\xff\x00")
    connection = connect(database_url, role="crm_reader", search_path=[fresh_log_schema])
    with connection.cursor() as cursor:
        cursor.execute("SELECT aggregatetype, type, payload, position FROM outbox")
        aggregatetype, topic, payload, position = cursor.fetchall()[0]
    connection.close()
    assert (aggregatetype, topic, bytes(payload), position) == (
        "opportunity",
        "crm.opportunity.opened",
        b"\xff\x00",
        1,
    )


def test_everything_has_a_comment(database_url: str) -> None:
    connection = connect(database_url)
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT c.oid::regclass::text, a.attname
            FROM pg_class c
            JOIN pg_namespace n ON n.oid = c.relnamespace
            JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum >= 0 AND NOT a.attisdropped
            WHERE n.nspname = ANY(%s) AND c.relkind IN ('r', 'v') AND c.relname <> 'migration'
                AND (col_description(c.oid, a.attnum) IS NULL OR obj_description(c.oid) IS NULL)
                AND pg_get_userbyid(c.relowner) <> 'crm_projector'
            """,
            (["log", "vault", "read", "bi"],),
        )
        assert cursor.fetchall() == []
    connection.close()


def _append(url: str, schema: str, recorded: list[datetime], state: bytes = b"{}") -> None:
    connection = connect(url, role="crm_writer", search_path=[schema])
    with connection, connection.cursor() as cursor:
        for instant in recorded:
            cursor.execute(
                """
                WITH moved AS (
                    UPDATE head SET position = position + 1, recorded_at = %(time)s
                    RETURNING position, recorded_at
                )
                INSERT INTO events (
                    position, stream_id, version, topic, class_version, partition_key, occurred_at,
                    recorded_at, actor, command_id, correlation_id, state
                )
                SELECT position, gen_random_uuid(), 1, 'crm.opportunity.opened', 1,
                    gen_random_uuid(), recorded_at, recorded_at, 'ann', gen_random_uuid(),
                    gen_random_uuid(), %(state)s
                FROM moved
                """,
                {"time": instant, "state": state},
            )
    connection.close()
