"""``crm seal``: seals the log on a schedule, and publishes what was signed.

Any number may run. Each publishes the newest checkpoint, whoever signed it: to a folder of its own,
and to Kafka where there is one; the table and the API have it in any case.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import structlog

from infra import tracing
from infra.embedded import EmbeddedPostgres
from infra.kafka import (
    CHECKPOINT_CONTENT,
    DELIVERY_SECONDS,
    KafkaUnavailable,
    discard,
    ensure_checkpoints,
    make_producer,
    quiet_client,
    speaking,
)
from infra.metrics import WorkerMetrics
from infra.postgres import Pool, connect
from infra.proof.notes import origin_of, parse
from infra.proof.publishing import CheckpointFolder
from infra.proof.sealing import Sealed, Sealer, SealRefused, begin_new_log
from infra.settings import Settings
from workers.exposing import expose
from workers.loop import Signals, Worker, run
from workers.wiring import Databases, databases

log = structlog.get_logger(__name__)

Publish = Callable[[str], None]
"""Takes a note to where others can see it. Raises `OSError` or `KafkaUnavailable`."""


class Sealing:
    """The worker: ``step`` seals and publishes, and is called until it did nothing more.

    A refusal to sign is told once in the log and all the while by a metric; what can be published
    is published meanwhile.
    """

    def __init__(
        self,
        sealer: Sealer,
        places: dict[str, Publish],
        metrics: WorkerMetrics,
    ) -> None:
        """``places``: where checkpoints are published, by name."""
        self._sealer = sealer
        self._places = places
        self._metrics = metrics
        self._published: dict[str, str] = {}
        self._failed: set[str] = set()
        self._refused: str | None = None

    def step(self) -> bool:
        """Whether there is more to seal at once. Raises what the driver raises."""
        self._metrics.beat("seal")
        try:
            sealed = self.seal()
        except SealRefused:
            return False
        return sealed.lag > 0 and not sealed.elsewhere

    def seal(self) -> Sealed:
        """Seals what there is, and publishes. Raises `SealRefused`."""
        try:
            sealed = self._sealer.seal()
        except SealRefused as refusal:
            self._metrics.seal_refused(True)
            if self._refused != str(refusal):
                log.error("the log is not sealed any more", reason=str(refusal))
            self._refused = str(refusal)
            raise
        if self._refused is not None:
            log.info("the log is sealed again")
        self._refused = None
        self._metrics.seal_refused(False)
        self._metrics.sealed(sealed.position, sealed.lag)
        if sealed.added:
            log.info("sealed", position=sealed.position, events=sealed.added)
        if sealed.note:
            self.publish(sealed.note)
        return sealed

    def publish(self, note: str) -> bool:
        """Publishes a note where it was not yet; whether it is everywhere now."""
        for name, place in self._places.items():
            if self._published.get(name) == note:
                continue
            try:
                place(note)
            except (OSError, KafkaUnavailable) as error:
                if name not in self._failed:
                    log.warning("a checkpoint is not published", place=name, error=str(error))
                self._failed.add(name)
                continue
            self._failed.discard(name)
            self._published[name] = note
        self._metrics.seal_unpublished(bool(self._failed))
        return not self._failed


def to_kafka(settings: Settings) -> Publish:
    """Sends notes to the topic of checkpoints: the key is the log's origin, the value the note.

    A sealer that begins sends the newest once more.
    """

    def publish(note: str) -> None:
        quiet_client()
        topic = ensure_checkpoints(settings)
        producer = make_producer(settings)
        try:
            with speaking():
                sent = producer.send(
                    topic,
                    key=parse(note).checkpoint.origin.encode(),
                    value=note.encode(),
                    headers=[("content-type", CHECKPOINT_CONTENT.encode())],
                )
                sent.get(timeout=DELIVERY_SECONDS + 5)
        finally:
            discard(producer)

    return publish


def seal(settings: Settings, *, once: bool, told: Callable[[str], None]) -> int:
    """``crm seal``: until SIGINT or SIGTERM, or, with ``once``, until all is sealed; exit code.

    Raises ``SealRefused`` with ``once``, ``CannotListen`` for metrics, and what keeps the database
    from being used at the start.
    """
    with ExitStack() as stack:
        tracing.configure(settings.otlp_endpoint, "crm-seal")
        stack.callback(tracing.close)
        signals = stack.enter_context(Signals())
        metrics = WorkerMetrics()
        stack.callback(metrics.close)
        try:
            addresses = stack.enter_context(databases(settings, administering=False))
            worker = stack.enter_context(_worker(settings, addresses, metrics))
            if once:
                return _all(worker, told)
            expose(settings, metrics)
            signals.serving = True
        except KeyboardInterrupt:
            return 0
        run(
            "seal",
            worker.step,
            stopped=signals.stopped,
            idle=lambda: signals.stopped.wait(settings.seal_seconds),
        )
        return 0


def _all(worker: Sealing, told: Callable[[str], None]) -> int:
    while True:
        sealed = worker.seal()
        if not sealed.lag:
            break
        if sealed.elsewhere:
            time.sleep(0.2)
    if not sealed.note:
        told("the log is empty: there is nothing to seal")
        return 0
    told(sealed.note.rstrip("\n"))
    return 0 if worker.publish(sealed.note) else 1


def rotate_key(settings: Settings, told: Callable[[str], None]) -> int:
    """``crm seal --rotate-key``: a new key signs from now on; exit code. Raises ``SealRefused``."""
    with (
        databases(settings, administering=False) as addresses,
        _pool(addresses) as pool,
    ):
        folder = CheckpointFolder(settings.checkpoint_dir)
        sealer = Sealer(pool, settings.seal_key_file, published=folder.latest)
        try:
            key, sealed = sealer.rotate()
        except OSError as error:
            raise SealRefused(
                f"{settings.seal_key_file} cannot be replaced: {error.strerror or error}"
            ) from None
        told(f"from position {sealed.position:,} on checkpoints are signed by")
        told(str(key))
        published = Sealing(sealer, _places(settings), WorkerMetrics()).publish(sealed.note)
        return 0 if published else 1


def new_log(settings: Settings, told: Callable[[str], None]) -> int:
    """``crm seal --new-log``: the log is sealed from its beginning under another name; exit code.

    For the owner of the tables.
    """
    with ExitStack() as stack:
        url = stack.enter_context(databases(settings)).log
        if settings.embedded:
            url = stack.enter_context(EmbeddedPostgres(settings.data_dir)).admin_url
        connection = connect(url, search_path=["log"], application_name="crm-seal")
        stack.callback(connection.close)
        log_id = begin_new_log(connection)
        connection.commit()
    CheckpointFolder(settings.checkpoint_dir).retire()
    told(f"the log's checkpoints are named {origin_of(log_id)} from now on")
    return 0


@contextmanager
def sealing(settings: Settings, addresses: Databases, signals: Signals) -> Iterator[None]:
    """The log is sealed in a thread while this is entered; its end stops the process."""
    metrics = WorkerMetrics()
    with _worker(settings, addresses, metrics) as one:
        worker = Worker(
            "seal",
            one.step,
            stopped=signals.stopped,
            idle=lambda: signals.stopped.wait(settings.seal_seconds),
        )
        worker.start()
        try:
            yield
        finally:
            signals.stopped.set()
            worker.join()
            metrics.close()


@contextmanager
def _worker(settings: Settings, addresses: Databases, metrics: WorkerMetrics) -> Iterator[Sealing]:
    with _pool(addresses) as pool:
        folder = CheckpointFolder(settings.checkpoint_dir)
        sealer = Sealer(pool, settings.seal_key_file, published=folder.latest)
        yield Sealing(sealer, _places(settings), metrics)


def _places(settings: Settings) -> dict[str, Publish]:
    places: dict[str, Publish] = {
        str(settings.checkpoint_dir): CheckpointFolder(settings.checkpoint_dir).publish
    }
    if settings.kafka_bootstrap is not None:
        places["kafka"] = to_kafka(settings)
    return places


def _pool(addresses: Databases) -> Pool:
    return Pool(
        addresses.log,
        size=1,
        role="crm_sealer",
        search_path=["log"],
        application_name="crm-seal",
    )
