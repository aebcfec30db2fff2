"""Rows found by the indexes are those that a look at every row finds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from projections import stabbing
from projections.reading import NEWEST, Moment, fetch, truth
from tests.integration.projections.conftest import Models

pytestmark = pytest.mark.database

_FIRST = datetime(2001, 1, 1, tzinfo=UTC)
_KEPT = "kind = 'kept'"

_Row = tuple[str, datetime, str, int, int]

_TABLE = """CREATE TEMPORARY TABLE stabbed (
    number int NOT NULL, kind text NOT NULL, valid_from timestamptz NOT NULL,
    valid_to timestamptz NOT NULL, known_from bigint NOT NULL, known_to bigint NOT NULL)"""

lengths = st.integers(0, 40).flatmap(
    lambda power: st.sampled_from([2**power - 1, 2**power, 2**power + 1, 0])
)
"""About the bounds of classes; and nothing."""


@st.composite
def table_rows(draw: st.DrawFn) -> _Row:
    valid_from = _FIRST + timedelta(microseconds=draw(lengths))
    valid_to = "infinity"
    if draw(st.booleans()):
        long = timedelta(seconds=min(draw(lengths), 10**10), microseconds=draw(st.integers(0, 1)))
        valid_to = (valid_from + long).isoformat()
    known_from = draw(st.integers(1, 2**50))
    known_to = draw(st.sampled_from([NEWEST, known_from + draw(lengths)]))
    return draw(st.sampled_from(["kept", "other"])), valid_from, valid_to, known_from, known_to


@given(st.lists(table_rows(), min_size=1, max_size=40), st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_at_any_moment(models: Models, kept: list[_Row], data: st.DataObject) -> None:
    with models.pool.connection() as connection, connection.cursor() as cursor:
        _fill(cursor, kept)
        for _ in range(6):
            moment = data.draw(_moments(kept))
            found = _numbers(connection, *stabbing.rows(moment, "stabbed", ["number"], _KEPT))
            direct = f"SELECT number FROM stabbed WHERE {_KEPT} AND {truth(moment)}"
            assert found == _numbers(connection, direct, moment.parameters())
        connection.rollback()


def test_the_indexes_alone_answer(models: Models) -> None:
    """As long as columns are asked for that they have."""
    moment = Moment(_FIRST + timedelta(days=1), 7)
    with models.pool.connection() as connection, connection.cursor() as cursor:
        _fill(cursor, [("kept", _FIRST, "infinity", 5, NEWEST)])
        cursor.execute("SET LOCAL enable_seqscan TO off")
        query, parameters = stabbing.rows(moment, "stabbed", ["number"], _KEPT)
        cursor.execute(f"EXPLAIN {query}", parameters)
        plan = "\n".join(line for (line,) in cursor.fetchall())
        assert "Index Only Scan using stabbed_by_known" in plan
        assert "Index Only Scan using stabbed_by_true" in plan
        assert "Seq Scan" not in plan
        connection.rollback()


def _fill(cursor: Any, kept: list[_Row]) -> None:
    cursor.execute(_TABLE)
    for name, body in stabbing.indexes("stabbed", ["number"], _KEPT):
        cursor.execute(f"CREATE INDEX {name} ON stabbed {body}")
    for number, row in enumerate(kept):
        cursor.execute("INSERT INTO stabbed VALUES (%s, %s, %s, %s, %s, %s)", (number, *row))


def _moments(kept: list[_Row]) -> st.SearchStrategy[Moment]:
    """At the bounds of rows, and just before."""
    times = {_FIRST, datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC)}
    positions = {0, 1}
    for _, valid_from, valid_to, *known in kept:
        ends = [] if valid_to == "infinity" else [datetime.fromisoformat(valid_to)]
        for at in (valid_from, *ends):
            times |= {at, at - timedelta(microseconds=1)}
        positions |= {at for one in known for at in (one - 1, one) if at < NEWEST}
    return st.builds(
        Moment,
        st.sampled_from(sorted(times)),
        st.sampled_from([None, *sorted(positions)]),
        st.booleans(),
    )


def _numbers(connection: Any, query: str, parameters: dict[str, Any]) -> list[int]:
    return sorted(row["number"] for row in fetch(connection, query, parameters))
