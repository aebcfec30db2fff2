"""One customer with thousands of touches and deals: neither memory nor work grows with the square,
and what states share shows in none of them."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from datetime import datetime, timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projections.attribution.credits import CreditFold
from projections.attribution.models import RuleModels
from projections.projection import NULL, Changes, Fact, KeyState, Row, instant
from tests.integration.projections.story import START
from tests.unit.projections.attribution.histories import (
    CAMPAIGNS,
    CUSTOMER,
    DEALS,
    random_facts,
)

MEGABYTE = 1 << 20


def touch(position: int, at: datetime) -> Fact:
    none = (NULL,) * 3
    columns = ("campaign-responded", CAMPAIGNS[0], NULL, "web", "click", *none)
    return (instant(at), position, *columns)


def win(position: int, at: datetime, deal: str) -> Fact:
    columns = ("contract-signed", NULL, deal, NULL, NULL, "10.00", "CNY", "2024-01-01")
    return (instant(at), position, *columns)


def memory_of(facts: Sequence[Fact]) -> int:
    """Bytes that the customer's state holds after them."""
    state = KeyState(CreditFold(), CUSTOMER)
    tracemalloc.start()
    try:
        for fact in facts:
            state.apply(fact, Changes())
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def test_memory_of_many_touches_within_the_look_back() -> None:
    facts = [touch(at, START + timedelta(minutes=at)) for at in range(1, 3001)]
    assert memory_of(facts) < 10 * MEGABYTE


def test_memory_of_many_won_deals() -> None:
    facts = [win(at, START + timedelta(days=at), f"deal {at}") for at in range(1, 2001)]
    assert memory_of(facts) < 15 * MEGABYTE


def test_a_win_leaves_the_credits_of_others_at_the_same_instant_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []
    credits = RuleModels.credits

    def counted(self: RuleModels, units: int, *rest: Any) -> list[list[int]]:
        asked.append(units)
        return credits(self, units, *rest)

    monkeypatch.setattr(RuleModels, "credits", counted)
    state = KeyState(CreditFold(), CUSTOMER)
    state.apply(touch(1, START), Changes())
    for number in range(2, 102):
        state.apply(win(number, START, f"deal {number}"), Changes())
    assert len(asked) == 100
    state.apply(touch(102, START), Changes())  # this changes all of them
    assert len(asked) == 200
    assert len(state.rows()) == 200


def folded(facts: Sequence[Fact]) -> set[Row]:
    """Once through, in the order of time."""
    fold = CreditFold()
    rows: list[Row] = []
    state = fold.start
    for fact in sorted(facts):
        state, settled = fold.step(state, fact)
        rows += settled
    return {*rows, *state[0]}


@settings(max_examples=100)
@given(seed=st.integers(0, 10**9), length=st.integers(1, 40))
def test_what_is_known_is_what_one_pass_in_the_order_of_time_finds(seed: int, length: int) -> None:
    facts = random_facts(Random(seed), length)
    state = KeyState(CreditFold(), CUSTOMER)
    for number, fact in enumerate(facts, 1):
        state.apply(fact, Changes())
        assert {entry.row for entry in state.rows()} == folded(facts[:number])


@pytest.mark.parametrize("other", [DEALS[1:2], DEALS[2:]], ids=["fewer", "as many"])
def test_states_of_other_deals_differ(other: list[str]) -> None:
    """They are told apart by what they hold, also where they share memory."""
    fold = CreditFold()
    one, two = fold.start, fold.start
    for number, deal in enumerate(DEALS[:2], 1):
        one, _ = fold.step(one, win(number, START, deal))
    for number, deal in enumerate(other, 1):
        two, _ = fold.step(two, win(number, START, deal))
    assert one[-1] != two[-1]
    assert DEALS[0] in one[-1]
    assert DEALS[0] not in two[-1]
