"""Features and rules of the decision tree: what it may take, and what it says of its leaves."""

from __future__ import annotations

from itertools import count
from random import Random
from typing import Any
from uuid import UUID

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from projections.lifecycle.segments import COLUMNS, MOST_VALUES, Features, Leaf, Profile, grown


def tree(
    profiles: list[Profile], labels: list[int], others: list[Profile] | None = None, **more: int
) -> list[Leaf]:
    features = Features()
    for profile in profiles:
        features.count(profile)
    features.choose()
    numbers = count(1)
    scored = {UUID(int=next(numbers)): profile for profile in others or []}
    rows = features.matrix(profiles)
    options = {"depth": 4, "least": 2, **more}
    batches = [scored] if scored else []
    return grown(features, rows, np.array(labels), batches, **options)  # type: ignore[arg-type]


def holds(rule: str, profile: Profile) -> bool:
    """As a reader of the rule would see it."""
    name, relation, *rest = rule.split(" ", 2)
    value: Any = profile.get(name)
    number = None if isinstance(value, str) else value
    if relation == "≤":
        limit, _, unknown = rest[0].partition(" ")
        return bool(unknown) if number is None else number <= float(limit)
    if relation == ">":
        return number is not None and number > float(rest[0])
    if rest[0] in ("known", "not known"):
        return (number is None) == (rest[0] == "not known")
    negated = rest[0].startswith("not ")
    return (value == rest[0].removeprefix("not ")) != negated


VALUES = st.integers(-3, 3).map(float) | st.sampled_from(["north", "south", "east"])
PROFILES = st.lists(
    st.dictionaries(st.sampled_from(["attributes.a", "attributes.b", "spent"]), VALUES),
    min_size=6,
    max_size=30,
)


@given(PROFILES, PROFILES, st.randoms(use_true_random=False))
def test_everybody_is_in_the_leaf_whose_rule_holds(
    profiles: list[Profile], others: list[Profile], random: Random
) -> None:
    for profile in (*profiles, *others):
        profile["spent"] = 1.0  # always known
    leaves = tree(profiles, [random.randrange(2) for _ in profiles], others)
    assert sum(leaf.customers for leaf in leaves) == len(profiles)
    assert sum(leaf.others for leaf in leaves) == len(others)
    for leaf in leaves:
        fit = [all(holds(rule, profile) for rule in leaf.rule) for profile in profiles]
        assert sum(fit) == leaf.customers, leaf.rule
        for member in leaf.members:
            assert all(holds(rule, others[member.int - 1]) for rule in leaf.rule), leaf.rule


def test_a_negative_number_is_known() -> None:
    profiles: list[Profile] = [{"attributes.balance": float(n)} for n in range(-5, 5)]
    leaves = tree(profiles, [int(n < -1) for n in range(-5, 5)], [{}])
    assert {leaf.rule for leaf in leaves} == {
        ("attributes.balance ≤ -1.5 or not known",),
        ("attributes.balance > -1.5",),
    }


def test_attributes_of_any_names_and_texts_take_bounded_memory() -> None:
    features = Features()
    for customer in range(3_000):
        own: Profile = {f"attributes.{customer}-{n}": float(n) for n in range(3)}
        features.count(
            {"spent": 1.0, "region": f"r{customer % 50}", "attributes.id": f"#{customer}", **own}
        )
    features.choose()
    assert len(features.columns) <= COLUMNS
    assert ("spent", None) in features.columns
    regions = [text for name, text in features.columns if name == "region"]
    assert len(regions) == MOST_VALUES
    assert len(features._numbers) + len(features._texts) < 5_000


def test_long_texts_are_left_out_and_constants_ask_nothing() -> None:
    profiles: list[Profile] = [{"attributes.story": "x" * 500, "region": "r"} for _ in range(10)]
    (leaf,) = tree(profiles, [0, 1] * 5)
    assert (leaf.rule, leaf.customers, leaf.reached) == ((), 10, 5)
