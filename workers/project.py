"""``crm project``: keeps read models up, in this process or in several that it looks after."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import product

import structlog

from infra import tracing
from infra.kafka import quiet_client
from infra.metrics import WorkerMetrics
from infra.settings import PREFIX, Settings, SettingsError
from projections.projection import Projection
from projections.projector import LogBehind, NewerProgram, OtherLog, Projector
from projections.rebuild import clean
from workers import completing, lagging, summarizing
from workers.completing import CompletenessWatch
from workers.consuming import Consumer
from workers.exposing import expose
from workers.lagging import LagWatch
from workers.loop import Signals, Worker, run
from workers.membership import Fenced, WrongPartitions
from workers.projecting import Keeper, rebuild
from workers.summarizing import SummaryKeeper
from workers.wiring import ReadSide, databases, models_of, read_side

log = structlog.get_logger(__name__)

GRACE = 30.0
"""Seconds that workers are given to end what they are at."""

LONGEST_PAUSE = 30.0
"""Seconds until a worker that keeps failing is started again."""

STEADY = 60.0
"""Seconds after which a worker counts as well started."""

_LOOK = 0.2


class ReadModelRefused(RuntimeError):
    """A read model cannot be carried on until somebody decides; the message says what can be
    done."""


def project(settings: Settings, names: Sequence[str], workers: int) -> int:
    """Keeps the read models up until SIGINT or SIGTERM, each by so many processes; exit code.

    One worker of one read model runs in this process. It ends with 0 as well when a later version
    of the program has taken over. Raises ``SettingsError``, ``CannotListen``, ``ReadModelRefused``,
    ``Fenced``, ``WrongPartitions``, and whatever keeps the databases from being used at the start.
    """
    wanted = list(dict.fromkeys(names))
    if settings.kafka_bootstrap is None and workers > 1:
        raise SettingsError(
            f"{PREFIX}KAFKA_BOOTSTRAP: several workers of a read model share it by way of Kafka"
        )
    if len(wanted) == 1 and workers == 1:
        work(settings, models_of(settings)[wanted[0]])
        return 0
    base, port = settings.instance or socket.gethostname(), settings.metrics_port
    children = [
        Child(name, f"{base}-{number}", None if port is None else port + index)
        for index, (name, number) in enumerate(product(wanted, range(workers)))
    ]
    return Supervisor(children).run()


# ---- one worker ----


def work(settings: Settings, projection: Projection) -> None:
    """Keeps one read model up, in this process. See ``project``."""
    with ExitStack() as stack:
        tracing.configure(settings.otlp_endpoint, f"crm-project-{projection.name}")
        stack.callback(tracing.close)
        signals = stack.enter_context(Signals())
        metrics = WorkerMetrics()
        stack.callback(metrics.close)
        try:
            expose(settings, metrics)
            addresses = stack.enter_context(databases(settings, administering=False))
            side = stack.enter_context(read_side(addresses))
            signals.serving = True
        except KeyboardInterrupt:
            return
        if settings.kafka_bootstrap is None:
            _from_log(projection, side, settings, metrics, signals)
        else:
            quiet_client()
            _from_kafka(projection, side, settings, metrics, signals)


def _from_kafka(
    projection: Projection,
    side: ReadSide,
    settings: Settings,
    metrics: WorkerMetrics,
    signals: Signals,
) -> None:
    feed = side.feed(projection)
    consumer = Consumer(
        Projector(projection, feed, side.pool, partitions=settings.partitions),
        settings,
        metrics,
        head=feed.head,
        rebuild=lambda: rebuild(projection, side, settings.partitions),
        instance=settings.instance or f"{socket.gethostname()}-0",
    )
    ended: list[Exception] = []
    tidy = False

    def step() -> int:
        nonlocal tidy
        try:
            consumer.step()
            if consumer.positions and not tidy:
                clean(side.pool, projection)
                tidy = True
        except NewerProgram as reason:
            log.info("read model left", projection=projection.id, reason=str(reason))
            signals.stopped.set()
        except (OtherLog, LogBehind) as reason:
            ended.append(ReadModelRefused(str(reason)))
            signals.stopped.set()
        except (Fenced, WrongPartitions) as reason:
            ended.append(reason)
            signals.stopped.set()
        return 1

    def completeness_is_ours() -> bool:
        return 0 in consumer.positions  # one worker of the group is enough

    try:
        with _watching(
            projection,
            side,
            settings,
            metrics,
            signals,
            lambda: consumer.positions,
            completeness_is_ours,
        ):
            run(f"project-{projection.name}", step, stopped=signals.stopped, idle=lambda: None)
    finally:
        consumer.close()
    if ended:
        raise ended[0]


def _from_log(
    projection: Projection,
    side: ReadSide,
    settings: Settings,
    metrics: WorkerMetrics,
    signals: Signals,
) -> None:
    keeper = Keeper(projection, side, settings.partitions)
    name = f"project-{projection.name}"

    def step() -> int:
        metrics.beat(name)
        done = keeper.step()
        for partition, position in keeper.positions().items():
            metrics.position(projection.name, partition, position)
        if keeper.refused is not None or keeper.ended.is_set():
            signals.stopped.set()
        return done

    try:
        with _watching(
            projection, side, settings, metrics, signals, keeper.positions, lambda: True
        ):
            run(name, step, stopped=signals.stopped, idle=keeper.idle)
    finally:
        keeper.close()
    if keeper.refused is not None:
        raise ReadModelRefused(keeper.refused)


@contextmanager
def _watching(
    projection: Projection,
    side: ReadSide,
    settings: Settings,
    metrics: WorkerMetrics,
    signals: Signals,
    positions: Callable[[], Mapping[int, int]],
    completeness_is_ours: Callable[[], bool],
) -> Iterator[None]:
    """Lag and completeness are told, and summaries kept up, while this is entered; its end stops
    the process."""
    lag = LagWatch(projection.name, side.log_pool, metrics, positions)
    complete = CompletenessWatch([projection], side, settings.partitions, metrics)
    stopped = signals.stopped
    watches = [
        Worker(
            f"lag-{projection.name}",
            lag.step,
            stopped=stopped,
            idle=lambda: stopped.wait(lagging.EVERY_SECONDS),
        ),
        Worker(
            f"completeness-{projection.name}",
            lambda: complete.step() if completeness_is_ours() else 0,
            stopped=stopped,
            idle=lambda: stopped.wait(completing.EVERY_SECONDS),
        ),
        Worker(
            f"summaries-{projection.name}",
            SummaryKeeper([projection], side).step,
            stopped=stopped,
            idle=lambda: stopped.wait(summarizing.EVERY_SECONDS),
        ),
    ]
    for watch in watches:
        watch.start()
    try:
        yield
    finally:
        stopped.set()
        side.doorbell.ring()
        for watch in watches:
            watch.join()


# ---- several workers ----


@dataclass(slots=True)
class Child:
    """A worker in a process of its own."""

    name: str
    instance: str
    metrics_port: int | None
    process: subprocess.Popen[bytes] | None = None
    done: bool = False
    failures: int = 0
    began: float = 0.0
    start_at: float = field(default=0.0)

    def start(self) -> None:
        environment = {**os.environ, f"{PREFIX}INSTANCE": self.instance}
        if self.metrics_port is not None:
            environment[f"{PREFIX}METRICS_PORT"] = str(self.metrics_port)
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "workers.cli",
                "project",
                self.name,
                "--parent",
                str(os.getpid()),
            ],
            env=environment,
            # A signal from the terminal comes by way of this process.
            start_new_session=True,
        )

    def look(self) -> None:
        """Start it if it is due, and see whether it has ended."""
        if self.done:
            return
        if self.process is None:
            if time.monotonic() >= self.start_at:
                self.start()
            return
        code = self.process.poll()
        if code is None:
            return
        self.process = None
        if code == 0:
            self.done = True
            log.info("worker ended", projection=self.name, instance=self.instance)
            return
        steady = time.monotonic() - self.began >= STEADY
        self.failures = 1 if steady else self.failures + 1
        pause = min(LONGEST_PAUSE, 0.5 * 2 ** min(self.failures - 1, 10))
        self.start_at = time.monotonic() + pause
        log.error(
            "worker failed, starting it again",
            projection=self.name,
            instance=self.instance,
            code=code,
            pause=pause,
        )


class Supervisor:
    """Starts workers, starts again those that fail, and ends them with itself."""

    def __init__(self, children: Sequence[Child]) -> None:
        self.children = children

    def run(self) -> int:
        """Until all have ended well or this process is told to stop; exit code."""
        with Signals() as signals:
            signals.serving = True
            try:
                while not signals.stopped.is_set():
                    for child in self.children:
                        child.look()
                    if all(child.done for child in self.children):
                        return 0
                    signals.stopped.wait(_LOOK)
            finally:
                self._end()
        return 0

    def _end(self) -> None:
        running = [child.process for child in self.children if child.process is not None]
        for process in running:
            process.terminate()
        until = time.monotonic() + GRACE
        for process in running:
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.error("a worker does not end and is killed", pid=process.pid)
                process.kill()
                process.wait()
