"""The lines of the published table, and how a later run is held against them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

HEAD = "| what | ours | against | theirs | ratio | target | |"


@dataclass(frozen=True, slots=True)
class Line:
    """A figure, or its ratio to another one of the same run if `theirs` is there.

    The target is a least one, or with `at_most` a largest one; None: told, not judged.
    """

    what: str
    ours: float
    unit: str = "/s"
    against: str = ""
    theirs: float | None = None
    target: float | None = None
    at_most: bool = False
    spread: str = ""

    @property
    def ratio(self) -> float | None:
        return None if self.theirs is None else self.ours / self.theirs

    @property
    def judged(self) -> float:
        ratio = self.ratio
        return self.ours if ratio is None else ratio

    @property
    def met(self) -> bool | None:
        if self.target is None:
            return None
        return self.judged < self.target if self.at_most else self.judged >= self.target

    def row(self) -> str:
        """As a row of Markdown."""
        theirs, ratio, target = "", "", ""
        if self.theirs is not None:
            theirs, ratio = _figure(self.theirs, self.unit), f"{self.ratio:.2f}"
        if self.target is not None:
            of = "" if ratio else self.unit
            target = f"{'<' if self.at_most else '≥'} {_figure(self.target, of)}"
        ours = _figure(self.ours, self.unit) + (f" ({self.spread})" if self.spread else "")
        met = {None: "", True: "met", False: "NOT MET"}[self.met]
        return f"| {self.what} | {ours} | {self.against} | {theirs} | {ratio} | {target} | {met} |"


def _figure(value: float, unit: str) -> str:
    text = f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.3g}"
    return text if unit in ("", "/s") else f"{text} {unit}"


def rows(lines: Iterable[Line]) -> list[str]:
    return [HEAD, "|" + " --- |" * 7, *(line.row() for line in lines)]


def save(lines: Sequence[Line], file: Path) -> None:
    file.write_text(json.dumps([asdict(line) for line in lines], indent=1) + "\n")


def load(file: Path) -> dict[tuple[str, str], Line]:
    """By what they are about and against what."""
    lines = (Line(**one) for one in json.loads(file.read_text()))
    return {(line.what, line.against): line for line in lines}


def fallen(
    now: Iterable[Line], known: dict[tuple[str, str], Line], part: float
) -> list[tuple[Line, Line]]:
    """The lines that are ratios and worse than the known ones by more than this part of them."""
    found = []
    for line in now:
        before = known.get((line.what, line.against))
        if before is None or line.ratio is None or before.ratio is None:
            continue
        change = line.ratio / before.ratio
        if (1 / change if line.at_most else change) < 1 - part:
            found.append((line, before))
    return found
