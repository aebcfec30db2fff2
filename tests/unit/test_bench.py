"""What the benchmark makes of its figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.table import Line, fallen, load, rows, save


@pytest.mark.parametrize(
    ("line", "met"),
    [
        (Line("a", 120, target=100), True),
        (Line("a", 99, target=100), False),
        (Line("a", 99, "ms", target=100, at_most=True), True),
        (Line("a", 100, "ms", target=100, at_most=True), False),
        (Line("a", 90, against="b", theirs=100, target=0.9), True),
        (Line("a", 89, against="b", theirs=100, target=0.9), False),
        (Line("a", 89), None),
    ],
)
def test_met(line: Line, met: bool | None) -> None:
    assert line.met is met


def test_a_row_has_what_its_judgement_rests_on() -> None:
    ratio = Line("append", 18_648.4, against="pgbench", theirs=20_369, target=1.0, spread="1-2")
    assert rows([ratio])[2] == (
        "| append | 18,648 (1-2) | pgbench | 20,369 | 0.92 | ≥ 1 | NOT MET |"
    )
    assert Line("p99", 8.71, "ms", target=60, at_most=True).row() == (
        "| p99 | 8.71 ms |  |  |  | < 60 ms | met |"
    )


def test_what_fell(tmp_path: Path) -> None:
    def line(what: str, ours: float) -> Line:
        return Line(what, ours, against="b", theirs=100)

    save([line("kept", 100), line("fell", 100), line("rose", 100), Line("alone", 100)],
         tmp_path / "known.json")  # fmt: skip
    now = [line("kept", 81), line("fell", 79), line("rose", 500), Line("alone", 1), line("new", 1)]
    worse = fallen(now, load(tmp_path / "known.json"), 0.2)
    assert [(one.what, before.ours) for one, before in worse] == [("fell", 100)]
