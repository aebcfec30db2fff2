"""Passive losses: the customer who does not buy any more (R65)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from domain.application import CRM
from domain.customer import Customer
from domain.opportunity import Opportunity
from domain.policies.policy import Cancel, Command, Decision, Happened, Reaction, Timer
from domain.values import Silence


class PassiveLoss(Reaction):
    """A customer in a relationship who has bought nothing for `days` days is lost (R65).

    Orders, contracts and win-backs keep a relationship; one that is recorded late counts from when
    it took place, so it never shortens the time that is left.
    """

    name = "silence"
    version = 1
    topics = (
        Customer.OrderPlaced.TOPIC,
        Customer.RelationshipStarted.TOPIC,
        Customer.WonBack.TOPIC,
        Customer.Churned.TOPIC,
        Opportunity.ContractSigned.TOPIC,
    )

    def __init__(self, days: int) -> None:
        self.days = days
        self._patience = timedelta(days=days)

    @property
    def id(self) -> str:
        return f"{super().id}:{self.days}"

    def react(self, happened: Happened, timer: Timer | None) -> Sequence[Decision]:
        if isinstance(happened.event, Customer.Churned):
            return self._lost(happened, timer)
        due_at = happened.occurred_at + self._patience
        if timer is not None and timer.due_at > due_at:
            return ()
        return (Timer(happened.key, due_at, happened.cause),)

    def _lost(self, happened: Happened, timer: Timer | None) -> Sequence[Decision]:
        if timer is None:
            return ()
        since = self._since(timer)
        if since <= happened.occurred_at:
            return (Cancel(timer.key),)
        if timer.cause.stream_id == timer.key:
            return ()
        # A contract that is later than the loss keeps the relationship, and the customer's own
        # stream does not know of it: it was signed while the loss was being recorded, or before.
        resume = Command(
            CRM.start_relationship,
            timer.key,
            {"opportunity_id": timer.cause.stream_id, "occurred_at": since},
        )
        return (resume,)

    def due(self, timer: Timer) -> Command:
        silence = Silence(
            rule=self.id,
            since=self._since(timer),
            days=self.days,
            event_id=timer.cause.event_id,
        )
        arguments = {"silence": silence, "occurred_at": timer.due_at}
        return Command(CRM.churn_silent, timer.key, arguments)

    def _since(self, timer: Timer) -> datetime:
        return timer.due_at - self._patience
