"""The application: one method per command."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final, Literal, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

from eventsourcing.application import AggregateNotFoundError, Application
from eventsourcing.domain import DomainEventProtocol, MutableOrImmutableAggregate

from domain.aggregate import LedgerAggregate
from domain.campaign import Campaign
from domain.customer import Customer
from domain.errors import (
    AlreadyExists,
    BeforeFirst,
    CampaignNotFound,
    CustomerNotFound,
    ExchangeRateNotFound,
    InTheFuture,
    InvalidDate,
    MemberNotFound,
    NaiveTime,
    NotFound,
    OpportunityNotFound,
    PipelineNotFound,
)
from domain.exchange_rate import ExchangeRate
from domain.member import Member
from domain.opportunity import Opportunity
from domain.pipeline import DEFAULT_PIPELINE_ID, DEFAULT_PIPELINE_NAME, DEFAULT_STAGES, Pipeline
from domain.values import (
    AlertKind,
    AttributeValue,
    CampaignPlan,
    ChurnCause,
    CustomerKind,
    ExternalId,
    Level,
    LevelEvidence,
    Money,
    PaymentKind,
    RepeatType,
    Severity,
    Silence,
    Stage,
)

_NOT_FOUND: Final[dict[type[LedgerAggregate], type[NotFound]]] = {
    Campaign: CampaignNotFound,
    Customer: CustomerNotFound,
    ExchangeRate: ExchangeRateNotFound,
    Member: MemberNotFound,
    Opportunity: OpportunityNotFound,
    Pipeline: PipelineNotFound,
}
_EARLIEST: Final = datetime(1900, 1, 1, tzinfo=UTC)

L = TypeVar("L", bound=LedgerAggregate)


class CRM(Application[UUID]):
    """Each command loads, decides and returns the aggregates it changed, events pending.

    Nothing is saved by it, so that after a conflict it can be tried again; `save` does that. A
    command already done returns the aggregate without pending events.

    Every command takes `occurred_at`, when it was true: by default now, and never before what the
    stream knows last. It must be aware (NaiveTime), not later than now (InTheFuture), not before
    1900 (InvalidDate) nor before the stream's first event (BeforeFirst).

    All commands on something existing raise a NotFound of its kind. Commands are given values of
    their annotated types; what a value may hold is checked here.
    """

    def __init__(
        self,
        env: Mapping[str, str] | None = None,
        *,
        clock: Callable[[], datetime],
        timezone: ZoneInfo,
    ) -> None:
        """`clock` gives aware times; days are reckoned in `timezone`."""
        super().__init__(env)
        self.clock = clock
        self.timezone = timezone

    def save(
        self,
        *objs: MutableOrImmutableAggregate[UUID] | DomainEventProtocol[UUID] | None,
        **kwargs: Any,
    ) -> list[Any]:
        """Records what is pending; `kwargs` and the partition keys reach the recorder."""
        keys = {obj.id: obj.partition_key for obj in objs if isinstance(obj, LedgerAggregate)}
        return super().save(*objs, partition_keys=keys, **kwargs)

    # Pipelines

    def define_pipeline(
        self,
        pipeline_id: UUID,
        *,
        name: str,
        stages: Sequence[Stage],
        approvals: Sequence[str] = (),
        occurred_at: datetime | None = None,
    ) -> Pipeline:
        self._check_new(pipeline_id)
        return Pipeline.define(
            pipeline_id,
            name=name,
            stages=stages,
            approvals=approvals,
            at=self._at(occurred_at),
        )

    def define_default_pipeline(self) -> Pipeline:
        """The one deals are opened in unless another is named (R42); as it is when it exists."""
        try:
            return self._get(Pipeline, DEFAULT_PIPELINE_ID)
        except PipelineNotFound:
            return self.define_pipeline(
                DEFAULT_PIPELINE_ID, name=DEFAULT_PIPELINE_NAME, stages=DEFAULT_STAGES
            )

    def revise_pipeline(
        self,
        pipeline_id: UUID,
        *,
        stages: Sequence[Stage],
        approvals: Sequence[str] = (),
        occurred_at: datetime | None = None,
    ) -> Pipeline:
        pipeline = self._get(Pipeline, pipeline_id)
        pipeline.revise(stages=stages, approvals=approvals, at=self._at(occurred_at, pipeline))
        return pipeline

    # Customers

    def register_customer(
        self,
        customer_id: UUID,
        *,
        kind: CustomerKind,
        name: str | None,
        identified: bool = True,
        region: str | None = None,
        industry: str | None = None,
        source: str | None = None,
        external_id: ExternalId | None = None,
        attributes: Mapping[str, AttributeValue] | None = None,
        occurred_at: datetime | None = None,
    ) -> Customer:
        if external_id is not None:
            self._check_new(customer_id)
        return Customer.register(
            customer_id,
            kind=kind,
            name=name,
            identified=identified,
            region=region,
            industry=industry,
            source=source,
            external_id=external_id,
            attributes=attributes or {},
            at=self._at(occurred_at),
        )

    def change_profile(
        self,
        customer_id: UUID,
        *,
        name: str | None = None,
        identified: bool | None = None,
        region: str | None = None,
        industry: str | None = None,
        source: str | None = None,
        attributes: Mapping[str, AttributeValue] | None = None,
        removed_attributes: Sequence[str] = (),
        occurred_at: datetime | None = None,
    ) -> Customer:
        customer = self._get(Customer, customer_id)
        customer.change_profile(
            name=name,
            identified=identified,
            region=region,
            industry=industry,
            source=source,
            attributes=attributes or {},
            removed_attributes=removed_attributes,
            at=self._at(occurred_at, customer),
        )
        return customer

    def add_contact(
        self,
        customer_id: UUID,
        *,
        contact_id: UUID,
        name: str,
        department: str | None = None,
        level: str | None = None,
        role: str | None = None,
        email: str | None = None,
        phone: str | None = None,
        occurred_at: datetime | None = None,
    ) -> Customer:
        customer = self._get(Customer, customer_id)
        customer.add_contact(
            contact_id=contact_id,
            name=name,
            department=department,
            level=level,
            role=role,
            email=email,
            phone=phone,
            at=self._at(occurred_at, customer),
        )
        return customer

    def erase_contact(
        self, customer_id: UUID, *, contact_id: UUID, occurred_at: datetime | None = None
    ) -> Customer:
        """After the key has been destroyed. Nothing where that has been recorded."""
        customer = self._get(Customer, customer_id)
        customer.erase_contact(contact_id=contact_id, at=self._at(occurred_at, customer))
        return customer

    def erase_customer(self, customer_id: UUID, *, occurred_at: datetime | None = None) -> Customer:
        """Of a person, after the key has been destroyed. Nothing where that has been recorded."""
        customer = self._get(Customer, customer_id)
        customer.erase(at=self._at(occurred_at, customer))
        return customer

    def record_response(
        self,
        customer_id: UUID,
        *,
        campaign_id: UUID,
        channel: str,
        kind: str,
        occurred_at: datetime | None = None,
    ) -> Customer:
        customer = self._get(Customer, customer_id)
        self._get(Campaign, campaign_id)
        at = self._at(occurred_at, customer)
        customer.respond(campaign_id=campaign_id, channel=channel, kind=kind, at=at)
        return customer

    def place_order(
        self,
        customer_id: UUID,
        *,
        order_id: str,
        amount: Money,
        cost: Money | None = None,
        occurred_at: datetime | None = None,
    ) -> Customer:
        customer = self._get(Customer, customer_id)
        at = self._at(occurred_at, customer)
        customer.place_order(order_id=order_id, amount=amount, cost=cost, at=at)
        return customer

    def record_delivery(
        self,
        customer_id: UUID,
        *,
        delivery_id: str,
        order_id: str | None = None,
        occurred_at: datetime | None = None,
    ) -> Customer:
        customer = self._get(Customer, customer_id)
        at = self._at(occurred_at, customer)
        customer.deliver(delivery_id=delivery_id, order_id=order_id, at=at)
        return customer

    def record_payment(
        self,
        customer_id: UUID,
        *,
        kind: PaymentKind | Literal["overdue", "settled"],
        amount: Money,
        reference: str,
        occurred_at: datetime | None = None,
    ) -> Customer:
        customer = self._get(Customer, customer_id)
        customer.record_payment(
            kind=PaymentKind(kind),
            reference=reference,
            amount=amount,
            at=self._at(occurred_at, customer),
        )
        return customer

    def raise_churn_signal(
        self,
        customer_id: UUID,
        *,
        kind: str,
        severity: Severity,
        detail: str | None = None,
        occurred_at: datetime | None = None,
    ) -> Customer:
        customer = self._get(Customer, customer_id)
        at = self._at(occurred_at, customer)
        customer.raise_churn_signal(kind=kind, severity=severity, detail=detail, at=at)
        return customer

    def change_level(
        self, customer_id: UUID, *, level: Level, occurred_at: datetime | None = None
    ) -> Customer:
        customer = self._get(Customer, customer_id)
        customer.change_level(level=level, at=self._at(occurred_at, customer))
        return customer

    def change_level_by_rule(
        self, customer_id: UUID, *, level: Level, evidence: LevelEvidence, occurred_at: datetime
    ) -> Customer:
        """For the policy. Nothing outside a relationship, nor where a level was set later."""
        customer = self._get(Customer, customer_id)
        at = self._at(max(occurred_at, customer.created_on), customer)
        customer.change_level_by_rule(level=level, evidence=evidence, at=at)
        return customer

    def churn(
        self, customer_id: UUID, *, cause: ChurnCause, occurred_at: datetime | None = None
    ) -> Customer:
        customer = self._get(Customer, customer_id)
        customer.churn(cause=cause, at=self._at(occurred_at, customer))
        return customer

    def churn_silent(
        self, customer_id: UUID, *, silence: Silence, occurred_at: datetime
    ) -> Customer:
        """For the policy. The loss is not dated before what the stream knows last."""
        customer = self._get(Customer, customer_id)
        at = max(self._at(occurred_at, customer), customer.last_occurred_on)
        customer.churn_silent(silence=silence, at=at)
        return customer

    def start_relationship(
        self, customer_id: UUID, *, opportunity_id: UUID, occurred_at: datetime
    ) -> Customer:
        """For the policy, by a deal won at `occurred_at`; nothing where there is a relationship."""
        customer = self._get(Customer, customer_id)
        at = self._at(max(occurred_at, customer.created_on), customer)
        customer.start_relationship(opportunity_id=opportunity_id, at=at)
        return customer

    def win_back(self, customer_id: UUID, *, occurred_at: datetime | None = None) -> Customer:
        customer = self._get(Customer, customer_id)
        customer.win_back(at=self._at(occurred_at, customer))
        return customer

    def describe_demand(
        self,
        customer_id: UUID,
        *,
        repeat_type: RepeatType | None = None,
        cycle_days: int | None = None,
        stock_alert_below: Decimal | None = None,
        occurred_at: datetime | None = None,
    ) -> Customer:
        customer = self._get(Customer, customer_id)
        customer.describe_demand(
            repeat_type=repeat_type,
            cycle_days=cycle_days,
            stock_alert_below=stock_alert_below,
            at=self._at(occurred_at, customer),
        )
        return customer

    def report_stock(
        self, customer_id: UUID, *, level: Decimal, occurred_at: datetime | None = None
    ) -> Customer:
        customer = self._get(Customer, customer_id)
        customer.report_stock(level=level, at=self._at(occurred_at, customer))
        return customer

    def alert_demand(
        self,
        customer_id: UUID,
        *,
        kind: AlertKind,
        rule: str,
        due_at: datetime,
        event_id: UUID,
        occurred_at: datetime,
    ) -> Customer:
        """For the policy, of the cycle or stock that was due at `due_at` by the event given.

        Nothing if that was alerted before, or if a purchase or a report has overtaken it.
        """
        customer = self._get(Customer, customer_id)
        customer.alert_demand(
            kind=kind,
            rule=rule,
            due_at=due_at,
            event_id=event_id,
            at=self._at(max(occurred_at, customer.created_on), customer),
        )
        return customer

    def plan_retention(
        self,
        customer_id: UUID,
        *,
        worth_keeping: bool,
        limit: Money,
        social_effect: Severity | None = None,
        occurred_at: datetime | None = None,
    ) -> Customer:
        customer = self._get(Customer, customer_id)
        customer.plan_retention(
            worth_keeping=worth_keeping,
            social_effect=social_effect,
            limit=limit,
            at=self._at(occurred_at, customer),
        )
        return customer

    def book_retention_cost(
        self,
        customer_id: UUID,
        *,
        amount: Money,
        reference: str,
        occurred_at: datetime | None = None,
    ) -> Customer:
        customer = self._get(Customer, customer_id)
        at = self._at(occurred_at, customer)
        customer.book_retention_cost(amount=amount, reference=reference, at=at)
        return customer

    # Campaigns

    def plan_campaign(
        self,
        campaign_id: UUID,
        *,
        name: str,
        channel: str,
        region: str | None = None,
        starts_on: date,
        ends_on: date,
        budget: Money,
        external_id: ExternalId | None = None,
        product: str | None = None,
        plan: CampaignPlan | None = None,
        occurred_at: datetime | None = None,
    ) -> Campaign:
        if external_id is not None:
            self._check_new(campaign_id)
        return Campaign.plan(
            campaign_id,
            name=name,
            channel=channel,
            region=region,
            starts_on=starts_on,
            ends_on=ends_on,
            budget=budget,
            external_id=external_id,
            product=product,
            plan=plan,
            at=self._at(occurred_at),
        )

    def submit_campaign(
        self, campaign_id: UUID, *, occurred_at: datetime | None = None
    ) -> Campaign:
        campaign = self._get(Campaign, campaign_id)
        campaign.submit(at=self._at(occurred_at, campaign))
        return campaign

    def approve_campaign(
        self, campaign_id: UUID, *, by: str, occurred_at: datetime | None = None
    ) -> Campaign:
        campaign = self._get(Campaign, campaign_id)
        campaign.approve(by=by, at=self._at(occurred_at, campaign))
        return campaign

    def reject_campaign(
        self, campaign_id: UUID, *, occurred_at: datetime | None = None
    ) -> Campaign:
        campaign = self._get(Campaign, campaign_id)
        campaign.reject(at=self._at(occurred_at, campaign))
        return campaign

    def start_campaign(self, campaign_id: UUID, *, occurred_at: datetime | None = None) -> Campaign:
        campaign = self._get(Campaign, campaign_id)
        campaign.start(at=self._at(occurred_at, campaign))
        return campaign

    def book_cost(
        self,
        campaign_id: UUID,
        *,
        amount: Money,
        reference: str,
        occurred_at: datetime | None = None,
    ) -> Campaign:
        campaign = self._get(Campaign, campaign_id)
        at = self._at(occurred_at, campaign)
        campaign.book_cost(amount=amount, reference=reference, at=at)
        return campaign

    def record_attendance(
        self, campaign_id: UUID, *, attendees: int, occurred_at: datetime | None = None
    ) -> Campaign:
        campaign = self._get(Campaign, campaign_id)
        campaign.record_attendance(attendees=attendees, at=self._at(occurred_at, campaign))
        return campaign

    def complete_campaign(
        self, campaign_id: UUID, *, occurred_at: datetime | None = None
    ) -> Campaign:
        campaign = self._get(Campaign, campaign_id)
        campaign.complete(at=self._at(occurred_at, campaign))
        return campaign

    def cancel_campaign(
        self, campaign_id: UUID, *, occurred_at: datetime | None = None
    ) -> Campaign:
        campaign = self._get(Campaign, campaign_id)
        campaign.cancel(at=self._at(occurred_at, campaign))
        return campaign

    # Opportunities

    def open_opportunity(
        self,
        opportunity_id: UUID,
        *,
        customer_id: UUID,
        name: str,
        amount: Money,
        pipeline_id: UUID = DEFAULT_PIPELINE_ID,
        stage: str | None = None,
        expected_close: date | None = None,
        owner: str | None = None,
        campaign_id: UUID | None = None,
        referred_by: str | None = None,
        external_id: ExternalId | None = None,
        occurred_at: datetime | None = None,
    ) -> Opportunity:
        """May be dated before the customer, the pipeline or the campaign were recorded."""
        if external_id is not None:
            self._check_new(opportunity_id)
        self._get(Customer, customer_id)
        if campaign_id is not None:
            self._get(Campaign, campaign_id)
        return Opportunity.open(
            opportunity_id,
            customer_id=customer_id,
            name=name,
            amount=amount,
            pipeline=self._get(Pipeline, pipeline_id),
            stage=stage,
            expected_close=expected_close,
            owner=owner,
            campaign_id=campaign_id,
            referred_by=referred_by,
            external_id=external_id,
            at=self._at(occurred_at),
        )

    def change_stage(
        self,
        opportunity_id: UUID,
        *,
        stage: str,
        approver: str | None = None,
        occurred_at: datetime | None = None,
    ) -> Opportunity:
        opportunity = self._get(Opportunity, opportunity_id)
        opportunity.change_stage(
            stage=stage,
            pipeline=self._get(Pipeline, opportunity.pipeline_id),
            approver=approver,
            at=self._at(occurred_at, opportunity),
        )
        return opportunity

    def change_amount(
        self, opportunity_id: UUID, *, amount: Money, occurred_at: datetime | None = None
    ) -> Opportunity:
        opportunity = self._get(Opportunity, opportunity_id)
        opportunity.change_amount(amount=amount, at=self._at(occurred_at, opportunity))
        return opportunity

    def change_expected_close(
        self,
        opportunity_id: UUID,
        *,
        expected_close: date | None,
        occurred_at: datetime | None = None,
    ) -> Opportunity:
        opportunity = self._get(Opportunity, opportunity_id)
        at = self._at(occurred_at, opportunity)
        opportunity.change_expected_close(expected_close=expected_close, at=at)
        return opportunity

    def transfer(
        self, opportunity_id: UUID, *, owner: str, occurred_at: datetime | None = None
    ) -> Opportunity:
        opportunity = self._get(Opportunity, opportunity_id)
        opportunity.transfer(owner=owner, at=self._at(occurred_at, opportunity))
        return opportunity

    def suspend(
        self,
        opportunity_id: UUID,
        *,
        approver: str | None = None,
        occurred_at: datetime | None = None,
    ) -> Opportunity:
        opportunity = self._get(Opportunity, opportunity_id)
        pipeline = self._get(Pipeline, opportunity.pipeline_id)
        at = self._at(occurred_at, opportunity)
        opportunity.suspend(pipeline=pipeline, approver=approver, at=at)
        return opportunity

    def resume(self, opportunity_id: UUID, *, occurred_at: datetime | None = None) -> Opportunity:
        opportunity = self._get(Opportunity, opportunity_id)
        opportunity.resume(at=self._at(occurred_at, opportunity))
        return opportunity

    def terminate(
        self,
        opportunity_id: UUID,
        *,
        approver: str | None = None,
        occurred_at: datetime | None = None,
    ) -> Opportunity:
        opportunity = self._get(Opportunity, opportunity_id)
        pipeline = self._get(Pipeline, opportunity.pipeline_id)
        at = self._at(occurred_at, opportunity)
        opportunity.terminate(pipeline=pipeline, approver=approver, at=at)
        return opportunity

    def sign_contract(
        self,
        opportunity_id: UUID,
        *,
        amount: Money,
        signed_on: date,
        cost: Money | None = None,
        occurred_at: datetime | None = None,
    ) -> tuple[Opportunity, Customer]:
        """Wins the deal, and starts the customer's relationship where there is none.

        Without `occurred_at` the deal is won now when signed today, else as the day of the
        signature begins, yet not before what is known of the deal on that day.
        """
        opportunity = self._get(Opportunity, opportunity_id)
        customer = self._get(Customer, opportunity.customer_id)
        if signed_on > self.clock().astimezone(self.timezone).date():
            raise InTheFuture("signed_on is in the future")
        opportunity.sign_contract(
            amount=amount,
            signed_on=signed_on,
            cost=cost,
            timezone=self.timezone,
            at=self._signed_at(signed_on, occurred_at, opportunity),
        )
        if opportunity.pending_events:
            won_at = max(opportunity.modified_on, customer.created_on)
            customer.start_relationship(opportunity_id=opportunity_id, at=won_at)
        return opportunity, customer

    def lose(
        self,
        opportunity_id: UUID,
        *,
        cause: str,
        competitor: str | None,
        occurred_at: datetime | None = None,
    ) -> Opportunity:
        opportunity = self._get(Opportunity, opportunity_id)
        at = self._at(occurred_at, opportunity)
        opportunity.lose(cause=cause, competitor=competitor, at=at)
        return opportunity

    def review(
        self,
        opportunity_id: UUID,
        *,
        summary: str,
        competitor: str | None = None,
        occurred_at: datetime | None = None,
    ) -> Opportunity:
        opportunity = self._get(Opportunity, opportunity_id)
        at = self._at(occurred_at, opportunity)
        opportunity.review(summary=summary, competitor=competitor, at=at)
        return opportunity

    def estimate_chance(
        self, opportunity_id: UUID, *, chance: Decimal, occurred_at: datetime | None = None
    ) -> Opportunity:
        opportunity = self._get(Opportunity, opportunity_id)
        opportunity.estimate_chance(chance=chance, at=self._at(occurred_at, opportunity))
        return opportunity

    def record_activity(
        self, opportunity_id: UUID, *, kind: str, result: str, occurred_at: datetime | None = None
    ) -> Opportunity:
        opportunity = self._get(Opportunity, opportunity_id)
        at = self._at(occurred_at, opportunity)
        opportunity.record_activity(kind=kind, result=result, at=at)
        return opportunity

    def book_expense(
        self,
        opportunity_id: UUID,
        *,
        purpose: str,
        amount: Money,
        occurred_at: datetime | None = None,
    ) -> Opportunity:
        opportunity = self._get(Opportunity, opportunity_id)
        at = self._at(occurred_at, opportunity)
        opportunity.book_expense(purpose=purpose, amount=amount, at=at)
        return opportunity

    def close_opportunity(
        self, opportunity_id: UUID, *, occurred_at: datetime | None = None
    ) -> Opportunity:
        opportunity = self._get(Opportunity, opportunity_id)
        opportunity.close(at=self._at(occurred_at, opportunity))
        return opportunity

    def archive_opportunity(
        self, opportunity_id: UUID, *, occurred_at: datetime | None = None
    ) -> Opportunity:
        opportunity = self._get(Opportunity, opportunity_id)
        opportunity.archive(at=self._at(occurred_at, opportunity))
        return opportunity

    def purge_opportunity(
        self, opportunity_id: UUID, *, occurred_at: datetime | None = None
    ) -> Opportunity:
        opportunity = self._get(Opportunity, opportunity_id)
        opportunity.purge(at=self._at(occurred_at, opportunity))
        return opportunity

    # Exchange rates

    def record_rate(
        self,
        rate_id: UUID,
        *,
        from_currency: str,
        to_currency: str,
        rate: Decimal,
        on: date,
        occurred_at: datetime | None = None,
    ) -> ExchangeRate:
        """What one unit of `from_currency` is worth in `to_currency` from the day `on`.

        `rate_id` is the pair's `exchange_rate_id`; its first rate begins the stream.
        """
        if on > self.clock().astimezone(self.timezone).date():
            raise InTheFuture("on is in the future")
        try:
            pair = self._get(ExchangeRate, rate_id)
            at = self._at(occurred_at, pair)
        except ExchangeRateNotFound:
            at = self._at(occurred_at)
            pair = ExchangeRate.quote(
                rate_id, from_currency=from_currency, to_currency=to_currency, at=at
            )
        pair.record(rate=rate, on=on, at=at)
        return pair

    # Members

    def assign_team(
        self,
        member_id: UUID,
        *,
        owner: str,
        team: str | None = None,
        occurred_at: datetime | None = None,
    ) -> Member:
        """`owner`, a person of our house, is in `team` from then on; None: in none.

        `member_id` is the person's `member_id`; the first that is told begins the stream.
        """
        try:
            member = self._get(Member, member_id)
        except MemberNotFound:
            at = self._at(occurred_at)
            return Member.register(member_id, owner=owner, team=team, at=at)
        member.assign(team=team, at=self._at(occurred_at, member))
        return member

    def _get(self, cls: type[L], aggregate_id: UUID) -> L:
        """NotFound of its kind, also when the id is of something else."""
        try:
            found: object = self.repository.get(aggregate_id)
        except AggregateNotFoundError:
            found = None
        if not isinstance(found, cls):
            raise _NOT_FOUND[cls](f"there is no {cls.__name__.lower()} {aggregate_id}")
        return found

    def _check_new(self, aggregate_id: UUID) -> None:
        """For ids that are derived from a name; one that was drawn is new anyway."""
        if aggregate_id in self.repository:
            raise AlreadyExists(aggregate_id)

    def _at(self, occurred_at: datetime | None, known: LedgerAggregate | None = None) -> datetime:
        """The effective time of a command, in UTC; `known` is the stream it adds to."""
        now = self.clock().astimezone(UTC)
        if occurred_at is None:
            return now if known is None else max(now, known.last_occurred_on)
        if occurred_at.utcoffset() is None:
            raise NaiveTime("occurred_at needs an offset")
        if occurred_at > now:
            raise InTheFuture("occurred_at is in the future")
        if occurred_at < _EARLIEST:
            raise InvalidDate(f"occurred_at is before {_EARLIEST.year}")
        if known is not None and occurred_at < known.created_on:
            raise BeforeFirst(f"occurred_at is before the first event, {known.created_on}")
        return occurred_at.astimezone(UTC)

    def _signed_at(
        self, signed_on: date, occurred_at: datetime | None, deal: Opportunity
    ) -> datetime:
        today = self.clock().astimezone(self.timezone).date()
        opened_on = deal.created_on.astimezone(self.timezone).date()
        if occurred_at is not None or signed_on >= today or signed_on < opened_on:
            return self._at(occurred_at, deal)
        begin, end = self._midnight(signed_on), self._midnight(signed_on + timedelta(days=1))
        if deal.last_occurred_on < end:
            return max(begin, deal.last_occurred_on)
        return max(begin, deal.created_on)

    def _midnight(self, day: date) -> datetime:
        return datetime.combine(day, time.min, tzinfo=self.timezone).astimezone(UTC)
