"""R69 and R76: when a customer buys again, and the alerts of it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from domain.customer import Customer, Demand
from domain.errors import InvalidCycle, InvalidQuantity
from domain.values import AlertKind, ChurnCause, RepeatType
from tests.given_when_then import NOW, START, Fact, fact, given
from tests.unit.domain.streams import Stream, eur

EVENT = UUID("77777777-7777-4777-8777-777777777777")
OTHER = UUID("88888888-8888-4888-8888-888888888888")
BOUGHT = START + timedelta(hours=1)
"""When the buyer placed the order."""
DUE = BOUGHT + timedelta(days=90)

Command = Callable[[Customer], None]


def described(at: datetime = START, **changes: Any) -> Fact:
    fields = {"repeat_type": None, "cycle_days": None, "stock_alert_below": None, **changes}
    return fact(Customer.DemandDescribed, at=at, **fields)


def describing(at: datetime = NOW, **changes: Any) -> Command:
    fields = {"repeat_type": None, "cycle_days": None, "stock_alert_below": None, **changes}
    return lambda customer: customer.describe_demand(at=at, **fields)


def reported(level: str, at: datetime = NOW) -> Fact:
    return fact(Customer.StockReported, at=at, level=Decimal(level))


def reporting(level: str, at: datetime = NOW) -> Command:
    return lambda customer: customer.report_stock(level=Decimal(level), at=at)


def alerted(kind: AlertKind = AlertKind.CYCLE, **changes: Any) -> Fact:
    fields = {"rule": "demand/1", "due_at": DUE, "event_id": EVENT, **changes}
    return fact(Customer.DemandAlerted, at=NOW, kind=kind, **fields)


def alerting(kind: AlertKind = AlertKind.CYCLE, **changes: Any) -> Command:
    fields = {"rule": "demand/1", "due_at": DUE, "event_id": EVENT, "at": NOW, **changes}
    return lambda customer: customer.alert_demand(kind=kind, **fields)


@pytest.fixture
def periodic(buyer: Stream) -> Stream:
    """Bought at BOUGHT, and again after 90 days."""
    return (*buyer, described(repeat_type=RepeatType.PERIODIC, cycle_days=90))


@pytest.fixture
def running_low(buyer: Stream) -> Stream:
    return (*buyer, described(stock_alert_below=Decimal(10)), reported("9.5", DUE))


class TestDescription:
    def test_is_the_whole_of_it(self, prospect: Stream) -> None:
        periodic: dict[str, Any] = {"repeat_type": RepeatType.PERIODIC, "cycle_days": 90}
        customer = given(*prospect).when(describing(**periodic)).then(described(NOW, **periodic))
        assert customer.demand == Demand(RepeatType.PERIODIC, 90, None)
        known = (*prospect, described(**periodic))
        given(*known).when(describing(**periodic)).then()
        stock: dict[str, Any] = {"stock_alert_below": Decimal("0.5")}
        customer = given(*known).when(describing(**stock)).then(described(NOW, **stock))
        assert customer.demand == Demand(None, None, Decimal("0.5"))
        given(*known).when(describing()).then(described(NOW))
        given(*prospect).when(describing()).then()

    def test_one_of_the_past_does_not_change_the_present_one(self, prospect: Stream) -> None:
        known = described(NOW, cycle_days=90)
        late = given(*prospect, known).when(describing(START, cycle_days=30))
        assert late.then(described(START, cycle_days=30)).demand.cycle_days == 90

    @pytest.mark.parametrize("days", [-1, 0, 3_651])
    def test_refuses_a_cycle_that_nobody_has(self, prospect: Stream, days: int) -> None:
        given(*prospect).when(describing(cycle_days=days)).refused(InvalidCycle)

    @pytest.mark.parametrize("days", [1, 3_650])
    def test_takes_the_shortest_and_the_longest_cycle(self, prospect: Stream, days: int) -> None:
        given(*prospect).when(describing(cycle_days=days)).then(described(NOW, cycle_days=days))

    def test_one_off_business_has_no_cycle(self, prospect: Stream) -> None:
        project: dict[str, Any] = {"repeat_type": RepeatType.PROJECT}
        given(*prospect).when(describing(**project)).then(described(NOW, **project))
        given(*prospect).when(describing(**project, cycle_days=90)).refused(InvalidCycle)

    @pytest.mark.parametrize("below", ["0", "-0", "-1", "NaN", "Infinity", "1E15", "1E-13"])
    def test_refuses_a_threshold_that_no_stock_is_below(self, prospect: Stream, below: str) -> None:
        command = describing(stock_alert_below=Decimal(below))
        given(*prospect).when(command).refused(InvalidQuantity)


class TestStock:
    def test_each_report_is_a_fact_of_its_own(self, prospect: Stream) -> None:
        assert given(*prospect).when(reporting("5")).then(reported("5")).stock == 5
        known = (*prospect, reported("5"))
        given(*known).when(reporting("5.0")).then()
        later = NOW + timedelta(days=1)
        given(*known).when(reporting("5", later)).then(reported("5", later))
        assert given(*known).when(reporting("4")).then(reported("4")).stock == 4

    def test_one_of_the_past_does_not_change_the_present_one(self, prospect: Stream) -> None:
        late = given(*prospect, reported("5")).when(reporting("6", START))
        assert late.then(reported("6", START)).stock == 5

    def test_none_left_is_nought(self, prospect: Stream) -> None:
        customer = given(*prospect).when(reporting("-0")).then(reported("0"))
        assert not customer.stock.is_signed()

    @pytest.mark.parametrize("level", ["-1", "NaN", "Infinity", "1E15", "1E-13"])
    def test_refuses_what_no_stock_is(self, prospect: Stream, level: str) -> None:
        given(*prospect).when(reporting(level)).refused(InvalidQuantity)


class TestCycle:
    def test_is_alerted_once(self, periodic: Stream) -> None:
        given(*periodic).when(alerting()).then(alerted())
        given(*periodic, alerted()).when(alerting()).then()
        given(*periodic, alerted()).when(alerting(event_id=OTHER)).then(alerted(event_id=OTHER))

    def test_is_not_when_a_purchase_came_in_between(self, periodic: Stream) -> None:
        between = START + timedelta(days=30)
        ordered = fact(Customer.OrderPlaced, at=between, order_id="o-2", amount=eur("1"))
        given(*periodic, ordered).when(alerting()).then()
        due = between + timedelta(days=90)
        given(*periodic, ordered).when(alerting(due_at=due)).then(alerted(due_at=due))

    def test_is_when_an_older_purchase_was_recorded_late(self, periodic: Stream) -> None:
        ordered = fact(Customer.OrderPlaced, at=START, order_id="o-2", amount=eur("1"))
        given(*periodic, ordered).when(alerting()).then(alerted())

    def test_is_not_when_the_cycle_got_longer(self, periodic: Stream) -> None:
        given(*periodic, described(cycle_days=91)).when(alerting()).then()
        given(*periodic, described(cycle_days=89)).when(alerting()).then(alerted())

    def test_needs_a_cycle(self, buyer: Stream, periodic: Stream) -> None:
        given(*buyer).when(alerting()).then()
        one_off = described(repeat_type=RepeatType.PROJECT)
        given(*periodic, one_off).when(alerting()).then()

    def test_may_count_from_a_contract_that_this_stream_does_not_know(
        self, prospect: Stream
    ) -> None:
        given(*prospect, described(cycle_days=90)).when(alerting()).then(alerted())

    def test_is_no_matter_of_a_lost_customer(self, periodic: Stream) -> None:
        lost = fact(Customer.Churned, at=NOW, cause=ChurnCause.PRICE)
        given(*periodic, lost).when(alerting()).then()


class TestLowStock:
    def test_is_alerted_once(self, running_low: Stream) -> None:
        alert = alerted(AlertKind.STOCK)
        given(*running_low).when(alerting(AlertKind.STOCK)).then(alert)
        given(*running_low, alert).when(alerting(AlertKind.STOCK)).then()

    def test_is_another_alert_than_that_of_the_cycle(self, running_low: Stream) -> None:
        given(*running_low, alerted()).when(alerting(AlertKind.STOCK)).then(
            alerted(AlertKind.STOCK)
        )

    def test_is_not_at_the_threshold(self, running_low: Stream) -> None:
        given(*running_low, reported("10", DUE)).when(alerting(AlertKind.STOCK)).then()

    @pytest.mark.parametrize("level", ["1", "20"])
    def test_is_not_when_there_is_a_later_report(self, running_low: Stream, level: str) -> None:
        later = reported(level, DUE + timedelta(days=1))
        given(*running_low, later).when(alerting(AlertKind.STOCK)).then()

    def test_is_not_when_there_is_a_later_order(self, running_low: Stream) -> None:
        later = DUE + timedelta(days=1)
        ordered = fact(Customer.OrderPlaced, at=later, order_id="o-2", amount=eur("1"))
        given(*running_low, ordered).when(alerting(AlertKind.STOCK)).then()

    def test_needs_a_threshold_and_a_report(self, running_low: Stream, buyer: Stream) -> None:
        given(*running_low, described()).when(alerting(AlertKind.STOCK)).then()
        threshold = described(stock_alert_below=Decimal(10))
        given(*buyer, threshold).when(alerting(AlertKind.STOCK)).then()
