"""Levels by rule: given what happened to a customer, then the moves that follow, and why."""

from __future__ import annotations

import json
from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any
from uuid import UUID, uuid5

from hypothesis import given as given_any
from hypothesis import strategies as st

from domain.customer import Customer
from domain.definitions import LevelDefinition
from domain.opportunity import Opportunity
from domain.policies.account import DAY, HINDSIGHT, Judge, instant
from domain.policies.levels import Levels
from domain.policies.policy import Cause, Happened
from domain.values import ChurnCause, Level, LevelEvidence, Money
from tests.given_when_then import ID, START, Fact, fact
from tests.unit.domain.streams import eur

DEFINITION = LevelDefinition(window_days=10, new_days=20, overdue_days=3, value_days=30)
POLICY = Levels(DEFINITION)
NEW, GROWING, STABLE, DECLINING, PROBLEM, NO_VALUE = Level

Told = tuple[float, Fact]
Move = tuple[float, Level]


def day(number: float) -> datetime:
    return START + timedelta(days=number)


def bought(on: float, amount: str, cost: str | None = None, currency: str = "EUR") -> Told:
    paid = None if cost is None else Money.of(cost, currency)
    value = Money.of(amount, currency)
    return on, fact(Customer.OrderPlaced, order_id=f"{on}", amount=value, cost=paid)


def signed(on: float, amount: str) -> Told:
    return on, fact(Opportunity.ContractSigned, amount=eur(amount), signed_on=date(2024, 1, 1))


def overdue(on: float, reference: str = "r") -> Told:
    return on, fact(Customer.PaymentOverdue, reference=reference, amount=eur("7"))


def settled(on: float, reference: str = "r") -> Told:
    return on, fact(Customer.PaymentSettled, reference=reference, amount=eur("7"))


def churned(on: float) -> Told:
    return on, fact(Customer.Churned, cause=ChurnCause.PRICE)


def won_back(on: float) -> Told:
    return on, fact(Customer.WonBack)


def judged(on: float, level: Level, rule: str | None = None) -> Told:
    evidence = None if rule is None else LevelEvidence(rule, {}, ID)
    return on, fact(Customer.LevelChanged, level=level, previous=None, evidence=evidence)


class after:  # noqa: N801
    """after(events).until(day, moves): the moves by then, each with what it led to taken in."""

    def __init__(self, *told: Told, policy: Levels = POLICY) -> None:
        self.policy = policy
        self.state = policy.load(None)
        self.figures: dict[str, str] = {}
        self.count = 0
        for each in told:
            self.take_in(each)

    def take_in(self, told: Told) -> None:
        on, what = told
        self.count += 1
        cause = Cause(uuid5(ID, f"{self.count}"), self.count, ID, ID)
        self.policy.fold(self.state, Happened(cause, ID, day(on), what.event(2)))
        plain = json.loads(json.dumps(self.policy.dump(self.state)))
        assert self.policy.load(plain) == self.state
        self.state = self.policy.load(plain)

    def moves(self, until: float) -> list[Move]:
        found: list[Move] = []
        while (timer := self.policy.plan(ID, self.state)) and timer.due_at <= day(until):
            arguments = self.policy.due(timer, self.state).arguments
            level, evidence = arguments["level"], arguments["evidence"]
            assert arguments["occurred_at"] == timer.due_at
            assert (evidence.rule, evidence.event_id) == (self.policy.id, timer.cause.event_id)
            on = (timer.due_at - START) / timedelta(days=1)
            found.append((on, level))
            self.figures = evidence.figures
            self.take_in(judged(on, level, self.policy.id))
        return found

    def until(self, on: float, *expected: Move) -> after:
        assert self.moves(on) == list(expected)
        return self


class TestTrend:
    def test_who_is_new_stays_so_until_there_are_two_windows_to_compare(self) -> None:
        after(bought(0, "100"), bought(9, "900")).until(19)

    def test_revenue_that_rises_is_growing(self) -> None:
        moved = after(bought(0, "0"), bought(8, "100"), bought(12, "120"), bought(18, "1"))
        moved.until(20, (20, GROWING))
        assert moved.figures == {
            "window_days": "10",
            "revenue": "121.00",
            "revenue_before": "100.00",
            "growth": "0.210000",
            "threshold": "0.2",
            "currency": "EUR",
        }

    def test_the_threshold_itself_is_reached(self) -> None:
        after(bought(8, "100"), bought(0, "0"), bought(12, "120")).until(20, (20, GROWING))
        after(bought(8, "100"), bought(0, "0"), bought(12, "119.99")).until(20, (20, STABLE))
        after(bought(8, "100"), bought(0, "0"), bought(12, "80")).until(20, (20, DECLINING))
        after(bought(8, "100"), bought(0, "0"), bought(12, "80.01")).until(20, (20, STABLE))

    def test_who_begins_to_buy_again_is_growing_and_who_does_not_buy_is_declining(self) -> None:
        moved = after(bought(0, "100"), bought(25, "1"))
        moved.until(100, (20, DECLINING), (25, GROWING), (35, DECLINING))
        assert moved.figures["revenue"] == "0.00"

    def test_the_day_is_that_on_which_a_purchase_leaves_the_window(self) -> None:
        steady = [bought(on, "10") for on in range(0, 40, 5)]
        moved = after(*steady).until(39, (20, STABLE))
        moved.until(100, (40, DECLINING))

    def test_several_of_one_day_count_from_the_last(self) -> None:
        moved = after(bought(0, "10"), bought(11.1, "5"), bought(11.2, "5"))
        moved.until(21.19, (20, GROWING))
        moved.until(21.2, (21.2, DECLINING))

    def test_contracts_count(self) -> None:
        after(bought(0, "0"), signed(8, "100"), signed(12, "120")).until(20, (20, GROWING))


class TestCurrencies:
    def test_they_are_never_added(self) -> None:
        moved = after(
            bought(0, "0"),
            bought(8, "100"),
            bought(12, "100"),
            bought(13, "9999", currency="USD"),
        ).until(20, (20, STABLE))
        assert moved.figures["other_currencies"] == "9999.00 USD"

    def test_of_as_many_purchases_that_of_the_last_counts(self) -> None:
        told = (bought(0, "1"), bought(15, "1", currency="JPY"))
        assert after(*told).until(20, (20, GROWING)).figures["currency"] == "JPY"


class TestProblem:
    def test_a_payment_overdue_for_so_long_is_one(self) -> None:
        moved = after(bought(0, "1"), overdue(1), overdue(2, "s")).until(3.9)
        moved.until(5, (4, PROBLEM))
        assert moved.figures == {
            "overdue_reference": "r",
            "overdue_amount": "7.00 EUR",
            "overdue_since": "2024-01-02T09:00:00+00:00",
            "overdue_payments": "1",
            "threshold_days": "3",
        }

    def test_until_it_is_settled(self) -> None:
        after(bought(0, "1"), overdue(1), settled(6)).until(10, (4, PROBLEM), (6, NEW))
        after(bought(0, "1"), overdue(1), settled(3)).until(10)

    def test_all_of_them(self) -> None:
        told = (bought(0, "1"), overdue(1), overdue(2, "s"), settled(6), settled(7, "s"))
        after(*told).until(10, (4, PROBLEM), (7, NEW))

    def test_it_comes_before_everything_else(self) -> None:
        moved = after(bought(0, "1", cost="2"), overdue(1)).until(1, (0, NO_VALUE))
        moved.until(5, (4, PROBLEM))


class TestNoValue:
    def test_who_costs_what_it_brings_in_has_none(self) -> None:
        moved = after(bought(0, "10", cost="10")).until(0, (0, NO_VALUE))
        assert moved.figures == {
            "currency": "EUR",
            "days": "30",
            "revenue": "10.00",
            "cost": "10.00",
            "margin": "0.00",
            "purchases": "1",
            "purchases_without_cost": "0",
        }
        after(bought(0, "10", cost="9.99")).until(0)

    def test_costs_that_are_not_known_could_only_make_it_worse(self) -> None:
        moved = after(bought(0, "10", cost="30"), bought(1, "15")).until(1, (0, NO_VALUE))
        assert moved.figures["purchases_without_cost"] == "0"
        after(bought(0, "10"), bought(1, "15")).until(1)
        after(bought(0, "10", cost="20"), bought(0, "15")).until(1)

    def test_what_is_long_ago_does_not_count(self) -> None:
        told = (bought(0, "10", cost="20"), bought(25, "5"), bought(28, "5"))
        after(*told).until(31, (0, NO_VALUE), (30, GROWING))


class TestRelationship:
    def test_there_is_no_level_outside(self) -> None:
        after(signed(0, "1"), overdue(1)).until(100)
        after(bought(0, "1"), churned(2), overdue(3)).until(100)

    def test_who_comes_back_is_new(self) -> None:
        told = (bought(0, "1"), bought(15, "1"), churned(30), won_back(40), bought(55, "1"))
        after(*told).until(61, (60, GROWING))

    def test_a_loss_recorded_late_ends_what_was_before_it(self) -> None:
        told = (bought(0, "1"), bought(30, "1"), churned(25))
        after(*told).until(60, (50, DECLINING))

    def test_a_purchase_recorded_late_began_it_earlier(self) -> None:
        after(bought(30, "1"), bought(5, "1")).until(30, (30, GROWING))


class TestJudgement:
    """What somebody else has set."""

    def test_stays_until_the_verdict_changes(self) -> None:
        told = (bought(0, "100"), bought(15, "100"), judged(22, GROWING))
        after(*told).until(100, (25, DECLINING))

    def test_that_the_rule_comes_to_as_well_is_left(self) -> None:
        told = (bought(0, "100"), bought(15, "100"), judged(22, DECLINING))
        after(*told).until(100)

    def test_of_an_earlier_definition_is_judged_anew(self) -> None:
        later = Levels(LevelDefinition(2, 10, new_days=20, overdue_days=3, value_days=30))
        told = (bought(0, "1"), judged(20, GROWING, POLICY.id), bought(23, "1"))
        assert later.id > POLICY.id
        after(*told, policy=later).until(24)
        fallen = judged(20, DECLINING, POLICY.id)
        run = after(bought(0, "1"), bought(15, "1"), fallen, overdue(22), policy=later)
        run.until(22, (22, GROWING))

    def test_of_a_later_definition_or_another_of_the_same_version_is_left(self) -> None:
        for other in ("levels/1:2", "levels/2:1", "levels/1:1-00000000", "other"):
            told = (bought(0, "1"), bought(15, "1"), judged(20, DECLINING, other))
            after(*told).until(24)

    def test_so_two_that_run_at_once_come_to_rest(self) -> None:
        other = Levels(LevelDefinition(1, 5, new_days=20, overdue_days=3, value_days=30))
        told = [bought(0, "100"), bought(11, "100"), bought(14, "300"), bought(16, "10")]
        for _ in range(50):
            due = [
                (timer.due_at, policy.due(timer, state).arguments["level"], policy.id)
                for policy in (POLICY, other)
                if (timer := policy.plan(ID, state := after(*told, policy=policy).state))
            ]
            if not due:
                break
            at, level, rule = min(due)
            told.append(judged((at - START) / timedelta(days=1), level, rule))
        assert not due

    def test_another_definition_is_another_policy(self) -> None:
        assert Levels(LevelDefinition()).id == "levels/1:1"
        changed = Levels(LevelDefinition(growth=Decimal("0.3"))).id
        assert changed.startswith("levels/1:1-")
        assert changed == Levels(LevelDefinition(growth=Decimal("0.30"))).id


def test_it_stays_small_however_long_the_history() -> None:
    held = after()
    held.state.account.known = instant(day(0))
    for on in range(0, 5000, 7):
        held.state.account.buy(instant(day(on)), eur("1"), None)
        held.state.account.known = instant(day(on))
        held.state.account.forget(30 * DAY)
    assert len(held.state.account.purchases) <= (HINDSIGHT // DAY + 30) / 7 + 1
    assert held.state.account.since == instant(START)


def test_a_history_of_many_years_is_judged_from_three_years_before_its_end() -> None:
    told = [bought(on, "10") for on in range(0, 3000, 5)]
    ((on, level),) = after(*told).moves(2995)
    assert level is STABLE
    assert on == 2995 - 1095


ANYTHING = st.one_of(
    st.builds(
        lambda on, amount, cost, currency: bought(on, str(amount), cost, currency),
        st.integers(0, 60),
        st.integers(0, 200),
        st.none() | st.integers(0, 300).map(str),
        st.sampled_from(["EUR", "EUR", "USD"]),
    ),
    st.builds(signed, st.integers(0, 60), st.integers(0, 200).map(str)),
    st.builds(overdue, st.integers(0, 60), st.sampled_from("abc")),
    st.builds(settled, st.integers(0, 60), st.sampled_from("abc")),
)


def fresh(told: list[Told]) -> list[Told]:
    """Each payment once, as the domain lets them happen."""
    found: dict[Any, Told] = {}
    for number, (on, what) in enumerate(told):
        reference = what.fields.get("reference", number)
        found.setdefault((what.event_class, reference), (on, what))
    return list(found.values())


@given_any(
    st.lists(ANYTHING, max_size=12)
    .map(fresh)
    .flatmap(lambda told: st.tuples(st.just(told), st.permutations(told)))
)
def test_in_whatever_order_it_is_recorded_it_comes_to_the_same(
    both: tuple[list[Told], list[Told]],
) -> None:
    first = (0.0, fact(Customer.RelationshipStarted, opportunity_id=UUID(int=1)))
    accounts = []
    for told in both:
        state = after(first, *told).state.account
        accounts.append((state.purchases, state.overdue, state.settled, state.since, state.known))
    assert accounts[0] == accounts[1]


@given_any(st.lists(ANYTHING, max_size=12).map(fresh))
def test_every_move_is_to_another_level_and_none_is_left_out(told: list[Told]) -> None:
    """By another way: the verdict of every instant at which something is, in turn."""
    told = sorted(told, key=lambda each: each[0])
    run = after(bought(0, "50"), *told)
    judge = Judge(run.state.account, DEFINITION)
    expected: list[Move] = []
    level = NEW
    for step in range(120 * 4):
        verdict = judge.at(instant(START) + step * DAY // 4).level
        if verdict is not level:
            expected.append((step / 4, verdict))
            level = verdict
    assert run.moves(119.75) == expected
    levels = [NEW, *(each for _, each in expected)]
    assert all(one is not other for one, other in pairwise(levels))
