"""Connections and the pool, against a real server whose sessions are ended under way."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime

import psycopg2
import psycopg2.errors
import pytest

from infra.postgres import Connection, Pool, PoolClosed, PoolTimeout, connect

pytestmark = pytest.mark.database


@pytest.fixture
def pool(database_url: str) -> Iterator[Pool]:
    """A pool of two."""
    with Pool(database_url, size=2, timeout=0.2) as pool:
        yield pool


@pytest.fixture
def table(database_url: str) -> Iterator[str]:
    """A table with one column of numbers."""
    name = f"numbers_{uuid.uuid4().hex[:8]}"
    connection = connect(database_url, autocommit=True)
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE {name} (number int)")
        yield name
        cursor.execute(f"DROP TABLE {name}")
    connection.close()


def _end(url: str, pid: int) -> None:
    connection = connect(url, autocommit=True)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 10000)", (pid,))
        assert cursor.fetchall() == [(True,)]
    connection.close()


def _pid(connection: Connection) -> int:
    return connection.info.backend_pid


def _count(connection: Connection, table: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {table}")
        (row,) = cursor.fetchall()
    return int(row[0])


class TestConnect:
    def test_a_session_is_what_was_asked_for(self, database_url: str) -> None:
        connection = connect(
            database_url,
            role="crm_reader",
            search_path=["log", 'odd "name\\'],
            application_name="crm test",
            settings={"lock_timeout": "5s"},
        )
        wanted = {
            "role": "crm_reader",
            "search_path": 'log, "odd ""name\\"',
            "application_name": "crm test",
            "lock_timeout": "5s",
            "TimeZone": "UTC",
            "client_encoding": "UTF8",
        }
        with connection.cursor() as cursor:
            for name, value in wanted.items():
                cursor.execute("SELECT current_setting(%s)", (name,))
                (found,) = cursor.fetchall()[0]
                assert found.replace('"log"', "log") == value
            cursor.execute("SELECT current_user")
            assert cursor.fetchall() == [("crm_reader",)]
        connection.close()

    def test_options_in_the_address_are_kept(self, database_url: str) -> None:
        connection = connect(f"{database_url}&options=-c%20lock_timeout%3D7s", role="crm_reader")
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_setting('lock_timeout'), current_user")
            assert cursor.fetchall() == [("7s", "crm_reader")]
        connection.close()

    def test_ids_and_times_come_back_as_they_went(self, database_url: str) -> None:
        connection = connect(database_url)
        values = ([uuid.uuid4(), uuid.uuid4()], uuid.uuid4(), datetime.now(UTC))
        with connection.cursor() as cursor:
            cursor.execute("SELECT %s::uuid[], %s::uuid, %s::timestamptz", values)
            assert cursor.fetchall() == [values]
        connection.close()


class TestPool:
    def test_the_end_commits_and_an_error_rolls_back(self, pool: Pool, table: str) -> None:
        with pool.connection() as connection, connection.cursor() as cursor:
            cursor.execute(f"INSERT INTO {table} VALUES (1)")
        with pytest.raises(LookupError), pool.connection() as connection:
            with connection.cursor() as cursor:
                cursor.execute(f"INSERT INTO {table} VALUES (2)")
            raise LookupError
        with pool.connection() as connection:
            assert _count(connection, table) == 1

    def test_connections_are_used_again(self, pool: Pool) -> None:
        pids = set()
        for _ in range(5):
            with pool.connection() as connection:
                pids.add(_pid(connection))
        assert len(pids) == 1

    def test_it_is_bounded(self, pool: Pool) -> None:
        with pool.connection(), pool.connection():
            with pytest.raises(PoolTimeout, match="none of 2 connections"), pool.connection():
                pass
            with pytest.raises(PoolTimeout), pool.connection(timeout=0):
                pass
        with pool.connection():
            pass

    def test_who_waits_gets_the_next_free_one(self, database_url: str) -> None:
        with Pool(database_url, size=1, timeout=30) as pool:
            got = threading.Event()

            def use() -> None:
                with pool.connection():
                    got.set()

            with pool.connection():
                waiting = threading.Thread(target=use)
                waiting.start()
                assert not got.wait(0.05)
            waiting.join(60)
            assert got.is_set()

    def test_a_broken_connection_is_dropped(self, pool: Pool, database_url: str) -> None:
        with pytest.raises(psycopg2.OperationalError), pool.connection() as connection:
            broken = _pid(connection)
            _end(database_url, broken)
            connection.cursor().execute("SELECT 1")
        with pool.connection() as connection:
            assert _pid(connection) != broken
            connection.cursor().execute("SELECT 1")

    def test_after_one_broke_the_idle_ones_are_tried_first(
        self, pool: Pool, database_url: str
    ) -> None:
        with pool.connection() as one, pool.connection() as other:
            pids = [_pid(one), _pid(other)]
        for pid in pids:  # as a restart of the server does
            _end(database_url, pid)
        with pytest.raises(psycopg2.OperationalError), pool.connection() as connection:
            connection.cursor().execute("SELECT 1")
        with pool.connection() as one, pool.connection() as other:
            for connection in (one, other):
                assert _pid(connection) not in pids
                connection.cursor().execute("SELECT 1")

    def test_failing_to_connect_leaves_room(self, database_url: str) -> None:
        with Pool(database_url.replace("/test_", "/no_such_"), size=1, timeout=0.2) as pool:
            for _ in range(3):
                with (
                    pytest.raises(psycopg2.OperationalError, match="does not exist"),
                    pool.connection(),
                ):
                    pass

    def test_an_open_transaction_never_comes_back(self, database_url: str, table: str) -> None:
        with Pool(database_url, size=1, timeout=0.2, autocommit=True) as pool:
            with pool.connection() as connection:
                connection.cursor().execute(f"BEGIN; INSERT INTO {table} VALUES (1)")
            with pool.connection() as connection:
                assert _count(connection, table) == 0

    def test_a_closed_pool_gives_nothing(self, database_url: str) -> None:
        pool = Pool(database_url, size=2, timeout=0.2)
        with pool.connection() as connection:
            with pool.connection():
                pass
            pool.close()
            connection.cursor().execute("SELECT 1")  # one's own is usable to the end
        assert connection.closed
        with pytest.raises(PoolClosed), pool.connection():
            pass

    def test_many_threads_share_it(self, database_url: str, table: str) -> None:
        errors: list[BaseException] = []

        def work(pool: Pool) -> None:
            try:
                for number in range(20):
                    with pool.connection() as connection, connection.cursor() as cursor:
                        cursor.execute(f"INSERT INTO {table} VALUES (%s)", (number,))
            except BaseException as error:
                errors.append(error)

        with Pool(database_url, size=3, timeout=30) as pool:
            threads = [threading.Thread(target=work, args=(pool,)) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert errors == []
            with pool.connection() as connection:
                assert _count(connection, table) == 160
