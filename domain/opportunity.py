"""An opportunity (商机, deal): from its opening through the stages of a pipeline to its outcome."""

from __future__ import annotations

from dataclasses import field
from datetime import date, datetime, tzinfo
from decimal import Decimal
from typing import Any, Final, Self
from uuid import UUID

from domain.aggregate import LedgerAggregate
from domain.errors import (
    CompetitorMissing,
    ContractDiffers,
    CurrencyDiffers,
    DealClosed,
    DealEnded,
    DealNotArchived,
    DealNotClosed,
    DealNotEnded,
    DealNotSuspended,
    DealSuspended,
    LossDiffers,
    NeedsApproval,
    ReviewMissing,
    SignedBeforeOpening,
)
from domain.pipeline import Pipeline
from domain.values import (
    TEXT_LENGTH,
    ExternalId,
    Money,
    OpportunityStatus,
    Personal,
    business_date,
    optional_text,
    probability,
    text,
)

ENDED: Final = frozenset(
    {OpportunityStatus.WON, OpportunityStatus.LOST, OpportunityStatus.TERMINATED}
)


class Opportunity(LedgerAggregate):
    """Statuses (R48): open ↔ suspended; won, lost and terminated are final.

    An ended deal that was reviewed may be closed, then archived, then purged (R49, R50). The
    outcome is an explicit event; no stage and no chance implies one.
    """

    TOPIC = "crm.opportunity"

    customer_id: UUID = field(init=False)
    name: str = field(init=False)
    amount: Money = field(init=False)
    pipeline_id: UUID = field(init=False)
    pipeline_revision: int = field(init=False)
    stage: str = field(init=False)
    expected_close: date | None = field(init=False, default=None)
    owner: str | None = field(init=False, default=None)
    campaign_id: UUID | None = field(init=False, default=None)
    referred_by: str | None = field(init=False, default=None)
    external_id: ExternalId | None = field(init=False, default=None)
    status: OpportunityStatus = field(init=False, default=OpportunityStatus.OPEN)
    resumed: bool = field(init=False, default=False)
    chance: Decimal | None = field(init=False, default=None)
    contract_amount: Money | None = field(init=False, default=None)
    contract_cost: Money | None = field(init=False, default=None)
    signed_on: date | None = field(init=False, default=None)
    loss_cause: str | None = field(init=False, default=None)
    competitor: str | None = field(init=False, default=None)
    """Who won the deal we lost."""
    review_summary: Personal | None = field(init=False, default=None)
    review_competitor: str | None = field(init=False, default=None)
    reviewed: bool = field(init=False, default=False)
    closed: bool = field(init=False, default=False)
    archived: bool = field(init=False, default=False)
    purged: bool = field(init=False, default=False)

    class Event(LedgerAggregate.Event):
        pass

    class Created(Event, LedgerAggregate.Created):
        """The opening is the first stage entry; with a campaign it is a touch, too."""

        TOPIC = "crm.opportunity.opened"
        customer_id: UUID
        name: str
        amount: Money
        pipeline_id: UUID
        pipeline_revision: int
        stage: str
        expected_close: date | None
        owner: str | None
        campaign_id: UUID | None
        referred_by: str | None
        external_id: ExternalId | None

        def apply(self, aggregate: Opportunity) -> None:
            aggregate.customer_id = self.customer_id
            aggregate.name = self.name
            aggregate.amount = self.amount
            aggregate.pipeline_id = self.pipeline_id
            aggregate.pipeline_revision = self.pipeline_revision
            aggregate.stage = self.stage
            aggregate.expected_close = self.expected_close
            aggregate.owner = self.owner
            aggregate.campaign_id = self.campaign_id
            aggregate.referred_by = self.referred_by
            aggregate.external_id = self.external_id

    class StageAdvanced(Event):
        TOPIC = "crm.opportunity.stage-advanced"
        from_stage: str
        to_stage: str
        pipeline_revision: int
        approved_by: str | None

        def apply(self, aggregate: Opportunity) -> None:
            aggregate.stage = self.to_stage
            aggregate.pipeline_revision = self.pipeline_revision

    class StageMovedBack(Event):
        TOPIC = "crm.opportunity.stage-moved-back"
        from_stage: str
        to_stage: str
        pipeline_revision: int
        approved_by: str | None

        def apply(self, aggregate: Opportunity) -> None:
            aggregate.stage = self.to_stage
            aggregate.pipeline_revision = self.pipeline_revision

    class AmountChanged(Event):
        TOPIC = "crm.opportunity.amount-changed"
        previous: Money
        amount: Money

        def apply(self, aggregate: Opportunity) -> None:
            aggregate.amount = self.amount

    class ExpectedCloseChanged(Event):
        TOPIC = "crm.opportunity.expected-close-changed"
        previous: date | None
        expected_close: date | None

        def apply(self, aggregate: Opportunity) -> None:
            aggregate.expected_close = self.expected_close

    class Transferred(Event):
        TOPIC = "crm.opportunity.transferred"
        from_owner: str | None
        to_owner: str

        def apply(self, aggregate: Opportunity) -> None:
            aggregate.owner = self.to_owner

    class Suspended(Event):
        TOPIC = "crm.opportunity.suspended"
        approved_by: str | None

        def apply(self, aggregate: Opportunity) -> None:
            aggregate.status = OpportunityStatus.SUSPENDED

    class Resumed(Event):
        """At the stage the deal was suspended in."""

        TOPIC = "crm.opportunity.resumed"

        def apply(self, aggregate: Opportunity) -> None:
            aggregate.status = OpportunityStatus.OPEN
            aggregate.resumed = True

    class Terminated(Event):
        TOPIC = "crm.opportunity.terminated"
        approved_by: str | None

        def apply(self, aggregate: Opportunity) -> None:
            aggregate.status = OpportunityStatus.TERMINATED

    class ContractSigned(Event):
        """The deal is won."""

        TOPIC = "crm.opportunity.contract-signed"
        class_version = 2
        amount: Money
        signed_on: date
        cost: Money | None = None
        """Ours, in the currency of the amount."""

        def apply(self, aggregate: Opportunity) -> None:
            aggregate.status = OpportunityStatus.WON
            aggregate.contract_amount = self.amount
            aggregate.contract_cost = self.cost
            aggregate.signed_on = self.signed_on

        @staticmethod
        def upcast_v1_v2(state: dict[str, Any]) -> None:
            """Version 1 knew no costs."""

    class Lost(Event):
        TOPIC = "crm.opportunity.lost"
        cause: str
        competitor: str

        def apply(self, aggregate: Opportunity) -> None:
            aggregate.status = OpportunityStatus.LOST
            aggregate.loss_cause = self.cause
            aggregate.competitor = self.competitor

    class Reviewed(Event):
        TOPIC = "crm.opportunity.reviewed"
        summary: Personal
        competitor: str | None

        def apply(self, aggregate: Opportunity) -> None:
            aggregate.review_summary = self.summary
            aggregate.review_competitor = self.competitor
            aggregate.reviewed = True

    class ChanceEstimated(Event):
        TOPIC = "crm.opportunity.chance-estimated"
        previous: Decimal | None
        chance: Decimal

        def apply(self, aggregate: Opportunity) -> None:
            aggregate.chance = self.chance

    class ActivityRecorded(Event):
        TOPIC = "crm.opportunity.activity-recorded"
        kind: str
        result: str

    class ExpenseBooked(Event):
        TOPIC = "crm.opportunity.expense-booked"
        purpose: str
        amount: Money

    class Closed(Event):
        TOPIC = "crm.opportunity.closed"

        def apply(self, aggregate: Opportunity) -> None:
            aggregate.closed = True

    class Archived(Event):
        TOPIC = "crm.opportunity.archived"

        def apply(self, aggregate: Opportunity) -> None:
            aggregate.archived = True

    class Purged(Event):
        TOPIC = "crm.opportunity.purged"

        def apply(self, aggregate: Opportunity) -> None:
            aggregate.purged = True

    @classmethod
    def open(
        cls,
        opportunity_id: UUID,
        *,
        customer_id: UUID,
        name: str,
        amount: Money,
        pipeline: Pipeline,
        stage: str | None,
        expected_close: date | None,
        owner: str | None,
        campaign_id: UUID | None,
        referred_by: str | None,
        external_id: ExternalId | None,
        at: datetime,
    ) -> Self:
        """At `stage` of the pipeline's current revision, by default its first."""
        revision = pipeline.current
        entered = revision.stages[0] if stage is None else revision.stage(stage)
        if entered.approval:
            raise NeedsApproval("the stage is entered with an approver, from an earlier one")
        return cls._create(
            cls.Created,
            id=opportunity_id,
            timestamp=at,
            customer_id=customer_id,
            name=text(name, "name"),
            amount=amount,
            pipeline_id=pipeline.id,
            pipeline_revision=revision.number,
            stage=entered.name,
            expected_close=_planned(expected_close),
            owner=optional_text(owner, "owner"),
            campaign_id=campaign_id,
            referred_by=optional_text(referred_by, "referred_by"),
            external_id=external_id,
        )

    @property
    def partition_key(self) -> UUID:
        """The customer's: one customer's facts stay together."""
        return self.customer_id

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    def change_stage(
        self, *, stage: str, pipeline: Pipeline, approver: str | None, at: datetime
    ) -> None:
        """Forward or back, to a stage of the pipeline's current revision, which the deal takes on.

        A stage that has left the pipeline keeps the place it had in the deal's own revision.
        """
        if stage == self.stage:
            return
        self._check_open()
        current = pipeline.current
        target = current.stage(stage)
        approver = _approver(approver, needed=target.approval)
        here = current.place(self.stage)
        if here is None:
            here = pipeline.revision(self.pipeline_revision).place(self.stage)
        back = here is not None and current.stages.index(target) < here
        self.trigger_event(
            self.StageMovedBack if back else self.StageAdvanced,
            timestamp=at,
            from_stage=self.stage,
            to_stage=target.name,
            pipeline_revision=current.number,
            approved_by=approver,
        )

    def change_amount(self, *, amount: Money, at: datetime) -> None:
        if amount == self.amount:
            return
        self._check_open()
        self._check_currency(amount)
        self.trigger_event(self.AmountChanged, timestamp=at, previous=self.amount, amount=amount)

    def change_expected_close(self, *, expected_close: date | None, at: datetime) -> None:
        if expected_close == self.expected_close:
            return
        self._check_not_ended()
        self.trigger_event(
            self.ExpectedCloseChanged,
            timestamp=at,
            previous=self.expected_close,
            expected_close=_planned(expected_close),
        )

    def transfer(self, *, owner: str, at: datetime) -> None:
        if text(owner, "owner") == self.owner:
            return
        self._check_not_closed()
        self.trigger_event(self.Transferred, timestamp=at, from_owner=self.owner, to_owner=owner)

    def suspend(self, *, pipeline: Pipeline, approver: str | None, at: datetime) -> None:
        if self.status is OpportunityStatus.SUSPENDED:
            return
        self._check_not_ended()
        approver = _approver(approver, needed=self._needs_approver("suspend", pipeline))
        self.trigger_event(self.Suspended, timestamp=at, approved_by=approver)

    def resume(self, *, at: datetime) -> None:
        if self.status is OpportunityStatus.OPEN and self.resumed:
            return
        self._check_not_ended()
        if self.status is not OpportunityStatus.SUSPENDED:
            raise DealNotSuspended("only a suspended deal can be resumed")
        self.trigger_event(self.Resumed, timestamp=at)

    def terminate(self, *, pipeline: Pipeline, approver: str | None, at: datetime) -> None:
        if self.status is OpportunityStatus.TERMINATED:
            return
        self._check_not_ended()
        approver = _approver(approver, needed=self._needs_approver("terminate", pipeline))
        self.trigger_event(self.Terminated, timestamp=at, approved_by=approver)

    def sign_contract(
        self,
        *,
        amount: Money,
        signed_on: date,
        cost: Money | None,
        timezone: tzinfo,
        at: datetime,
    ) -> None:
        """Wins the deal. Not before the day it was opened, reckoned in `timezone`.

        `cost` is ours, in the deal's currency.
        """
        if self.status is OpportunityStatus.WON:
            signed = (self.contract_amount, self.signed_on, self.contract_cost)
            if (amount, signed_on, cost) == signed:
                return
            raise ContractDiffers("the deal was won with another contract")
        self._check_open()
        self._check_currency(amount)
        if cost is not None:
            self._check_currency(cost)
        if signed_on < self.created_on.astimezone(timezone).date():
            raise SignedBeforeOpening("the contract is older than the deal")
        self.trigger_event(
            self.ContractSigned, timestamp=at, amount=amount, signed_on=signed_on, cost=cost
        )

    def lose(self, *, cause: str, competitor: str | None, at: datetime) -> None:
        """R49: names the winning competitor; "none" and "unknown" will do, silence won't."""
        if competitor is None or not competitor.strip():
            raise CompetitorMissing('a loss names the winning competitor, "none" or "unknown"')
        cause, competitor = text(cause, "cause"), text(competitor, "competitor")
        if self.status is OpportunityStatus.LOST:
            if (cause, competitor) == (self.loss_cause, self.competitor):
                return
            raise LossDiffers("the deal was lost for another cause or to another competitor")
        self._check_open()
        self.trigger_event(self.Lost, timestamp=at, cause=cause, competitor=competitor)

    def review(self, *, summary: str, competitor: str | None, at: datetime) -> None:
        """Before or after the end; again as often as there is something new to say."""
        reviewed = Personal(self.customer_id, text(summary, "summary", TEXT_LENGTH))
        competitor = optional_text(competitor, "competitor")
        if (reviewed, competitor) == (self.review_summary, self.review_competitor):
            return
        self._check_not_closed()
        self.trigger_event(self.Reviewed, timestamp=at, summary=reviewed, competitor=competitor)

    def estimate_chance(self, *, chance: Decimal, at: datetime) -> None:
        if probability(chance, "chance") == self.chance:
            return
        self._check_not_ended()
        self.trigger_event(self.ChanceEstimated, timestamp=at, previous=self.chance, chance=chance)

    def record_activity(self, *, kind: str, result: str, at: datetime) -> None:
        """Each activity is a fact of its own, however alike."""
        self._check_not_closed()
        self.trigger_event(
            self.ActivityRecorded,
            timestamp=at,
            kind=text(kind, "kind"),
            result=text(result, "result", TEXT_LENGTH),
        )

    def book_expense(self, *, purpose: str, amount: Money, at: datetime) -> None:
        """Each expense is a fact of its own, however alike; in any currency."""
        self._check_not_closed()
        self.trigger_event(
            self.ExpenseBooked, timestamp=at, purpose=text(purpose, "purpose"), amount=amount
        )

    def close(self, *, at: datetime) -> None:
        if self.closed:
            return
        if not self.ended:
            raise DealNotEnded("a deal is won, lost or terminated before it is closed")
        if not self.reviewed:
            raise ReviewMissing("a deal is reviewed before it is closed")
        self.trigger_event(self.Closed, timestamp=at)

    def archive(self, *, at: datetime) -> None:
        if self.archived:
            return
        if not self.closed:
            raise DealNotClosed("a deal is closed before it is archived")
        self.trigger_event(self.Archived, timestamp=at)

    def purge(self, *, at: datetime) -> None:
        """Marks it as one that may be cleared away; its events stay."""
        if self.purged:
            return
        if not self.archived:
            raise DealNotArchived("a deal is archived before it is purged")
        self.trigger_event(self.Purged, timestamp=at)

    def _check_not_closed(self) -> None:
        if self.closed:
            raise DealClosed("the deal is closed")

    def _check_not_ended(self) -> None:
        if self.ended:
            raise DealEnded(f"the deal is {self.status}")

    def _check_open(self) -> None:
        self._check_not_ended()
        if self.status is OpportunityStatus.SUSPENDED:
            raise DealSuspended("the deal is suspended: resume it first")

    def _check_currency(self, amount: Money) -> None:
        if amount.currency != self.amount.currency:
            raise CurrencyDiffers(f"the deal is in {self.amount.currency}")

    def _needs_approver(self, change: str, pipeline: Pipeline) -> bool:
        return change in pipeline.revision(self.pipeline_revision).approvals


def _approver(approver: str | None, *, needed: bool) -> str | None:
    approver = optional_text(approver, "approver")
    if needed and approver is None:
        raise NeedsApproval("this step needs an approver")
    return approver


def _planned(day: date | None) -> date | None:
    return None if day is None else business_date(day, "expected_close")
