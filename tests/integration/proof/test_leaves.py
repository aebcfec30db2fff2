"""The leaf in SQL and in Python are one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from infra.proof.leaves import COLUMNS, leaf
from infra.proof.streaming import stream_leaves
from tests.integration.proof.ground import Ground
from tests.integration.proof.leaf_sql import LEAF_SQL

pytestmark = pytest.mark.database


def test_every_column_of_the_log_is_in_the_leaf(ground: Ground) -> None:
    columns = ground.query(
        "SELECT column_name FROM information_schema.columns"
        " WHERE table_schema = current_schema() AND table_name = 'events'"
    )
    assert {name for (name,) in columns} == set(COLUMNS)


def test_the_server_and_python_write_the_same_bytes(filled: Callable[[int], Ground]) -> None:
    ground = filled(300)
    ground.query(
        "UPDATE events SET actor = '', reason = '', state = '', traceparent = NULL,"
        " occurred_at = '0001-01-01 00:00:00.000001+00' WHERE position = 7"
    )
    ground.query(
        "UPDATE events SET state = convert_to(repeat('x', 3000000), 'UTF8') WHERE position = 8"
    )
    rows = ground.rows()
    found = ground.query(f"SELECT {LEAF_SQL} FROM events ORDER BY position")
    assert [bytes(value) for (value,) in found] == [leaf(row) for row in rows]
    streamed: list[bytes] = []
    connection = ground.connection("crm_reader")
    stream_leaves(connection, 2, 290, streamed.extend)
    connection.close()
    assert streamed == [b"\x00" + leaf(row) for row in rows[2:290]]


def test_a_range_without_events_is_empty(ground: Ground) -> None:
    streamed: list[bytes] = []
    stream_leaves(ground.owner, 0, None, streamed.extend)
    assert streamed == []
