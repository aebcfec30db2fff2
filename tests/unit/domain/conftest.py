"""Streams by the state they lead to."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest

from domain.campaign import Campaign
from domain.customer import Customer
from domain.opportunity import Opportunity
from domain.pipeline import DEFAULT_PIPELINE_ID, DEFAULT_STAGES, Pipeline
from domain.values import ChurnCause, Personal, Stage
from tests.given_when_then import START, fact
from tests.unit.domain.streams import CUSTOMER, Stream, eur, opened_deal, registered


@pytest.fixture
def pipeline() -> Pipeline:
    """The default pipeline, first revision."""
    return Pipeline.define(
        DEFAULT_PIPELINE_ID, name="project sale", stages=DEFAULT_STAGES, approvals=(), at=START
    )


@pytest.fixture
def strict_pipeline() -> Pipeline:
    """Its last stage, suspending and terminating need an approver."""
    stages = (
        Stage("prospect", Decimal("0.5"), Decimal(2)),
        Stage("bid", Decimal("0.8"), Decimal(1), approval=True),
    )
    return Pipeline.define(
        DEFAULT_PIPELINE_ID,
        name="strict",
        stages=stages,
        approvals=("suspend", "terminate"),
        at=START,
    )


@pytest.fixture
def open_deal() -> Stream:
    return (opened_deal(),)


@pytest.fixture
def suspended_deal(open_deal: Stream) -> Stream:
    return (*open_deal, fact(Opportunity.Suspended, approved_by=None))


@pytest.fixture
def won_deal(open_deal: Stream) -> Stream:
    won = fact(Opportunity.ContractSigned, amount=eur("900"), signed_on=date(2024, 2, 1))
    return (*open_deal, won)


@pytest.fixture
def lost_deal(open_deal: Stream) -> Stream:
    return (*open_deal, fact(Opportunity.Lost, cause="price", competitor="none"))


@pytest.fixture
def terminated_deal(open_deal: Stream) -> Stream:
    return (*open_deal, fact(Opportunity.Terminated, approved_by=None))


@pytest.fixture
def reviewed_deal(lost_deal: Stream) -> Stream:
    summary = Personal(CUSTOMER, "too dear")
    return (*lost_deal, fact(Opportunity.Reviewed, summary=summary, competitor=None))


@pytest.fixture
def closed_deal(reviewed_deal: Stream) -> Stream:
    return (*reviewed_deal, fact(Opportunity.Closed))


@pytest.fixture
def archived_deal(closed_deal: Stream) -> Stream:
    return (*closed_deal, fact(Opportunity.Archived))


@pytest.fixture
def purged_deal(archived_deal: Stream) -> Stream:
    return (*archived_deal, fact(Opportunity.Purged))


@pytest.fixture
def prospect() -> Stream:
    return (registered(),)


@pytest.fixture
def buyer(prospect: Stream) -> Stream:
    return (*prospect, fact(Customer.OrderPlaced, order_id="o-1", amount=eur("10")))


@pytest.fixture
def lost_customer(buyer: Stream) -> Stream:
    return (*buyer, fact(Customer.Churned, cause=ChurnCause.PRICE))


@pytest.fixture
def planned_campaign() -> Stream:
    planned = fact(
        Campaign.Created,
        name="spring",
        channel="web",
        region=None,
        starts_on=date(2024, 3, 1),
        ends_on=date(2024, 3, 31),
        budget=eur("500"),
        external_id=None,
    )
    return (planned,)


@pytest.fixture
def submitted_campaign(planned_campaign: Stream) -> Stream:
    return (*planned_campaign, fact(Campaign.Submitted))


@pytest.fixture
def approved_campaign(submitted_campaign: Stream) -> Stream:
    return (*submitted_campaign, fact(Campaign.Approved, approved_by="boss"))


@pytest.fixture
def running_campaign(approved_campaign: Stream) -> Stream:
    return (*approved_campaign, fact(Campaign.Started))
