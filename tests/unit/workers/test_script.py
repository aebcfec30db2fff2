"""The demo's story: the same for the same seed, in order, and with something of everything."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest

from domain.application import CRM
from domain.values import Level
from workers.demo.names import CAMPAIGNS
from workers.demo.run import write_script
from workers.demo.script import DAYS, Line, Script

UTC = ZoneInfo("UTC")
WEEK = [date(2026, 3, day) for day in range(2, 9)]
"""Monday to Sunday: the company may begin on any day of the week."""


def story(seed: int = 1, until: date = WEEK[0], zone: ZoneInfo = UTC) -> list[Line]:
    return write_script(seed, until, zone, "CNY")


def midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, time.min, tzinfo=zone)


def test_the_same_seed_tells_the_same() -> None:
    assert story() == story()


def test_another_seed_tells_another() -> None:
    assert not {line.target for line in story(1)} & {line.target for line in story(2)}


@pytest.mark.parametrize("until", WEEK)
def test_it_begins_at_midnight_and_ends_before_the_day(until: date) -> None:
    zone = ZoneInfo("Asia/Shanghai")
    lines = story(until=until, zone=zone)
    times = [line.at for line in lines]
    assert times == sorted(times)
    assert times[0] == midnight(until - timedelta(days=DAYS), zone)
    assert times[-1] < midnight(until, zone)
    assert sum(1 for at in times if at == times[0]) == 1


@pytest.mark.parametrize("until", WEEK)
def test_later_stays_later(until: date) -> None:
    script = Script(1, until, UTC, "CNY")
    times = [script.at(n / 7) for n in range(200)]
    assert times == sorted(times)
    assert len(set(times)) == len(times)
    assert all(at.weekday() < 5 for at in times[1:])


def test_there_is_something_of_everything() -> None:
    lines = story()
    methods = {line.method for line in lines}
    told = {name for name in vars(CRM) if not name.startswith("_")} - {
        "name",
        "save",
        "define_pipeline",
        "define_default_pipeline",
        "revise_pipeline",
        "churn_silent",
        "start_relationship",
    }
    assert methods == told
    levels = {line.arguments["level"] for line in lines if line.method == "change_level"}
    assert levels == set(Level) - {Level.NEW}  # which a first purchase brings
    assert sum(line.method == "plan_campaign" for line in lines) == len(CAMPAIGNS)


@pytest.mark.parametrize("currency", ["JPY", "KWD"])
def test_in_any_currency(currency: str) -> None:
    assert write_script(1, WEEK[0], UTC, currency)
