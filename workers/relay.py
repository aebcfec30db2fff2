"""``crm relay``: carries the log to Kafka. Any number may run: one publishes, others stand by."""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial

import psycopg2
import structlog
from kafka import KafkaProducer

from infra import tracing
from infra.eventstore.doorbell import Doorbell
from infra.eventstore.outbox import GapInLog, LeaseLost, LogChanged, Outbox
from infra.kafka import KafkaUnavailable, Topic, make_producer, quiet_client
from infra.metrics import WorkerMetrics
from infra.postgres import Pool, connect
from infra.settings import Settings, SettingsError
from workers.exposing import expose
from workers.loop import Signals, Worker, run
from workers.publishing import KafkaLost, Publishing, SendFailed
from workers.resuming import RelayRefused, demand_rewindable, resume, rewind
from workers.wiring import Databases, databases

log = structlog.get_logger(__name__)

LONGEST_WAIT = 1.0
"""Seconds after which the relay looks for events though nothing told it of any."""

LONGEST_PAUSE = 2.0
"""Seconds between two tries to reach Kafka or the log."""

STEADY = 20.0
"""Seconds without a failure after which a new start counts as well begun: a record that is not
taken has failed by then."""

STUCK = 60.0
"""Seconds without a step after which the lease is no longer renewed, whatever keeps the step."""

_AWAY = (
    KafkaUnavailable,
    SendFailed,
    KafkaLost,
    LogChanged,
    psycopg2.OperationalError,
    psycopg2.InterfaceError,
)


class Relay:
    """Publishes while it holds the lease, and stands by otherwise.

    One thread calls `step` and `idle`, another may call `keep`. Nothing that Kafka or the database
    does ends it, only what somebody has to decide (`RelayRefused`, `GapInLog`).
    """

    def __init__(
        self,
        settings: Settings,
        outbox: Outbox,
        doorbell: Doorbell,
        metrics: WorkerMetrics,
        *,
        stopped: threading.Event,
        producer: Callable[[], KafkaProducer] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._outbox = outbox
        self._doorbell = doorbell
        self._metrics = metrics
        self._stopped = stopped
        self._producer = producer or partial(make_producer, settings)
        self._clock = clock
        self._publishing: Publishing | None = None
        self._heard = 0
        self._failures = 0
        self._begun_after = 0  # where the present start began in the log, and when
        self._try_at = self._stepped_at = self._begun_at = clock()

    def step(self) -> bool:
        """Carry on what is new; whether there was anything to do. Raises `RelayRefused` and
        `GapInLog`, with the lease given up."""
        self._stepped_at = self._clock()
        self._metrics.beat("relay")
        self._heard = self._doorbell.rings
        if self._clock() < self._try_at:
            return False
        try:
            if not self._leads():
                return False
            if self._publishing is None:
                self._publishing = self._begin()
            busy = self._publishing.step()
        except LeaseLost:
            self._stand_by()
            return False
        except _AWAY as error:
            self._failed(error)
            return False
        except BaseException:
            self._abandon()
            with suppress(psycopg2.Error):
                self._outbox.release()
            raise
        self._succeeded()
        return busy

    def idle(self) -> None:
        """Wait until there may be something to do, for `LONGEST_WAIT` at most."""
        pause = self._try_at - self._clock()
        if pause > 0:
            self._stopped.wait(pause)
        elif self._publishing is None:
            self._stopped.wait(min(LONGEST_WAIT, self._settings.lease_seconds / 4))
        else:
            timeout = min(LONGEST_WAIT, self._publishing.due())
            if not self._publishing.wait(timeout):
                self._doorbell.wait(self._heard, timeout)

    def keep(self) -> None:
        """Renew the lease, if it is held and steps are made, and say how far the log is ahead."""
        # the next step sees what goes wrong here
        with suppress(LeaseLost, psycopg2.OperationalError, psycopg2.InterfaceError):
            if self._outbox.epoch is not None and self._clock() - self._stepped_at < STUCK:
                self._outbox.renew()
            backlog = self._outbox.backlog()
            self._metrics.outbox(backlog.events, backlog.oldest_seconds)

    def close(self) -> None:
        """Finish what is in flight, save the cursor and give the lease up."""
        publishing = self._publishing
        try:
            if publishing is not None:
                publishing.finish()
        except (LeaseLost, *_AWAY) as error:
            log.warning("the cursor is not saved to the end", error=str(error))
        self._abandon()
        with suppress(psycopg2.Error):
            self._outbox.release()

    def _leads(self) -> bool:
        epoch = self._outbox.epoch
        if epoch is None:
            if self._publishing is not None:
                raise LeaseLost
            if not self._outbox.take():
                self._metrics.lease(False, 0)
                return False
            epoch = self._outbox.epoch
            log.info("this relay publishes", lease=epoch)
        self._metrics.lease(True, epoch or 0)
        return True

    def _begin(self) -> Publishing:
        topic = Topic(self._settings)
        try:
            cursor = resume(self._settings, self._outbox, topic)
            producer = self._producer()
        except BaseException:
            topic.close()
            raise
        if not self._failures:
            log.info("publishing", topic=cursor.topic, after=cursor.position)
        self._begun_after, self._begun_at = cursor.position, self._clock()
        return Publishing(
            cursor,
            outbox=self._outbox,
            producer=producer,
            topic=topic,
            metrics=self._metrics,
            clock=self._clock,
        )

    def _stand_by(self) -> None:
        self._abandon()
        self._metrics.lease(False, 0)
        log.warning("another relay has taken over; standing by")

    def _failed(self, error: Exception) -> None:
        publishing = self._publishing
        if publishing is not None and publishing.acknowledged > self._begun_after:
            self._failures = min(self._failures, 1)  # it gets on, if only by fits and starts
        self._abandon()
        if not isinstance(error, psycopg2.Error):
            self._metrics.relay_failed()
        if not self._failures:
            log.warning(
                "publishing failed; commands go on", error=f"{type(error).__name__}: {error}"
            )
        self._failures += 1
        pause = 0.05 * 2 ** min(self._failures, 10)
        self._try_at = self._clock() + min(LONGEST_PAUSE, pause)

    def _succeeded(self) -> None:
        """A step that went well says little: what it sent may be refused after it."""
        publishing = self._publishing
        if not self._failures or publishing is None:
            return
        if publishing.acknowledged > self._begun_after or self._clock() - self._begun_at >= STEADY:
            log.info("publishing again", failures=self._failures, after=publishing.acknowledged)
            self._failures = 0

    def _abandon(self) -> None:
        publishing, self._publishing = self._publishing, None
        if publishing is not None:
            publishing.abandon()


def relay(settings: Settings) -> None:
    """``crm relay``: runs until SIGINT or SIGTERM.

    Raises ``SettingsError`` where no Kafka is named, ``CannotListen`` for metrics,
    ``RelayRefused`` and ``GapInLog`` where somebody has to decide, and whatever keeps the database
    from being used at the start.
    """
    _wants_kafka(settings)
    with ExitStack() as stack:
        tracing.configure(settings.otlp_endpoint, "crm-relay")
        stack.callback(tracing.close)
        signals = stack.enter_context(Signals())
        metrics = WorkerMetrics()
        stack.callback(metrics.close)
        try:
            addresses = stack.enter_context(databases(settings, administering=False))
            outbox = stack.enter_context(_outbox(settings, addresses))
            doorbell = Doorbell(
                lambda: connect(
                    addresses.log,
                    role="crm_relay",
                    search_path=["log"],
                    application_name="crm-relay-doorbell",
                    autocommit=True,
                )
            )
            doorbell.start()
            stack.callback(doorbell.stop)
            expose(settings, metrics)
            signals.serving = True
        except KeyboardInterrupt:
            return
        one = Relay(settings, outbox, doorbell, metrics, stopped=signals.stopped)
        pause = min(LONGEST_WAIT, settings.lease_seconds / 4)

        def until_next() -> None:
            if signals.stopped.wait(pause):
                doorbell.ring()  # the other thread may wait for events

        keeper = Worker("relay-lease", one.keep, stopped=signals.stopped, idle=until_next)
        keeper.start()
        stack.callback(keeper.join)
        stack.callback(signals.stopped.set)
        stack.callback(one.close)
        _run(one, signals.stopped)


def set_cursor(settings: Settings, position: int) -> str:
    """``crm relay --from``: has the relays go on after ``position``; gives a line that says so.

    A relay that publishes meanwhile loses its lease, unless what is asked for is refused. Raises
    ``NoSuchPosition``, ``SettingsError``, ``OtherPartitions``, ``KafkaUnavailable``, ``LeaseLost``
    and whatever keeps the database from being used.
    """
    _wants_kafka(settings)
    with ExitStack() as stack:
        addresses = stack.enter_context(databases(settings, administering=False))
        outbox = stack.enter_context(_outbox(settings, addresses))
        writers = _pool(addresses, "crm_writer")
        stack.callback(writers.close)
        topic = stack.enter_context(Topic(settings))
        demand_rewindable(settings, outbox, topic, position)
        outbox.seize()
        stack.callback(outbox.release)
        cursor, anew = rewind(settings, outbox, topic, writers, position)
        head = outbox.head()
    line = (
        f"the relay goes on after position {cursor.position:,} of {head.position:,},"
        f" to topic {cursor.topic}"
    )
    if anew:
        line += (
            f"; the log was restored to an earlier point and has a new identity, {head.epoch}:"
            " rebuild every read model by crm rebuild"
        )
    return line


def _wants_kafka(settings: Settings) -> None:
    if settings.kafka_bootstrap is None:
        raise SettingsError("CRM_KAFKA_BOOTSTRAP: the relay needs it, as host:port")
    quiet_client()


def _pool(addresses: Databases, role: str) -> Pool:
    return Pool(
        addresses.log,
        size=4,
        role=role,
        search_path=["log"],
        application_name="crm-relay",
        autocommit=True,
        # What a crash of the server takes back here is a little of the cursor: some is sent twice.
        settings={"synchronous_commit": "off", "lock_timeout": "5s"},
    )


def lease_holder(settings: Settings) -> str:
    """A new name for a holder of the lease: in a container that starts again, host and process
    number are those of the one before."""
    host = settings.instance or socket.gethostname()
    return f"{host}/{os.getpid()}/{secrets.token_hex(4)}"


@contextmanager
def _outbox(settings: Settings, addresses: Databases) -> Iterator[Outbox]:
    with _pool(addresses, "crm_relay") as pool:
        yield Outbox(pool, lease_holder(settings), settings.lease_seconds)


def _run(one: Relay, stopped: threading.Event) -> None:
    """The worker's loop, which tries again whatever fails, but for what somebody has to decide."""
    refused: list[Exception] = []

    def step() -> bool:
        try:
            return one.step()
        except (RelayRefused, GapInLog) as error:
            refused.append(error)
            stopped.set()
            return True

    run("relay", step, stopped=stopped, idle=one.idle)
    if refused:
        raise refused[0]
