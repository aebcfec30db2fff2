"""A process that is stopped while it holds the head's lock is ended by the server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.eventstore.factory import Factory
from infra.eventstore.records import Appended
from tests.integration.eventstore.stepping import PATIENCE, Log, command, eventually

pytestmark = pytest.mark.database

ROOT = Path(__file__).parents[2]
Writer = subprocess.Popen[str]


@pytest.fixture
def writer(log_environment: dict[str, str]) -> Iterator[Writer]:
    """Another process of the product; what it holds and does nothing with is soon taken from it."""
    settings = json.dumps({**log_environment, "LOG_IDLE_TIMEOUT": "1s"})
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.stopped_writer", settings],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield process
    process.send_signal(signal.SIGCONT)
    process.kill()
    process.communicate()


def is_stopped(process: Writer) -> bool:
    pid, status = os.waitpid(process.pid, os.WNOHANG | os.WUNTRACED)
    return pid != 0 and os.WIFSTOPPED(status)


def test_the_others_go_on(log: Log, writer: Writer, new_factory: Callable[..., Factory]) -> None:
    assert writer.stdin is not None
    assert writer.stdout is not None
    committer = new_factory(LOG_LOCK_TIMEOUT="50ms").committer  # waits for it more than once
    assert writer.stdout.readline() == "holding\n"
    writer.send_signal(signal.SIGSTOP)
    eventually(lambda: is_stopped(writer))

    futures = [committer.submit(command()) for _ in range(3)]
    assert [future.result(PATIENCE) for future in futures] == [Appended(n, 1) for n in (2, 3, 4)]
    assert log.check() == 4

    writer.send_signal(signal.SIGCONT)
    writer.stdin.write("go on\n")
    writer.stdin.flush()
    assert writer.stdout.readline() == "OutcomeUnknown\n"
    assert writer.stdout.readline() == "5\n"  # the retry with the same key: it had not been done
    assert writer.wait(PATIENCE) == 0
    assert log.check() == 5
