"""How far a command is: a bar at a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

TELL_EVERY: Final = 5.0
"""Seconds between two plain lines."""


def terminal() -> Console:
    """Where commands say how far they are and what came of it, beside their output."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


class Told:
    """Hears how many are done of `total` (None: not known yet)."""

    def __init__(self, console: Console, title: str, total: int | None) -> None:
        self._console = console
        self._title = title
        self._total = total
        self._began = self._last = time.monotonic()

    def __call__(self, done: int, total: int | None = None) -> None:
        """`total`, once it is known."""
        self._total = total or self._total
        now = time.monotonic()
        if now - self._last >= TELL_EVERY:
            self._last = now
            of = "" if self._total is None else f" of {self._total:,}"
            rate = done / (now - self._began)
            self._console.print(f"{self._title}: {done:,}{of}, {rate:,.0f} a second")


class _Bar(Told):
    def __init__(self, bar: Progress, title: str, total: int | None) -> None:
        super().__init__(bar.console, title, total)
        self._bar = bar
        self._task = bar.add_task(title, total=total)

    def __call__(self, done: int, total: int | None = None) -> None:
        self._total = total or self._total
        self._bar.update(self._task, completed=done, total=self._total)


@contextmanager
def progress(console: Console, title: str, total: int | None) -> Iterator[Told]:
    """Shows progress while it is entered."""
    if not console.is_terminal:
        yield Told(console, title, total)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        yield _Bar(bar, title, total)
