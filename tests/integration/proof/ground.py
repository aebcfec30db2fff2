"""A log, its sealer and its verifiers, as one test sees them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
from psycopg2.extras import execute_values

from infra.postgres import Connection, Pool, connect
from infra.proof.keyring import Keyring
from infra.proof.leaves import COLUMNS, SELECT_COLUMNS, Row, json_of_row
from infra.proof.locating import Verdict, verify
from infra.proof.notes import Note, SigningKey, VerifyingKey, origin_of, parse
from infra.proof.publishing import CheckpointFolder
from infra.proof.sealing import Sealer
from infra.proof.sources import DatabaseSource
from infra.proof.stored import Stored


@dataclass
class Ground:
    """The log in one schema of the test's database."""

    url: str
    schema: str
    folder: Path

    def __post_init__(self) -> None:
        self.owner = self.connection(autocommit=True)
        self.pool = Pool(self.url, size=4, role="crm_sealer", search_path=[self.schema])
        self.published = CheckpointFolder(self.folder / "checkpoints")
        self.key_file = self.folder / "seal.key"
        self._random = random.Random(1)

    def close(self) -> None:
        self.pool.close()
        self.owner.close()

    def connection(self, role: str | None = None, *, autocommit: bool = False) -> Connection:
        return connect(self.url, role=role, search_path=[self.schema], autocommit=autocommit)

    def sealer(self, step: int = 100_000, key_file: Path | None = None) -> Sealer:
        return Sealer(
            self.pool, key_file or self.key_file, published=self.published.latest, step=step
        )

    def seal(self) -> Note:
        """Seals all there is; the newest checkpoint, published."""
        sealer = self.sealer()
        while (sealed := sealer.seal()).lag:
            pass
        self.published.publish(sealed.note)
        return parse(sealed.note)

    def query(self, statement: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """As the tables' owner, who may do anything."""
        with self.owner.cursor() as cursor:
            cursor.execute(statement, parameters or None)
            return cursor.fetchall() if cursor.description else []

    def record(self, count: int) -> None:
        """So many further events, as the log keeps them."""
        ((head,),) = self.query("SELECT position FROM head")
        rows = [self._row(head + number) for number in range(1, count + 1)]
        with self.owner.cursor() as cursor:
            execute_values(
                cursor,
                f"INSERT INTO events ({SELECT_COLUMNS}) VALUES %s",
                [[getattr(row, name) for name in COLUMNS] for row in rows],
            )
        self.query(
            "UPDATE head SET position = %s, recorded_at = %s",
            [head + count, rows[-1].recorded_at],
        )

    def _row(self, position: int) -> Row:
        at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=position, microseconds=position)
        some = self._random.random
        return Row(
            position=position,
            stream_id=self._id(),
            version=1,
            class_version=1,
            partition_key=self._id(),
            occurred_at=at - timedelta(days=some() * 100),
            recorded_at=at,
            command_id=self._id(),
            correlation_id=self._id(),
            causation_id=self._id() if some() < 0.3 else None,
            topic="crm.customer.churn-signal-raised",
            actor=f"salesperson é客{position}",
            reason="asked for" if some() < 0.3 else None,
            traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            state=orjson.dumps({"kind": "silence", "n": position, "x": "y" * int(some() * 900)}),
        )

    def _id(self) -> UUID:
        return UUID(int=self._random.getrandbits(128), version=4)

    def rows(self) -> list[Row]:
        """The log as it is."""
        found = self.query(f"SELECT {SELECT_COLUMNS} FROM events ORDER BY position")
        return [Row(*row[:-1], bytes(row[-1])) for row in found]

    def export(self) -> Path:
        path = self.folder / "events.ndjson"
        path.write_bytes(b"".join(orjson.dumps(json_of_row(row)) + b"\n" for row in self.rows()))
        return path

    @property
    def key(self) -> SigningKey:
        ((log_id,),) = self.query("SELECT log_id FROM seal")
        return SigningKey(origin_of(log_id), self.key_file.read_bytes())

    def verify(self, *notes: Note, keys: Sequence[VerifyingKey] = ()) -> Verdict:
        """As ``crm verify`` does: read-only, as a reader, by these checkpoints and all stored ones
        that the key signed."""
        streaming, reading = self.connection("crm_reader"), self.connection("crm_reader")
        try:
            stored = Stored(reading)
            every = [*notes, *(parse(one.note) for one in stored.checkpoints())]
            ring = Keyring(keys or [self.key.verifying])
            ring.learn(every, [VerifyingKey.parse(text) for text in stored.vkeys()])
            for note in every:
                ring.check(note)
            return verify(
                DatabaseSource(streaming),
                stored,
                [note.checkpoint for note in every],
                head=stored.head(),
            )
        finally:
            streaming.close()
            reading.close()
