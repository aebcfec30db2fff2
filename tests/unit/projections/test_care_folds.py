"""Demand, retention and purchases: every order of recording leads to what a fold from scratch
says."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from decimal import Decimal
from random import Random
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.customer import Customer
from domain.opportunity import Opportunity
from domain.values import AlertKind, Money, RepeatType, Severity
from projections.lifecycle.demand import DemandFold
from projections.lifecycle.keeping import RetentionFold
from projections.lifecycle.standings import StandingFold
from projections.projection import Changes, Fact, Fold, KeyState, Row, instant
from tests.integration.projections.story import START, Story, named

FOLDS = (DemandFold(), RetentionFold(), StandingFold())


def caring(seed: int, length: int) -> Story:
    """A customer and a deal, with facts in any order of time."""
    random, story = Random(seed), Story()
    customer = story.customer("acme")
    deal = story.deal("deal", customer, Money(Decimal(1), "CNY"))

    def money() -> Money:
        return Money(Decimal(random.randint(0, 999)) / 100, random.choice(["CNY", "CNY", "EUR"]))

    for number in range(length):
        at = START + timedelta(days=random.randint(0, 20))
        match random.randint(0, 6):
            case 0:
                story.tell(
                    customer, Customer.DemandDescribed, at,
                    repeat_type=random.choice([None, *RepeatType]),
                    cycle_days=random.choice([None, 7]),
                    stock_alert_below=random.choice([None, Decimal("5.5")]),
                )  # fmt: skip
            case 1:
                story.tell(
                    customer, Customer.StockReported, at, level=Decimal(random.randint(0, 9))
                )
            case 2:
                story.tell(
                    customer, Customer.DemandAlerted, at, kind=AlertKind.STOCK, rule="a\tb",
                    due_at=at, event_id=named("event"),
                )  # fmt: skip
            case 3:
                story.tell(
                    customer, Customer.RetentionPlanned, at, worth_keeping=random.random() < 0.5,
                    social_effect=random.choice([None, *Severity]), limit=money(),
                )  # fmt: skip
            case 4:
                story.tell(
                    customer, Customer.RetentionSpent, at, amount=money(), reference=str(number)
                )
            case 5:
                amount = money()
                cost = random.choice([None, amount])
                story.tell(
                    customer,
                    Customer.OrderPlaced,
                    at,
                    order_id=f"\\{number}",
                    amount=amount,
                    cost=cost,
                )
            case _:
                story.of_deal(
                    deal,
                    Opportunity.ContractSigned,
                    at,
                    amount=money(),
                    signed_on=at.date(),
                    cost=None,
                )
    return story


def facts_of(fold: Fold, story: Story) -> dict[UUID, list[Fact]]:
    found: dict[UUID, list[Fact]] = defaultdict(list)
    for event in story.events:
        columns = fold.extract[event.topic](event) if event.topic in fold.extract else None
        if columns is not None:
            assert len(columns) == len(fold.facts.columns), event.topic
            found[fold.key_of(event)].append((instant(event.occurred_at), event.position, *columns))
    return found


def scratch(fold: Fold, facts: list[Fact]) -> list[Row]:
    state = fold.start
    rows: list[Row] = []
    for fact in sorted(facts):
        state, settled = fold.step(state, fact)
        rows += settled
    return sorted([*rows, *state[0]])


@settings(max_examples=60)
@given(seed=st.integers(0, 10**9))
@pytest.mark.parametrize("fold", FOLDS, ids=lambda fold: type(fold).__name__)
def test_every_step_of_knowledge_is_a_fold_from_scratch(fold: Fold, seed: int) -> None:
    for key, facts in facts_of(fold, caring(seed, 40)).items():
        state, changes = KeyState(fold, key), Changes()
        for number, fact in enumerate(facts, 1):
            state.apply(fact, changes)
            assert sorted(entry.row for entry in state.rows()) == scratch(fold, facts[:number])
        for row in scratch(fold, facts):
            width = len(fold.periods[row[0]].values)
            assert len(row[4].split("\t")) == width, row


@settings(max_examples=60)
@given(seed=st.integers(0, 10**9))
def test_what_was_spent_is_the_sum_in_each_currency(seed: int) -> None:
    story = caring(seed, 40)
    spent: dict[str, Decimal] = defaultdict(Decimal)
    for event in story.events:
        if isinstance(event.event, Customer.RetentionSpent):
            spent[event.event.amount.currency] += event.event.amount.value
    for facts in facts_of(RetentionFold(), story).values():
        rows = scratch(RetentionFold(), facts)
        last = {row[1]: Decimal(row[4].split("\t")[3]) for row in rows if row[3] == "infinity"}
        assert {name: last[name] for name in spent} == spent


@settings(max_examples=60)
@given(seed=st.integers(0, 10**9))
def test_every_order_and_the_first_contract_of_a_deal_are_purchases(seed: int) -> None:
    story = caring(seed, 40)
    orders = [e.position for e in story.events if isinstance(e.event, Customer.OrderPlaced)]
    contracts = [e for e in story.events if isinstance(e.event, Opportunity.ContractSigned)]
    first = min(contracts, key=lambda e: (e.occurred_at, e.position), default=None)
    expected = sorted([*orders, *([first.position] if first else [])])
    for facts in facts_of(StandingFold(), story).values():
        rows = scratch(StandingFold(), facts)
        assert sorted(int(row[1]) for row in rows if row[0] == 1) == expected
