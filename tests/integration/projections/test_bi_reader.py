"""The role `bi_reader` reads `bi` and nothing else: shown by trying."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from psycopg2 import errors
from psycopg2.extensions import connection as Connection  # noqa: N812  (it is a class)

from infra.migrations import ROLES
from infra.postgres import connect, quote
from projections.catalogue import PROJECTIONS
from tests.integration.projections.conftest import Models
from tests.integration.projections.strategies import random_story

pytestmark = pytest.mark.database

VIEWS = sorted(view.name for one in PROJECTIONS.values() for view in one.views)


@pytest.fixture
def filled(models: Models) -> Models:
    """With rows in most of the tables."""
    models.project(random_story(1, 120))
    return models


@pytest.fixture
def report(database_url: str) -> Iterator[Connection]:
    """The session of a login that has the role, and no other."""
    login = f"report_{secrets.token_hex(6)}"
    administrator = connect(database_url, autocommit=True)
    with administrator.cursor() as cursor:
        cursor.execute(f"CREATE ROLE {login} LOGIN IN ROLE bi_reader")
        cursor.execute(f"SET SESSION AUTHORIZATION {login}")
    yield administrator
    with administrator.cursor() as cursor:
        cursor.execute("RESET SESSION AUTHORIZATION")
        cursor.execute(f"DROP ROLE {login}")
    administrator.close()


def ask(connection: Connection, statement: str) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


def denied(connection: Connection, statement: str) -> bool:
    try:
        ask(connection, statement)
    except errors.InsufficientPrivilege:
        return True
    return False


def relations(connection: Connection) -> list[tuple[str, str]]:
    """All that is no part of PostgreSQL itself, as (schema, name)."""
    return ask(
        connection,
        "SELECT n.nspname::text, c.relname::text FROM pg_class AS c"
        " JOIN pg_namespace AS n ON n.oid = c.relnamespace"
        " WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')"
        " AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_t'",
    )


def test_it_reads_every_view(report: Connection, filled: Models) -> None:
    for view in VIEWS:
        assert ask(report, f"SELECT count(*) FROM {filled.bi}.{view}")[0][0] >= 0


def test_it_reads_no_other_table(report: Connection, filled: Models) -> None:
    others = [(s, n) for s, n in relations(report) if (s, n) not in {(filled.bi, v) for v in VIEWS}]
    there = {schema.partition("_")[0] for schema, _ in others}
    assert there >= {"log", "vault", "read", "bi"}
    readable = [
        name
        for schema, name in others
        if not schema.startswith("bi")
        and not denied(report, f"SELECT FROM {quote(schema)}.{quote(name)}")
    ]
    # which migrations were applied, and when, any login may see
    assert set(readable) <= {"migration"}


def test_it_changes_nothing(report: Connection, filled: Models) -> None:
    assert (filled.bi, "deal") in relations(report)
    for schema, name in relations(report):
        table = f"{quote(schema)}.{quote(name)}"
        for statement in (
            f"DELETE FROM {table}",
            f"TRUNCATE {table}",
            f"INSERT INTO {table} DEFAULT VALUES",
            f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE",
            f"DROP TABLE {table}",
        ):
            with pytest.raises(
                (errors.InsufficientPrivilege, errors.WrongObjectType, errors.UndefinedTable,
                 errors.FeatureNotSupported, errors.NoActiveSqlTransaction,
                 errors.ObjectNotInPrerequisiteState)
            ):  # fmt: skip
                ask(report, statement)


def test_it_makes_nothing(report: Connection, filled: Models) -> None:
    for schema in {*(schema for schema, _ in relations(report)), "public", "pg_catalog"}:
        assert denied(report, f"CREATE TABLE {quote(schema)}.mine (a int)")
        assert denied(report, f"CREATE VIEW {quote(schema)}.mine AS SELECT 1")
        assert denied(
            report, f"CREATE FUNCTION {quote(schema)}.f() RETURNS int LANGUAGE sql RETURN 1"
        )
    assert denied(report, "CREATE SCHEMA mine")
    assert denied(report, "CREATE ROLE mine")
    assert denied(report, "CREATE DATABASE mine")
    assert denied(report, "ALTER SYSTEM SET work_mem = '1GB'")
    assert denied(report, f"GRANT SELECT ON {filled.bi}.deal TO PUBLIC") or not ask(
        report,
        "SELECT FROM information_schema.role_table_grants"
        f" WHERE grantee = 'PUBLIC' AND table_schema = '{filled.bi}' AND table_name = 'deal'",
    )


def test_it_calls_none_of_our_functions(report: Connection) -> None:
    functions = ask(
        report,
        "SELECT n.nspname::text, p.proname::text, p.pronargs, p.prosecdef,"
        " p.prorettype::regtype::text"
        " FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace"
        " WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_t'",
    )
    assert any(name == "position_at" for _, name, *_ in functions)
    for schema, name, arguments, definer, result in functions:
        assert not definer
        if result == "trigger":  # cannot be called
            continue
        given = ", ".join(["now()"] * arguments)
        assert denied(report, f"SELECT {quote(schema)}.{name}({given})"), name


def test_it_becomes_nobody_else(report: Connection) -> None:
    for role in {*ROLES, "postgres", "pg_read_all_data"} - {"bi_reader"}:
        assert denied(report, f"SET ROLE {role}")


@pytest.mark.parametrize(
    "statement",
    [
        "COPY (SELECT 1) TO PROGRAM 'cat'",
        "COPY (SELECT 1) TO '/tmp/crm-bi-reader'",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT pg_read_binary_file('/etc/passwd')",
        "SELECT pg_ls_dir('/')",
        "SELECT lo_import('/etc/passwd')",
        "SELECT lo_export(1, '/tmp/crm-bi-reader')",
        "SELECT rolpassword FROM pg_authid",
        "SELECT pg_reload_conf()",
        "SELECT pg_rotate_logfile()",
        "SELECT pg_switch_wal()",
        "SELECT * FROM pg_hba_file_rules",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()",
        "SET log_min_messages = debug5",
        "SET session_replication_role = replica",
    ],
)
def test_it_reaches_neither_files_nor_the_server(report: Connection, statement: str) -> None:
    assert denied(report, statement)


def test_it_does_not_read_files_into_a_table_of_its_own(report: Connection) -> None:
    """Temporary tables are let to every login by PostgreSQL; they are seen by their session only
    and gone with it."""
    ask(report, "CREATE TEMPORARY TABLE mine (line text)")
    for source in ("'/etc/passwd'", "PROGRAM 'id'"):
        assert denied(report, f"COPY mine FROM {source}")
    ask(report, "DROP TABLE mine")


def test_it_does_not_see_what_others_ask(report: Connection, models: Models) -> None:
    assert models.run("SELECT 1") == [(1,)]  # in a session that stays open
    texts = ask(
        report, "SELECT query FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND query <> ''"
    )
    assert {text for (text,) in texts} == {"<insufficient privilege>"}


def test_a_new_view_comes_with_the_right_and_a_new_table_does_not(
    report: Connection, filled: Models
) -> None:
    filled.run(f"CREATE TABLE {filled.read}.later AS SELECT 1 AS a")
    filled.run(f"CREATE VIEW {filled.bi}.later AS SELECT a FROM {filled.read}.later")
    assert ask(report, f"SELECT a FROM {filled.bi}.later") == [(1,)]
    assert denied(report, f"SELECT a FROM {filled.read}.later")
