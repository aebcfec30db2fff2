"""A campaign (市场活动): planned, approved, run, and what it cost (R36, R37)."""

from __future__ import annotations

from dataclasses import field
from datetime import date, datetime
from typing import Any, Self
from uuid import UUID

from domain.aggregate import LedgerAggregate
from domain.errors import (
    CampaignNotApproved,
    CampaignStepRefused,
    CostDiffers,
    CostsNotAllowed,
    CurrencyDiffers,
    InvalidPeriod,
)
from domain.values import (
    CampaignPlan,
    CampaignStatus,
    ExternalId,
    Money,
    business_date,
    checked_channel,
    counted,
    optional_text,
    text,
)


class Campaign(LedgerAggregate):
    """planned → submitted → approved → running → completed.

    Submitted may become rejected, and a rejected one be submitted again; cancelled from anything
    that has not ended.
    """

    TOPIC = "crm.campaign"

    name: str = field(init=False)
    channel: str = field(init=False)
    region: str | None = field(init=False, default=None)
    starts_on: date = field(init=False)
    ends_on: date = field(init=False)
    budget: Money = field(init=False)
    external_id: ExternalId | None = field(init=False, default=None)
    product: str | None = field(init=False, default=None)
    planned: CampaignPlan | None = field(init=False, default=None)
    status: CampaignStatus = field(init=False, default=CampaignStatus.PLANNED)
    started: bool = field(init=False, default=False)
    approved_by: str | None = field(init=False, default=None)
    costs: dict[str, Money] = field(init=False, default_factory=dict)
    attendees: int | None = field(init=False, default=None)
    attendees_on: datetime | None = field(init=False, default=None)

    class Event(LedgerAggregate.Event):
        pass

    class Created(Event, LedgerAggregate.Created):
        TOPIC = "crm.campaign.planned"
        class_version = 2
        name: str
        channel: str
        region: str | None
        starts_on: date
        ends_on: date
        budget: Money
        external_id: ExternalId | None
        product: str | None = None
        """What it promotes."""
        plan: CampaignPlan | None = None

        def apply(self, aggregate: Campaign) -> None:
            aggregate.name = self.name
            aggregate.channel = self.channel
            aggregate.region = self.region
            aggregate.starts_on = self.starts_on
            aggregate.ends_on = self.ends_on
            aggregate.budget = self.budget
            aggregate.external_id = self.external_id
            aggregate.product = self.product
            aggregate.planned = self.plan

        @staticmethod
        def upcast_v1_v2(state: dict[str, Any]) -> None:
            """Version 1 knew neither product nor aims."""

    class Submitted(Event):
        TOPIC = "crm.campaign.submitted"

        def apply(self, aggregate: Campaign) -> None:
            aggregate.status = CampaignStatus.SUBMITTED

    class Approved(Event):
        TOPIC = "crm.campaign.approved"
        approved_by: str

        def apply(self, aggregate: Campaign) -> None:
            aggregate.status = CampaignStatus.APPROVED
            aggregate.approved_by = self.approved_by

    class Rejected(Event):
        TOPIC = "crm.campaign.rejected"

        def apply(self, aggregate: Campaign) -> None:
            aggregate.status = CampaignStatus.REJECTED

    class Started(Event):
        TOPIC = "crm.campaign.started"

        def apply(self, aggregate: Campaign) -> None:
            aggregate.status = CampaignStatus.RUNNING
            aggregate.started = True

    class CostBooked(Event):
        TOPIC = "crm.campaign.cost-booked"
        amount: Money
        reference: str

        def apply(self, aggregate: Campaign) -> None:
            aggregate.costs[self.reference] = self.amount

    class AttendanceRecorded(Event):
        """How many came; the latest one counts (R37)."""

        TOPIC = "crm.campaign.attendance-recorded"
        attendees: int

        def apply(self, aggregate: Campaign) -> None:
            if aggregate._is_latest(self.timestamp, aggregate.attendees_on):
                aggregate.attendees = self.attendees
                aggregate.attendees_on = self.timestamp

    class Completed(Event):
        TOPIC = "crm.campaign.completed"

        def apply(self, aggregate: Campaign) -> None:
            aggregate.status = CampaignStatus.COMPLETED

    class Cancelled(Event):
        TOPIC = "crm.campaign.cancelled"

        def apply(self, aggregate: Campaign) -> None:
            aggregate.status = CampaignStatus.CANCELLED

    @classmethod
    def plan(
        cls,
        campaign_id: UUID,
        *,
        name: str,
        channel: str,
        region: str | None,
        starts_on: date,
        ends_on: date,
        budget: Money,
        external_id: ExternalId | None,
        product: str | None,
        plan: CampaignPlan | None,
        at: datetime,
    ) -> Self:
        """From the first day to the last, both included."""
        if business_date(ends_on, "ends_on") < business_date(starts_on, "starts_on"):
            raise InvalidPeriod("ends_on is before starts_on")
        return cls._create(
            cls.Created,
            id=campaign_id,
            timestamp=at,
            name=text(name, "name"),
            channel=checked_channel(channel),
            region=optional_text(region, "region"),
            starts_on=starts_on,
            ends_on=ends_on,
            budget=budget,
            external_id=external_id,
            product=optional_text(product, "product"),
            plan=_checked_plan(plan, budget),
        )

    def submit(self, *, at: datetime) -> None:
        if self.status is CampaignStatus.SUBMITTED:
            return
        self._check_status(CampaignStatus.PLANNED, CampaignStatus.REJECTED)
        self.trigger_event(self.Submitted, timestamp=at)

    def approve(self, *, by: str, at: datetime) -> None:
        by = text(by, "by")
        if self.status is CampaignStatus.APPROVED:
            return
        self._check_status(CampaignStatus.SUBMITTED)
        self.trigger_event(self.Approved, timestamp=at, approved_by=by)

    def reject(self, *, at: datetime) -> None:
        if self.status is CampaignStatus.REJECTED:
            return
        self._check_status(CampaignStatus.SUBMITTED)
        self.trigger_event(self.Rejected, timestamp=at)

    def start(self, *, at: datetime) -> None:
        if self.status is CampaignStatus.RUNNING:
            return
        if self.status in (
            CampaignStatus.PLANNED,
            CampaignStatus.SUBMITTED,
            CampaignStatus.REJECTED,
        ):
            raise CampaignNotApproved(f"the campaign is {self.status}: it runs once approved")
        self._check_status(CampaignStatus.APPROVED)
        self.trigger_event(self.Started, timestamp=at)

    def book_cost(self, *, amount: Money, reference: str, at: datetime) -> None:
        """In the budget's currency; once per reference."""
        known = self.costs.get(text(reference, "reference"))
        if known == amount:
            return
        if known is not None:
            raise CostDiffers("the cost was booked with another amount")
        if not self._may_cost():
            raise CostsNotAllowed(f"a campaign that is {self.status} has no costs")
        if amount.currency != self.budget.currency:
            raise CurrencyDiffers(f"the campaign's budget is in {self.budget.currency}")
        self.trigger_event(self.CostBooked, timestamp=at, amount=amount, reference=reference)

    def record_attendance(self, *, attendees: int, at: datetime) -> None:
        """Of a campaign that was started."""
        if counted(attendees, "attendees") == self.attendees:
            return
        if not self.started:
            raise CampaignStepRefused(f"a campaign that is {self.status} has not taken place")
        self.trigger_event(self.AttendanceRecorded, timestamp=at, attendees=attendees)

    def complete(self, *, at: datetime) -> None:
        if self.status is CampaignStatus.COMPLETED:
            return
        self._check_status(CampaignStatus.RUNNING)
        self.trigger_event(self.Completed, timestamp=at)

    def cancel(self, *, at: datetime) -> None:
        if self.status is CampaignStatus.CANCELLED:
            return
        if self.status is CampaignStatus.COMPLETED:
            raise CampaignStepRefused("the campaign is completed")
        self.trigger_event(self.Cancelled, timestamp=at)

    def _check_status(self, *allowed: CampaignStatus) -> None:
        if self.status not in allowed:
            raise CampaignStepRefused(
                f"the campaign is {self.status}; this step starts from {' or '.join(allowed)}"
            )

    def _may_cost(self) -> bool:
        if self.status is CampaignStatus.CANCELLED:
            return self.started
        return self.status in (
            CampaignStatus.APPROVED,
            CampaignStatus.RUNNING,
            CampaignStatus.COMPLETED,
        )


def _checked_plan(plan: CampaignPlan | None, budget: Money) -> CampaignPlan | None:
    """A plan without any aim is none."""
    if plan is None or plan == CampaignPlan():
        return None
    for name in ("attendees", "responses", "deals", "contracts"):
        aim: int | None = getattr(plan, name)
        if aim is not None:
            counted(aim, name)
    if plan.revenue is not None and plan.revenue.currency != budget.currency:
        raise CurrencyDiffers(f"the campaign's budget is in {budget.currency}")
    return plan
