"""Processes that fill shares of new sets of tables, for `crm rebuild`.

As a program (`python -m workers.filling`) it is one of them: what it needs comes by its standard
input, a line of JSON for itself and one for each share; it answers on its standard output.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, Any

import structlog

from infra import crashpoints, logging
from infra.definitions import load as load_definitions
from infra.eventstore.doorbell import Doorbell
from infra.eventstore.feed import StoreFeed
from infra.postgres import Pool
from infra.settings import Settings
from projections.catalogue import projections
from projections.projection import Projection
from projections.rebuild import FillingFailed, fill
from workers.parent import end_with

log = structlog.get_logger(__name__)

_GRACE = 5.0
"""Seconds that a process is given to end when there is nothing more to do."""


class Processes:
    """So many processes. Each takes the next share when it has done one. Not thread-safe."""

    def __init__(
        self, log_url: str, read_url: str, settings: Settings, workers: int, log_schema: str = "log"
    ) -> None:
        self.workers = workers
        about = {
            "parent": os.getpid(),
            "log": log_url,
            "read": read_url,
            "log_schema": log_schema,
            "definitions": settings.definitions_file and str(settings.definitions_file),
            "log_format": settings.log_format,
            "log_level": settings.log_level,
            "crashpoint": settings.crashpoint,
        }
        self._running = [_started(about) for _ in range(workers)]
        self._failed: list[str] = []

    def fill(
        self,
        projection: Projection,
        schema: str,
        parts: Sequence[Sequence[int]],
        partitions: int,
        through: int,
        told: Callable[[int], None],
    ) -> None:
        """Have the shares filled; `told` is called from several threads, one at a time. Raises
        FillingFailed; then all processes are ended."""
        waiting: SimpleQueue[dict[str, Any]] = SimpleQueue()
        for share in parts:
            waiting.put(
                {
                    "projection": projection.name,
                    "schema": schema,
                    "share": list(share),
                    "partitions": partitions,
                    "through": through,
                }
            )
        one_at_a_time = threading.Lock()

        def heard(events: int) -> None:
            with one_at_a_time:
                told(events)

        threads = [
            threading.Thread(target=self._serve, args=(process, waiting, heard), daemon=True)
            for process in self._running
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._failed:
            raise FillingFailed(self._failed[0])

    def _serve(
        self,
        process: subprocess.Popen[str],
        waiting: SimpleQueue[dict[str, Any]],
        told: Callable[[int], None],
    ) -> None:
        try:
            while not self._failed:
                task = waiting.get_nowait()
                for answer in _asked(process, task):
                    told(answer)
        except Empty:
            return
        except (FillingFailed, OSError, ValueError) as error:
            self._failed.append(f"{error}")
            self.kill()  # the others' shares are lost, too: they would only hold up what follows

    def close(self) -> None:
        """End them."""
        for process in self._running:
            if process.stdin is not None:
                with suppress(BrokenPipeError):  # what was meant for one that died
                    process.stdin.close()
        for process in self._running:
            try:
                process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()

    def kill(self) -> None:
        """End them at once, whatever they are at."""
        for process in self._running:
            process.kill()


@contextmanager
def processes(
    log_url: str, read_url: str, settings: Settings, workers: int
) -> Iterator[Processes | None]:
    """So many of them; none for one worker, who does it in this process."""
    if workers < 2:
        yield None
        return
    started = Processes(log_url, read_url, settings, workers)
    try:
        yield started
    except BaseException:
        started.kill()
        raise
    finally:
        started.close()


def _started(about: dict[str, Any]) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "workers.filling"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        # A signal from the terminal is for the process that waits for it.
        start_new_session=True,
    )
    _send(process.stdin, about)  # not as an argument: everybody may see those
    return process


def _send(stream: IO[str] | None, message: Any) -> None:
    if stream is None:
        raise ValueError("there is nobody to tell it to")
    stream.write(json.dumps(message) + "\n")
    stream.flush()


def _asked(process: subprocess.Popen[str], task: dict[str, Any]) -> Iterator[int]:
    """What is told while the task is done: events read since. Raises FillingFailed."""
    _send(process.stdin, task)
    for line in process.stdout or ():
        answer = json.loads(line)
        if answer == "done":
            return
        if isinstance(answer, str):
            raise FillingFailed(answer)
        yield int(answer)
    raise FillingFailed("a process that filled a share has died")


# ---- one of the processes ----


def main() -> None:
    """Serve until there is nothing more to do."""
    about = json.loads(sys.stdin.readline())
    end_with(about["parent"])
    logging.configure(about["log_format"], about["log_level"])
    if about["crashpoint"] is not None:
        crashpoints.arm(about["crashpoint"])
    definitions = about["definitions"]
    models = projections(load_definitions(definitions and Path(definitions)))
    with (
        Pool(
            about["log"],
            size=1,
            role="crm_projector",
            search_path=[about["log_schema"]],
            application_name="crm-feed",
            autocommit=True,
        ) as log_pool,
        Pool(about["read"], size=1, role="crm_projector", application_name="crm-projector") as pool,
    ):
        for line in sys.stdin:
            task = json.loads(line)
            projection = models[task["projection"]]
            try:
                fill(
                    projection,
                    StoreFeed(log_pool, Doorbell(), projection.topics),
                    pool,
                    schema=task["schema"],
                    share=task["share"],
                    partitions=task["partitions"],
                    through=task["through"],
                    told=lambda events: _send(sys.stdout, events),
                )
            except Exception as error:
                log.exception("a share was not filled", projection=projection.id)
                _send(sys.stdout, f"{type(error).__name__}: {error}")
            else:
                _send(sys.stdout, "done")


if __name__ == "__main__":
    main()
