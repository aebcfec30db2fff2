"""Attributed and unattributed are the won revenue: per deal and model, at every step of knowledge,
for any history with facts that come late."""

from __future__ import annotations

from decimal import Decimal
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.definitions import AttributionDefinition
from projections.attribution.credits import CreditFold
from tests.unit.projections.attribution.histories import check_sums, random_facts

HISTORIES = 10_000


def shares(count: int) -> st.SearchStrategy[tuple[Decimal, ...]]:
    """So many that sum to 100."""
    cuts = st.lists(st.integers(0, 1_000), min_size=count - 1, max_size=count - 1).map(sorted)
    return cuts.map(
        lambda at: tuple(
            Decimal(after - before) / 10
            for before, after in zip([0, *at], [*at, 1_000], strict=True)
        )
    )


definitions = st.builds(
    AttributionDefinition,
    look_back_days=st.integers(1, 200),
    half_life_days=st.decimals("0.1", 400, places=1),
    u=shares(3),
    w=shares(4),
    full_path=shares(5),
)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**9),
    length=st.integers(1, 30),
    definition=st.one_of(st.just(AttributionDefinition()), definitions),
)
def test_credits_sum_to_the_contract(
    seed: int, length: int, definition: AttributionDefinition
) -> None:
    check_sums(CreditFold(definition), random_facts(Random(seed), length))


@pytest.mark.slow
def test_credits_sum_to_the_contract_in_ten_thousand_histories() -> None:
    random = Random(20260101)
    fold = CreditFold()
    histories = facts = sums = 0
    while histories < HISTORIES:
        told = random_facts(random, random.randint(1, 16))
        sums += check_sums(fold, told)
        histories, facts = histories + 1, facts + len(told)
    print(f"{histories:,} histories, {facts:,} facts, {sums:,} sums")  # noqa: T201
    assert histories == HISTORIES
    assert sums > 10 * HISTORIES
