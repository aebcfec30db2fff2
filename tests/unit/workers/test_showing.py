"""Answers as tables for the terminal."""

from __future__ import annotations

import io
from decimal import Decimal

from rich.console import Console, RenderableType

from tests.unit.api.test_pictures import ATTRIBUTION, FORECAST, LIFECYCLE, money
from workers.showing import attribution, bar, forecast, lifecycle, show


def shown(found: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=140, highlight=False)
    show(found, console)
    text = console.file
    assert isinstance(text, io.StringIO)
    return text.getvalue()


def test_a_bar_is_as_long_as_its_share() -> None:
    assert bar(Decimal(1), Decimal(2), 4) == "██"
    assert bar(Decimal(9), Decimal(16), 4) == "██▎"
    assert bar(Decimal(5), Decimal(2), 4) == "████"
    assert bar(Decimal(0), Decimal(2), 4) == bar(Decimal(1), Decimal(0), 4) == ""


def test_the_forecast_shows_months_intervals_and_the_rest() -> None:
    answer = {
        **FORECAST,
        "total": money("1540000.50"),
        "sd": money(100),
        "beyond": money(7),
        "other_currencies": [
            {
                "deals": 2,
                "amount": {"value": "10", "currency": "EUR"},
                "weighted": {"value": "4", "currency": "EUR"},
            }
        ],
    }
    lines = shown(forecast(answer)).splitlines()
    assert "80 to 260" in lines[1]
    assert lines[4] == "total 1,540,000.50 CNY, sd 100; later 7"
    assert lines[5] == "beside it 4 EUR of 2 deals"
    assert lines[6] == "as of 2026-03-01T00:00:00Z, known at position 12, definition forecast 1"


def test_the_distribution_shows_shares() -> None:
    text = shown(lifecycle(LIFECYCLE))
    assert "66.7%" in text
    assert "3 customers" in text


def test_attribution_shows_what_is_unattributed() -> None:
    text = shown(attribution({**ATTRIBUTION, "other_currencies": [], "parked": 2}))
    assert "unattributed" in text
    assert "won revenue 100 CNY" in text
    assert "2 parked keys are not in it" in text


def test_names_are_no_markup() -> None:
    named = {**ATTRIBUTION["campaigns"][0], "name": "[red]autumn[/red]"}
    assert "[red]autumn[/red]" in shown(attribution({**ATTRIBUTION, "campaigns": [named]}))


LARGE = "123456789012.25"


def narrow(found: RenderableType, encoding: str = "utf-8") -> str:
    out = io.BytesIO()
    file = io.TextIOWrapper(out, encoding=encoding)
    show(found, Console(file=file, width=40, highlight=False))
    file.flush()
    return out.getvalue().decode(encoding)


def test_no_figure_is_cut_off_where_the_terminal_is_narrow() -> None:
    figures = {name: money(LARGE) for name in ("expected", "sd", "median")}
    intervals = [{"level": "0.8", "low": money(LARGE), "high": money(LARGE)}]
    months = [{**FORECAST["months"][0], **figures, "intervals": intervals}]
    answer = {**FORECAST, "months": months, **dict.fromkeys(("total", "sd", "beyond"), money(1))}
    row = narrow(forecast(answer)).splitlines()[1]
    assert row.count("123,456,789,012.25") == 5


def test_what_an_encoding_lacks_is_shown_by_the_nearest_it_has() -> None:
    named = {**ATTRIBUTION["campaigns"][0], "name": "展会 a"}
    text = narrow(attribution({**ATTRIBUTION, "campaigns": [named]}), "ascii")
    assert "?? a" in text
    assert "#####" in text
    assert "-" in text


def test_names_command_no_terminal() -> None:
    named = {**ATTRIBUTION["campaigns"][0], "name": "a\x1b]0;b\x07\x9b2J\u202ec\nd"}
    text = shown(attribution({**ATTRIBUTION, "campaigns": [named]}))
    assert "a\ufffd]0;b\ufffd\ufffd2J\ufffdc d" in text


def test_a_long_name_is_there_in_full() -> None:
    named = {**ATTRIBUTION["campaigns"][0], "name": "x" * 100 + "y" * 100}
    text = shown(attribution({**ATTRIBUTION, "campaigns": [named]}))
    assert (text.count("x"), text.count("y")) == (100, 100)
