"""The loop of a worker: works while there is work, waits when there is none, outlives errors."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

import pytest

from workers import loop
from workers.loop import Signals, Worker


class Work:
    """Steps with prepared outcomes; stops the loop after the last."""

    def __init__(self, *outcomes: int | Exception) -> None:
        self.stopped = threading.Event()
        self.idled = 0
        self.pauses: list[float] = []
        self._outcomes = list(outcomes)

    def step(self) -> int:
        outcome = self._outcomes.pop(0)
        if not self._outcomes:
            self.stopped.set()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def idle(self) -> None:
        self.idled += 1

    def run(self) -> None:
        loop.run("test", self.step, stopped=self.stopped, idle=self.idle)


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "LONGEST_PAUSE", 0.0)


def test_it_waits_only_when_there_was_nothing_to_do() -> None:
    work = Work(5, 0, 3, 0, 0, 1)
    work.run()
    assert work.idled == 3


@pytest.mark.usefixtures("no_pause")
def test_an_error_does_not_end_it() -> None:
    work = Work(1, ValueError("first"), OSError("second"), 1)
    work.run()
    assert work.stopped.is_set()


@pytest.mark.usefixtures("no_pause")
def test_waiting_may_fail_too() -> None:
    work = Work(0, 1)
    loop.run("test", work.step, stopped=work.stopped, idle=_raises(OSError("gone")))
    assert work.stopped.is_set()


def test_the_pause_after_an_error_ends_when_it_is_stopped() -> None:
    stopped = threading.Event()
    worker = Worker("test", _raises(ValueError("always")), stopped=stopped, idle=lambda: None)
    worker.start()
    stopped.set()
    worker.join(60)
    assert not worker.is_alive()


def _raises(error: Exception) -> Callable[[], None]:
    def function() -> None:
        raise error

    return function


class TestSignals:
    def test_before_serving_a_signal_interrupts(self) -> None:
        with Signals() as signals:
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGTERM)
            assert signals.stopped.is_set()
            os.kill(os.getpid(), signal.SIGINT)  # once is enough

    def test_while_serving_it_sets_the_flag(self) -> None:
        with Signals() as signals:
            signals.serving = True
            os.kill(os.getpid(), signal.SIGINT)
            assert signals.stopped.is_set()

    def test_the_former_handlers_come_back(self) -> None:
        former = signal.getsignal(signal.SIGTERM)
        with Signals():
            assert signal.getsignal(signal.SIGTERM) != former
        assert signal.getsignal(signal.SIGTERM) == former
