"""The demo's story: the same for the same seed, in order, and with something of everything."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from functools import cache
from statistics import median
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from domain.application import CRM
from domain.exchange_rate import exchange_rate_id
from domain.pipeline import DEFAULT_STAGES
from domain.values import Level
from workers.demo.currencies import FOREIGN, foreign_currencies
from workers.demo.names import CAMPAIGNS
from workers.demo.rehearsal import rehearsed
from workers.demo.run import write_script
from workers.demo.script import DAYS, Line, Script

UTC = ZoneInfo("UTC")
WEEK = [date(2026, 3, day) for day in range(2, 9)]
"""Monday to Sunday: the company may begin on any day of the week."""


@cache
def story(seed: int = 1, until: date = WEEK[0], zone: ZoneInfo = UTC) -> list[Line]:
    return write_script(seed, until, zone, "CNY")


def midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, time.min, tzinfo=zone)


def test_the_same_seed_tells_the_same() -> None:
    assert story.__wrapped__() == story()


def test_another_seed_tells_another() -> None:
    one, other = ({line.target for line in story(seed)} for seed in (1, 2))
    assert one & other == {exchange_rate_id(code, "CNY") for code in FOREIGN}


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
        "erase_contact",
        "erase_customer",
    }
    assert methods == told
    by_rule = {line.arguments["level"] for line in lines if line.method == "change_level_by_rule"}
    assert by_rule == set(Level)
    by_judgement = {line.arguments["level"] for line in lines if line.method == "change_level"}
    assert by_judgement >= {Level.GROWING, Level.STABLE, Level.DECLINING, Level.NO_VALUE}
    assert sum(line.method == "plan_campaign" for line in lines) == len(CAMPAIGNS)


def test_the_levels_policy_finds_nothing_to_correct() -> None:
    """Whoever runs the policies on the company later gets no other levels and alerts."""
    lines = story()
    given = [line for line in lines if not line.actor.startswith("policy:")]
    assert len(given) < len(lines)
    assert rehearsed(given, midnight(WEEK[0], UTC), UTC) == lines


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_at_its_end_customers_have_every_level(seed: int) -> None:
    levels: dict[UUID, Level] = {}
    for line in story(seed):
        if line.method == "place_order":
            levels.setdefault(line.target, Level.NEW)
        elif line.method in ("change_level", "change_level_by_rule"):
            levels[line.target] = line.arguments["level"]
        elif line.method == "churn":
            del levels[line.target]
    assert set(levels.values()) == set(Level)


def test_evidence_names_what_it_rests_on() -> None:
    for line in story():
        if line.method == "change_level_by_rule":
            assert line.actor == "policy:levels/1:1"
            assert line.arguments["evidence"].figures
            assert line.causation_id == line.arguments["evidence"].event_id
        elif line.method == "alert_demand":
            assert line.actor == "policy:demand/1"
            assert line.causation_id == line.arguments["event_id"]
        else:
            assert line.causation_id is None


def test_most_purchases_are_worth_it_and_some_are_not() -> None:
    purchases = [line for line in story() if line.method in ("place_order", "sign_contract")]
    at_a_loss = [
        line for line in purchases if line.arguments["cost"].value > line.arguments["amount"].value
    ]
    assert len(purchases) / 50 < len(at_a_loss) < len(purchases) / 5
    assert {line.method for line in at_a_loss} == {"place_order", "sign_contract"}


def test_deals_do_not_go_as_the_pipeline_has_it() -> None:
    """Else a forecast that learns from them could not show what it has learned."""
    entered: dict[UUID, Line] = {}
    left: list[tuple[float, bool]] = []
    bids: list[float] = []
    for line in story():
        if line.method == "open_opportunity":
            entered[line.target] = line
        elif line.method in ("change_stage", "lose") and line.target in entered:
            stage = entered[line.target].arguments["stage"]
            days = (line.at - entered[line.target].at) / timedelta(days=1)
            if stage == "prospect":
                left.append((days, line.method == "change_stage"))
            elif stage == "bid":
                bids.append(days)
            if line.method == "change_stage":
                entered[line.target] = line
    prospect, bid, *_ = DEFAULT_STAGES
    assert len(left) > 200
    assert sum(passed for _, passed in left) / len(left) < float(prospect.chance_to_next)
    assert median(bids) > 30.4 * float(bid.duration_months)


def test_customers_abroad_pay_in_what_has_a_rate() -> None:
    lines = story()
    paid = {line.arguments["amount"].currency for line in lines if line.method == "place_order"}
    assert paid == {"CNY", *FOREIGN}
    for code in FOREIGN:
        rates = [line.arguments for line in lines if line.target == exchange_rate_id(code, "CNY")]
        assert len(rates) in (24, 25, 26)
        assert rates[0]["on"] == WEEK[0] - timedelta(days=DAYS)


@pytest.mark.parametrize("currency", ["EUR", "JPY", "KWD"])
def test_in_any_currency(currency: str) -> None:
    lines = write_script(1, WEEK[0], UTC, currency)
    rates = {line.arguments["from_currency"] for line in lines if line.method == "record_rate"}
    assert rates == set(foreign_currencies(currency))
    assert rates == {"EUR": {"USD"}, "JPY": {"EUR", "USD"}, "KWD": set()}[currency]
