from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta
from operator import methodcaller
from typing import Any

import pytest

from domain.campaign import Campaign
from domain.errors import (
    CampaignNotApproved,
    CampaignStepRefused,
    CostDiffers,
    CostsNotAllowed,
    CurrencyDiffers,
    InvalidChannel,
    InvalidCount,
    InvalidDate,
    InvalidPeriod,
    InvalidText,
)
from domain.values import CampaignPlan, CampaignStatus, Money
from tests.given_when_then import ID, NOW, START, fact, given
from tests.unit.domain.streams import Stream, eur

Command = Callable[[Campaign], None]

submit: Command = methodcaller("submit", at=NOW)
approve: Command = methodcaller("approve", by="boss", at=NOW)
reject: Command = methodcaller("reject", at=NOW)
start: Command = methodcaller("start", at=NOW)
complete: Command = methodcaller("complete", at=NOW)
cancel: Command = methodcaller("cancel", at=NOW)
STEPS = {
    "submit": (submit, Campaign.Submitted),
    "approve": (approve, Campaign.Approved),
    "reject": (reject, Campaign.Rejected),
    "start": (start, Campaign.Started),
    "complete": (complete, Campaign.Completed),
    "cancel": (cancel, Campaign.Cancelled),
}
PATHS: dict[CampaignStatus, tuple[str, ...]] = {
    CampaignStatus.PLANNED: (),
    CampaignStatus.SUBMITTED: ("submit",),
    CampaignStatus.APPROVED: ("submit", "approve"),
    CampaignStatus.REJECTED: ("submit", "reject"),
    CampaignStatus.RUNNING: ("submit", "approve", "start"),
    CampaignStatus.COMPLETED: ("submit", "approve", "start", "complete"),
    CampaignStatus.CANCELLED: ("submit", "approve", "start", "cancel"),
}
ALLOWED = {
    ("planned", "submit"),
    ("submitted", "approve"),
    ("submitted", "reject"),
    ("rejected", "submit"),
    ("approved", "start"),
    ("running", "complete"),
    *((status, "cancel") for status in ("planned", "submitted", "approved", "rejected", "running")),
}
ALREADY = {
    ("submitted", "submit"),
    ("approved", "approve"),
    ("rejected", "reject"),
    ("running", "start"),
    ("completed", "complete"),
    ("cancelled", "cancel"),
}


def planning(**changes: Any) -> Callable[[None], Campaign]:
    details: dict[str, Any] = {
        "name": "spring",
        "channel": "web",
        "region": None,
        "starts_on": date(2024, 3, 1),
        "ends_on": date(2024, 3, 31),
        "budget": eur("500"),
        "external_id": None,
        "product": " ",
        "plan": None,
        "at": START,
    }
    return lambda _: Campaign.plan(ID, **{**details, **changes})


def costing(value: str = "20", reference: str = "r-1", currency: str = "EUR") -> Command:
    return lambda campaign: campaign.book_cost(
        amount=Money.of(value, currency), reference=reference, at=NOW
    )


def attending(attendees: int, at: datetime = NOW) -> Command:
    return lambda campaign: campaign.record_attendance(attendees=attendees, at=at)


def reached(planned: Stream, status: CampaignStatus) -> Stream:
    fields: dict[str, dict[str, Any]] = {"approve": {"approved_by": "boss"}}
    steps = (fact(STEPS[step][1], **fields.get(step, {})) for step in PATHS[status])
    return (*planned, *steps)


def test_is_planned(planned_campaign: Stream) -> None:
    campaign = given().when(planning()).then(*planned_campaign)
    assert campaign.status is CampaignStatus.PLANNED
    given().when(planning(ends_on=date(2024, 3, 1))).then(fact(Campaign.Created))


def test_refuses_bad_plans() -> None:
    given().when(planning(ends_on=date(2024, 2, 29))).refused(InvalidPeriod)
    given().when(planning(ends_on=date(3000, 1, 1))).refused(InvalidDate)
    given().when(planning(channel="Web!")).refused(InvalidChannel)
    given().when(planning(name="")).refused(InvalidText)
    given().when(planning(channel="trade-fair")).then(fact(Campaign.Created, channel="trade-fair"))


def test_may_have_a_product_and_aims() -> None:
    aims = CampaignPlan(attendees=40, responses=0, contracts=2, revenue=eur("900"))
    campaign = (
        given()
        .when(planning(product="press", plan=aims))
        .then(fact(Campaign.Created, product="press", plan=aims))
    )
    assert (campaign.product, campaign.planned) == ("press", aims)
    given().when(planning(plan=CampaignPlan())).then(fact(Campaign.Created, plan=None))


@pytest.mark.parametrize("aim", ["attendees", "responses", "deals", "contracts"])
@pytest.mark.parametrize("number", [-1, 10**9 + 1])
def test_refuses_aims_that_are_no_numbers_of_things(aim: str, number: int) -> None:
    aims: dict[str, Any] = {aim: number}
    given().when(planning(plan=CampaignPlan(**aims))).refused(InvalidCount)


def test_refuses_an_aim_in_another_currency_than_the_budget() -> None:
    revenue = Money.of("900", "USD")
    given().when(planning(plan=CampaignPlan(revenue=revenue))).refused(CurrencyDiffers)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("status", CampaignStatus)
def test_every_step_from_every_status(
    planned_campaign: Stream, status: CampaignStatus, step: str
) -> None:
    command, event_class = STEPS[step]
    scenario = given(*reached(planned_campaign, status)).when(command)
    if (status, step) in ALLOWED:
        scenario.then(fact(event_class, at=NOW))
    elif (status, step) in ALREADY:
        scenario.then()
    elif step == "start" and status in ("planned", "submitted", "rejected"):
        scenario.refused(CampaignNotApproved)
    else:
        scenario.refused(CampaignStepRefused)


def test_an_approval_names_the_approver(submitted_campaign: Stream) -> None:
    given(*submitted_campaign).when(approve).then(fact(Campaign.Approved, approved_by="boss"))
    given(*submitted_campaign).when(lambda c: c.approve(by=" ", at=NOW)).refused(InvalidText)


@pytest.mark.parametrize("status", ["approved", "running", "completed", "cancelled"])
def test_costs_from_the_approval_on(planned_campaign: Stream, status: str) -> None:
    given(*reached(planned_campaign, CampaignStatus(status))).when(costing()).then(
        fact(Campaign.CostBooked, amount=eur("20"), reference="r-1")
    )


@pytest.mark.parametrize("status", ["planned", "submitted", "rejected"])
def test_no_costs_before_the_approval(planned_campaign: Stream, status: str) -> None:
    given(*reached(planned_campaign, CampaignStatus(status))).when(costing()).refused(
        CostsNotAllowed
    )


def test_no_costs_when_cancelled_before_the_start(approved_campaign: Stream) -> None:
    cancelled = (*approved_campaign, fact(Campaign.Cancelled))
    given(*cancelled).when(costing()).refused(CostsNotAllowed)


def test_a_cost_is_booked_once(running_campaign: Stream) -> None:
    booked = (*running_campaign, fact(Campaign.CostBooked, amount=eur("20"), reference="r-1"))
    given(*booked).when(costing()).then()
    given(*booked).when(costing("21")).refused(CostDiffers)
    given(*booked).when(costing(reference="r-2")).then(fact(Campaign.CostBooked))
    given(*booked).when(costing(currency="USD", reference="r-2")).refused(CurrencyDiffers)
    given(*booked).when(costing(reference="")).refused(InvalidText)


def test_the_latest_attendance_counts(running_campaign: Stream) -> None:
    came = fact(Campaign.AttendanceRecorded, at=NOW, attendees=40)
    campaign = given(*running_campaign).when(attending(40)).then(came)
    assert campaign.attendees == 40
    given(*running_campaign, came).when(attending(40)).then()
    corrected = given(*running_campaign, came).when(attending(41))
    assert corrected.then(fact(Campaign.AttendanceRecorded)).attendees == 41
    late = given(*running_campaign, came).when(attending(39, NOW - timedelta(days=1)))
    assert late.then(fact(Campaign.AttendanceRecorded)).attendees == 40
    given(*running_campaign).when(attending(0)).then(fact(Campaign.AttendanceRecorded))


@pytest.mark.parametrize("number", [-1, 10**9 + 1])
def test_refuses_an_attendance_that_is_no_number_of_people(
    running_campaign: Stream, number: int
) -> None:
    given(*running_campaign).when(attending(number)).refused(InvalidCount)


@pytest.mark.parametrize("status", CampaignStatus)
def test_nobody_comes_before_the_start(planned_campaign: Stream, status: CampaignStatus) -> None:
    scenario = given(*reached(planned_campaign, status)).when(attending(1))
    if "start" in PATHS[status]:
        scenario.then(fact(Campaign.AttendanceRecorded))
    else:
        scenario.refused(CampaignStepRefused)
