"""The persistence module for the `eventsourcing` library: `PERSISTENCE_MODULE` names this file."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from uuid import UUID

from eventsourcing.persistence import (
    AggregateRecorder,
    ApplicationRecorder,
    InfrastructureFactory,
    Mapper,
    ProcessRecorder,
    TrackingRecorder,
    Transcoder,
)
from eventsourcing.utils import resolve_topic

from infra.eventstore.committer import Committer
from infra.eventstore.doorbell import Doorbell
from infra.eventstore.recorders import (
    PostgresAggregateRecorder,
    PostgresApplicationRecorder,
    PostgresProcessRecorder,
    PostgresTrackingRecorder,
)
from infra.eventstore.transcoder import EventMapper, EventTranscoder
from infra.postgres import Pool, connect
from infra.vault import Vault, open_vault


class Factory(InfrastructureFactory[TrackingRecorder]):
    """Recorders and mapper on one PostgreSQL database.

    Reads from the environment: `LOG_DATABASE_URL`, `LOG_SCHEMA` (default `log`), `LOG_ROLE`
    (default `crm_writer`), `LOG_POOL` (connections for reading, default 4), `LOG_PATIENCE`
    (seconds an append is tried again while the log is locked, default 15), `LOG_LOCK_TIMEOUT` and
    `LOG_IDLE_TIMEOUT` (how long the server lets a writer wait for the lock, or hold it and do
    nothing, default 5s), `VAULT_DATABASE_URL` (default the log's), `VAULT_SCHEMA` (default `vault`)
    and `MASTER_KEY_FILE` (of the vault).
    """

    @property
    def _url(self) -> str:
        return self.env.get("LOG_DATABASE_URL", "")

    @property
    def _session(self) -> dict[str, Any]:
        return {
            "role": self.env.get("LOG_ROLE", "crm_writer"),
            "search_path": [self.env.get("LOG_SCHEMA", "log")],
            "application_name": "crm-log",
            "autocommit": True,
        }

    @cached_property
    def pool(self) -> Pool:
        """Connections for reading the log."""
        return Pool(self._url, size=int(self.env.get("LOG_POOL", "4")), **self._session)

    @cached_property
    def doorbell(self) -> Doorbell:
        """Rings at every commit, of this process or another."""
        doorbell = Doorbell(lambda: connect(self._url, **self._session), self._heard)
        doorbell.start()
        return doorbell

    @cached_property
    def at_erasures(self) -> list[Callable[[UUID], None]]:
        """Called with a customer when the customer, or a contact of it, is erased anywhere."""
        return []

    def _heard(self, word: str) -> None:
        vault = self.__dict__.get("vault")
        if not isinstance(vault, Vault):
            return
        match word.split():
            case ["erased", subject, customer]:
                vault.forget(UUID(subject))
                for forget in self.at_erasures:
                    forget(UUID(customer))
            case [] | ["erased"]:
                vault.forget_all()

    @property
    def _writer_settings(self) -> dict[str, str]:
        return {
            # A stopped process that holds the head is ended; who waits for it tries again.
            "lock_timeout": self.env.get("LOG_LOCK_TIMEOUT", "5s"),
            "idle_in_transaction_session_timeout": self.env.get("LOG_IDLE_TIMEOUT", "5s"),
            "statement_timeout": "60s",
        }

    def _connect_writer(self, *, asynchronous: bool = False) -> Any:
        settings = self._writer_settings
        return connect(self._url, **self._session, settings=settings, asynchronous=asynchronous)

    @cached_property
    def committer(self) -> Committer:
        """The one writer of this process."""
        return Committer(
            self._connect_writer,
            connect_lane=partial(self._connect_writer, asynchronous=True),
            patience=float(self.env.get("LOG_PATIENCE", "15")),
            on_commit=self.doorbell.ring,
        )

    @cached_property
    def vault_pool(self) -> Pool:
        """Connections to the vault, under a role of its own."""
        return Pool(
            self.env.get("VAULT_DATABASE_URL") or self._url,
            size=2,
            role="crm_vault",
            search_path=[self.env.get("VAULT_SCHEMA", "vault")],
            application_name="crm-vault",
            autocommit=True,
        )

    @cached_property
    def vault(self) -> Vault:
        """The keys of personal data.

        Raises `WrongMasterKey` for the master key of another vault. An application asks for it
        first of all, so that nothing runs yet.
        """
        key_file = self.env.get("MASTER_KEY_FILE")
        if not key_file:
            raise LookupError("MASTER_KEY_FILE is not set")
        try:
            return open_vault(self.vault_pool, Path(key_file))
        except BaseException:
            self.vault_pool.close()
            raise

    def transcoder(self) -> Transcoder:
        """Plain JSON, unless another transcoder is configured."""
        if self.env.get(self.TRANSCODER_TOPIC):
            return super().transcoder()
        return EventTranscoder()

    def mapper(
        self,
        transcoder: Transcoder | None = None,
        mapper_class: type[Mapper[Any]] | None = None,
    ) -> Mapper[Any]:
        """Our mapper for our transcoder, the library's for any other."""
        if mapper_class is None and isinstance(transcoder, EventTranscoder):
            return EventMapper(self.vault, transcoder)
        return super().mapper(transcoder, mapper_class)

    def aggregate_recorder(self, purpose: str = "events") -> AggregateRecorder:
        """For snapshots: streams without positions."""
        return PostgresAggregateRecorder(self.pool)

    def application_recorder(self) -> ApplicationRecorder:
        """The log."""
        recorder: ApplicationRecorder = self._recorder(
            self.APPLICATION_RECORDER_TOPIC, PostgresApplicationRecorder
        )
        return recorder

    def process_recorder(self) -> ProcessRecorder:
        """The log with tracking."""
        recorder: ProcessRecorder = self._recorder(
            self.PROCESS_RECORDER_TOPIC, PostgresProcessRecorder
        )
        return recorder

    def tracking_recorder(
        self, tracking_recorder_class: type[TrackingRecorder] | None = None
    ) -> TrackingRecorder:
        """Positions of named consumers."""
        if tracking_recorder_class is None:
            topic = self.env.get(self.TRACKING_RECORDER_TOPIC)
            tracking_recorder_class = resolve_topic(topic) if topic else PostgresTrackingRecorder
        recorder_class: Any = tracking_recorder_class
        recorder: TrackingRecorder = recorder_class(self.pool)
        return recorder

    def _recorder(self, topic_name: str, default: type[Any]) -> Any:
        topic = self.env.get(topic_name)
        recorder_class = resolve_topic(topic) if topic else default
        return recorder_class(self.pool, self.committer, self.doorbell)

    def close(self) -> None:
        """Commit what waits, then close all connections."""
        for name in ("committer", "doorbell", "pool"):
            part = self.__dict__.pop(name, None)
            if isinstance(part, Doorbell):
                part.stop()
            elif part is not None:
                part.close()
        vault = self.__dict__.pop("vault", None)
        if vault is not None:
            vault.close()
            self.__dict__.pop("vault_pool", None)
