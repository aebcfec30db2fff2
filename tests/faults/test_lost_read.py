"""A connection that breaks under a read is told as such, whatever the driver calls it."""

from __future__ import annotations

import psycopg2
import pytest

from infra.postgres import Pool
from tests.faults.proxy import Lost, Proxy

pytestmark = pytest.mark.database


@pytest.mark.parametrize("lost", Lost)
@pytest.mark.parametrize("autocommit", [False, True])
def test_the_next_one_works(proxy: Proxy, lost: Lost, autocommit: bool) -> None:
    with Pool(proxy.url, size=1, autocommit=autocommit) as pool:
        proxy.lose(lost, b"SELECT 17 FROM generate_series(1, 100)")
        with (
            pytest.raises((psycopg2.OperationalError, psycopg2.InterfaceError)),
            pool.connection() as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("SELECT 17 FROM generate_series(1, 100)")
        with pool.connection() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT 18")
            assert cursor.fetchall() == [(18,)]


def test_what_the_driver_calls_an_error_of_the_database(database_url: str) -> None:
    """Seen where the server was stopped at once; not from the server, it has no code."""
    closed = psycopg2.DatabaseError("server closed the connection unexpectedly")
    with (
        Pool(database_url, size=1) as pool,
        pytest.raises(psycopg2.OperationalError, match="closed the connection"),
        pool.connection(),
    ):
        raise closed
