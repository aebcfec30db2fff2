"""Levels: customers in a relationship move as their purchases and payments go, and as time goes by
(R64, R65)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from domain.application import CRM
from domain.customer import Customer
from domain.definitions import LevelDefinition
from domain.opportunity import Opportunity
from domain.policies.account import HINDSIGHT, Account, Judge, instant, moment, span
from domain.policies.policy import Cause, Command, Happened, Judgement, Timer
from domain.values import Level, LevelEvidence

_RULE: Final = re.compile(r"levels/([0-9]+):([0-9]+)(-[0-9a-f]+)?")


@dataclass(slots=True)
class Standing:
    """What the policy remembers of a customer."""

    account: Account = field(default_factory=Account)
    related_on: int | None = None
    """The latest that decides on it: a purchase, start, loss or win-back on its own stream."""
    related: bool = False
    level: Level | None = None
    level_on: int | None = None
    rule: str | None = None
    """By which rule the level was set; None: somebody's judgement."""
    cause: Cause | None = None
    """The last thing that happened, save changes of level."""


class Levels(Judgement[Standing]):
    """Moves each customer in a relationship to the level that the definition says.

    - One time after the other, each dated when it became true: one that is switched on late walks
      through the past, from the last level that was set.
    - A level that somebody set by judgement stays until the rule's own verdict changes. One that an
      earlier version of the rule or definition has set is judged anew from the last thing known of
      the customer; one of a later version, or of another definition of the same version, is left
      like a judgement. So two that run at once do not set a level in turn.
    - What is recorded late counts; levels before the last that was set stay as they are. Only a
      loss and a return that are told late begin a relationship anew, with levels from then on.
    """

    name = "levels"
    version = 1
    topics = (
        Customer.OrderPlaced.TOPIC,
        Customer.PaymentOverdue.TOPIC,
        Customer.PaymentSettled.TOPIC,
        Customer.RelationshipStarted.TOPIC,
        Customer.WonBack.TOPIC,
        Customer.Churned.TOPIC,
        Customer.LevelChanged.TOPIC,
        Opportunity.ContractSigned.TOPIC,
    )

    def __init__(self, definition: LevelDefinition) -> None:
        self._definition = definition
        self._span = span(definition)

    @property
    def id(self) -> str:
        return f"{super().id}:{self._definition.id}"

    def load(self, plain: Mapping[str, Any] | None) -> Standing:
        if plain is None:
            return Standing()
        cause, level = plain["cause"], plain["level"]
        return Standing(
            account=Account.of(plain["account"]),
            related_on=plain["related_on"],
            related=plain["related"],
            level=None if level is None else Level(level),
            level_on=plain["level_on"],
            rule=plain["rule"],
            cause=None if cause is None else Cause.of(cause),
        )

    def dump(self, state: Standing) -> dict[str, Any]:
        return {
            "account": state.account.plain(),
            "related_on": state.related_on,
            "related": state.related,
            "level": None if state.level is None else state.level.value,
            "level_on": state.level_on,
            "rule": state.rule,
            "cause": None if state.cause is None else state.cause.plain(),
        }

    def fold(self, state: Standing, happened: Happened) -> None:
        at, account = instant(happened.occurred_at), state.account
        account.known = max(account.known, at)
        match happened.event:
            case Customer.OrderPlaced(amount=amount, cost=cost):
                account.buy(at, amount, cost)
                self._relate(state, at)
            case Opportunity.ContractSigned(amount=amount, cost=cost):
                account.buy(at, amount, cost)
            case Customer.RelationshipStarted() | Customer.WonBack():
                account.begin(at)
                self._relate(state, at)
            case Customer.Churned():
                account.lose(at)
                if _is_latest(at, state.related_on):
                    state.related, state.related_on, state.level = False, at, None
                elif state.related and account.since is None:
                    account.since = state.related_on
            case Customer.PaymentOverdue(reference=reference, amount=amount):
                account.overdue[reference] = (at, amount)
            case Customer.PaymentSettled(reference=reference):
                account.settled[reference] = at
            case Customer.LevelChanged(level=level, evidence=evidence):
                if _is_latest(at, state.level_on):
                    state.level, state.level_on = level, at
                    state.rule = None if evidence is None else evidence.rule
        if state.cause is None or not isinstance(happened.event, Customer.LevelChanged):
            state.cause = happened.cause
        account.forget(self._span)

    def _relate(self, state: Standing, at: int) -> None:
        """As the customer itself does: who comes, or comes back, is new."""
        if not _is_latest(at, state.related_on):
            return
        if not state.related:
            state.related, state.level, state.level_on, state.rule = True, Level.NEW, at, self.id
        state.related_on = at

    def plan(self, key: UUID, state: Standing) -> Timer | None:
        if state.cause is None or not state.related or state.level_on is None:
            return None
        due = self._next(state, state.level_on)
        return None if due is None else Timer(key, moment(due), state.cause)

    def _next(self, state: Standing, level_on: int) -> int | None:
        """The first instant from the last level on at which another one holds."""
        judge = Judge(state.account, self._definition)
        start = max(level_on, state.account.known - HINDSIGHT)
        if state.rule == self.id:
            stands = state.level
        elif _is_earlier(state.rule, self.id):
            start, stands = max(level_on, state.account.known), state.level
        else:
            stands = judge.at(start).level
        for time in (start, *(each for each in judge.changes() if each > start)):
            level = judge.at(time).level
            if level not in (stands, state.level):
                return time
            stands = level
        return None

    def due(self, timer: Timer, state: Standing) -> Command:
        verdict = Judge(state.account, self._definition).at(instant(timer.due_at))
        evidence = LevelEvidence(self.id, verdict.figures, timer.cause.event_id)
        arguments = {
            "level": verdict.level,
            "evidence": evidence,
            "occurred_at": timer.due_at,
        }
        return Command(CRM.change_level_by_rule, timer.key, arguments)


def _is_latest(at: int, known: int | None) -> bool:
    return known is None or at >= known


def _is_earlier(rule: str | None, than: str) -> bool:
    """Whether it is this policy of an earlier version, or by an earlier version's definition."""
    one, other = (None if each is None else _RULE.fullmatch(each) for each in (rule, than))
    if one is None or other is None:
        return False
    return (int(one[1]), int(one[2])) < (int(other[1]), int(other[2]))
