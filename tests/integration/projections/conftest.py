"""A database with empty read models for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
import pytest

from infra.postgres import Pool, connect, quote
from projections.catalogue import PROJECTIONS
from projections.projection import Projection
from projections.projector import Projector
from projections.rebuild import Rebuild, former_schema, shadow_schema
from projections.summaries import Summarizer
from tests.integration.projections.story import Story

pytestmark = pytest.mark.database

_BLOCK = 8


class Models:
    """The read models over a story, in schemas of their own."""

    def __init__(self, url: str, schemas: dict[str, str]) -> None:
        self._url = url
        self.pool = Pool(url, size=8, role="crm_projector")
        self.read, self.bi = schemas["read"], schemas["bi"]
        self._projectors: list[Projector] = []

    def projector(self, projection: Projection, story: Any, **options: Any) -> Projector:
        options = {"schema": self.read, "bi_schema": self.bi, **options}
        projector = Projector(projection, story, self.pool, **options)
        self._projectors.append(projector)
        return projector

    def rebuild(self, projection: Projection, story: Any, **options: Any) -> Rebuild:
        options = {"schema": self.read, "bi_schema": self.bi, **options}
        return Rebuild(projection, story, self.pool, **options)

    def project(self, story: Story, **options: Any) -> None:
        """Carry the story into all read models, with summaries of blocks that are small enough to
        play a part."""
        for projection in PROJECTIONS.values():
            projector = self.projector(projection, story, **options)
            while projector.step():
                pass
            summarizer = Summarizer(projection, self.pool, schema=self.read, positions=_BLOCK)
            while summarizer.step():
                pass

    def rows(self, table: str, columns: str = "*") -> list[tuple[Any, ...]]:
        """All rows of a table, in some fixed order."""
        with self.pool.connection() as connection, connection.cursor() as cursor:
            cursor.execute(
                f"SELECT row::text FROM (SELECT {columns} FROM {quote(self.read)}.{table}) AS row"
                " ORDER BY 1"
            )
            return cursor.fetchall()

    def account(self) -> list[tuple[Any, ...]]:
        """(projection, range, events, digest) over all partitions."""
        rows: list[tuple[Any, ...]] = self.run(
            "SELECT projection, range, sum(events)::bigint, bit_xor(digest)"
            " FROM applied GROUP BY projection, range ORDER BY projection, range"
        )
        return rows

    def ask(self, query: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """A query's answer."""
        with self.pool.connection() as connection:
            with connection.cursor() as cursor:
                cursor.execute(f"SET LOCAL search_path TO {quote(self.read)}")
            return query(connection, *args, **options)

    def run(self, statement: str, *parameters: Any) -> Any:
        """A statement's rows, if it has any."""
        with self.pool.connection() as connection, connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL search_path TO {quote(self.read)}, {quote(self.bi)}")
            cursor.execute(statement, parameters)
            try:
                return cursor.fetchall()
            except psycopg2.ProgrammingError:
                return None

    @contextmanager
    def admin(self) -> Iterator[Any]:
        """A cursor of who owns the shared tables."""
        connection = connect(self._url, autocommit=True)
        try:
            yield connection.cursor()
        finally:
            connection.close()

    def close(self) -> None:
        for projector in self._projectors:
            projector.close()
        with self.pool.connection() as connection, connection.cursor() as cursor:
            for projection in PROJECTIONS.values():
                for schema in (shadow_schema, former_schema):
                    name = quote(schema(projection, self.read))
                    cursor.execute(f"DROP SCHEMA IF EXISTS {name} CASCADE")
        self.pool.close()


@pytest.fixture
def models(database_url: str, fresh_schemas: dict[str, str]) -> Iterator[Models]:
    models = Models(database_url, fresh_schemas)
    yield models
    models.close()
