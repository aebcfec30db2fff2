"""The vault's table of keys, in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self
from uuid import UUID

from infra.postgres import Pool
from infra.vault import Vault

MASTER_KEY = b"m" * 32


class KeyTable(Pool):
    """A pool, its connection and its cursor in one, for the vault's statements."""

    def __init__(self) -> None:
        self.wrapped: dict[UUID, bytes | None] = {}
        self._found: list[tuple[UUID, bytes | None]] = []
        self.asked = 0

    @contextmanager
    def connection(self, timeout: float | None = None) -> Iterator[Any]:
        yield self

    def cursor(self) -> Self:
        return self

    def execute(self, statement: str, parameters: Any = ()) -> None:
        if statement.startswith("INSERT"):
            self.wrapped.setdefault(*parameters)
        elif "ORDER BY created_at" in statement:
            kept = [(id_, key) for id_, key in self.wrapped.items() if key is not None]
            self._found = kept[:1]
        elif "ORDER BY subject" in statement:
            after, limit = parameters
            rows = sorted((id_, key) for id_, key in self.wrapped.items() if id_ > after)
            self._found = rows[:limit]
        else:
            self.asked += 1
            self._found = [(id_, self.wrapped[id_]) for id_ in parameters[0] if id_ in self.wrapped]

    def fetchall(self) -> list[tuple[UUID, bytes | None]]:
        return self._found

    def close(self) -> None:
        pass


def vault(table: KeyTable, master_key: bytes = MASTER_KEY, **more: Any) -> Vault:
    return Vault(table, master_key, **more)
