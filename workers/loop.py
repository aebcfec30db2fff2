"""The loop that every worker runs in, and the signals that end it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Self

import structlog

log = structlog.get_logger(__name__)

DONE = 0
INTERRUPTED = 130
"""Exit codes of commands: all was done; SIGINT or SIGTERM ended it early."""

LONGEST_PAUSE = 30.0
"""Seconds between tries when a step keeps failing."""


def run(
    name: str,
    step: Callable[[], object],
    *,
    stopped: threading.Event,
    idle: Callable[[], object],
) -> None:
    """Calls ``step`` until ``stopped`` is set, and ``idle``, which may wait, when it did nothing.

    A step that fails is logged and tried again, after a pause that grows: nothing but ``stopped``
    ends a worker. All log lines meanwhile bear the worker's name.
    """
    with structlog.contextvars.bound_contextvars(worker=name):
        _run(step, stopped, idle)


def _run(step: Callable[[], object], stopped: threading.Event, idle: Callable[[], object]) -> None:
    failures = 0
    while not stopped.is_set():
        try:
            if not step():
                idle()
            failures = 0
        except Exception:
            failures += 1
            pause = min(LONGEST_PAUSE, 0.1 * 2 ** min(failures, 10))
            log.exception("worker failed", failures=failures, pause=pause)
            stopped.wait(pause)


class Worker(threading.Thread):
    """``run`` in a thread of its own."""

    def __init__(
        self,
        name: str,
        step: Callable[[], object],
        *,
        stopped: threading.Event,
        idle: Callable[[], object],
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._step = step
        self._stopped = stopped
        self._idle = idle

    def run(self) -> None:
        run(self.name, self._step, stopped=self._stopped, idle=self._idle)


class Signals:
    """SIGINT and SIGTERM while it is entered: the first stops the process, later ones do nothing.

    Until ``serving`` is set it stops it by ``KeyboardInterrupt``; from then on it only sets
    ``stopped``, so that what was begun is ended in good order.
    """

    def __init__(self) -> None:
        self.stopped = threading.Event()
        self.serving = False
        self._former: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._former[number] = signal.signal(number, self._received)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _received(self, _number: int, _frame: FrameType | None) -> None:
        if self.stopped.is_set():
            return
        self.stopped.set()
        if not self.serving:
            raise KeyboardInterrupt
