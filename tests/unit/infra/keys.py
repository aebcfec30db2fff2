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
        self.master: dict[UUID, str | None] = {}
        self.in_force: str | None = None
        self._found: list[tuple[Any, ...]] = []
        self.asked = 0

    @contextmanager
    def connection(self, timeout: float | None = None) -> Iterator[Any]:
        yield self

    def cursor(self) -> Self:
        return self

    def execute(self, statement: str, parameters: Any = ()) -> None:
        if statement.startswith("INSERT INTO master"):
            self.in_force = self.in_force or parameters[0]
        elif statement == "SELECT fingerprint FROM master":
            self._found = [(self.in_force,)]
        elif statement.startswith("INSERT INTO keys"):
            subject, wrapped, master = parameters
            if master == self.in_force and subject not in self.wrapped:
                self.wrapped[subject], self.master[subject] = wrapped, master
        elif "ORDER BY created_at" in statement:
            self._found = [self._row(id_) for id_, key in self.wrapped.items() if key is not None]
            del self._found[1:]
        elif "ORDER BY subject" in statement:
            after, limit = parameters
            self._found = [self._row(id_) for id_ in sorted(self.wrapped) if id_ > after][:limit]
        else:
            self.asked += 1
            self._found = [self._row(id_) for id_ in parameters[0] if id_ in self.wrapped]

    def _row(self, subject: UUID) -> tuple[UUID, bytes | None, str | None]:
        return subject, self.wrapped[subject], self.master.get(subject)

    def fetchall(self) -> list[tuple[Any, ...]]:
        return self._found

    def close(self) -> None:
        pass


def vault(table: KeyTable, master_key: bytes = MASTER_KEY, **more: Any) -> Vault:
    return Vault(table, master_key, **more)
