"""The engine of both times, on every fold: late facts, and what was known when."""

from __future__ import annotations

import gc
from collections import defaultdict
from datetime import timedelta
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projections.attribution.credits import CreditFold
from projections.catalogue import PROJECTIONS
from projections.collector import CollectorPause
from projections.lifecycle import StandingFold
from projections.projection import (
    NULL,
    Changes,
    Entry,
    Fact,
    Fold,
    KeyState,
    Row,
    fact_line,
    instant,
    text,
)
from tests.integration.projections.story import START, Story, named
from tests.integration.projections.strategies import NASTY, random_story

FOLDS = [fold for projection in PROJECTIONS.values() for fold in projection.folds]


def facts_of(fold: Fold, story: Story) -> dict[UUID, list[Fact]]:
    found: dict[UUID, list[Fact]] = defaultdict(list)
    for event in story.events:
        extract = fold.extract.get(event.topic)
        columns = extract(event) if extract else None
        if columns is not None:
            assert len(columns) == len(fold.facts.columns), event.topic
            fact = (instant(event.occurred_at), event.position, *columns)
            found[fold.key_of(event)].append(fact)
    return found


def scratch(fold: Fold, facts: list[Fact]) -> list[Row]:
    """The rows of facts folded from nothing, in their order of time."""
    state = fold.start
    rows: list[Row] = []
    for fact in sorted(facts):
        state, settled = fold.step(state, fact)
        rows += settled
    return sorted([*rows, *state[0]])


def known_at(entries: list[Entry], position: int) -> list[Row]:
    return sorted(e.row for e in entries if e.known_from <= position < e.known_to)


@settings(max_examples=80)
@given(seed=st.integers(0, 10**9), late=st.sampled_from([0.0, 0.3, 0.9]))
def test_every_step_of_knowledge_is_a_fold_from_scratch(seed: int, late: float) -> None:
    story = random_story(seed, 60, customers=2, late=late)
    for fold in FOLDS:
        for key, facts in facts_of(fold, story).items():
            state, changes = KeyState(fold, key), Changes()
            for number, fact in enumerate(facts, 1):
                state.apply(fact, changes)
                rows = scratch(fold, facts[:number])
                assert sorted(entry.row for entry in state.rows()) == rows
                assert known_at(changes.added, fact[1]) == rows
            # What was known at any earlier position still is what was folded then.
            for number, fact in enumerate(facts, 1):
                assert known_at(changes.added, fact[1]) == scratch(fold, facts[:number])


@settings(max_examples=40)
@given(seed=st.integers(0, 10**9))
def test_rows_of_one_item_never_overlap_in_either_time(seed: int) -> None:
    story = random_story(seed, 80, customers=2)
    for fold in FOLDS:
        for key, facts in facts_of(fold, story).items():
            state, changes = KeyState(fold, key), Changes()
            for fact in facts:
                state.apply(fact, changes)
            for row in state.rows():
                assert row.row[2] <= row.row[3]
            for i, one in enumerate(changes.added):
                assert one.known_from < one.known_to
                for other in changes.added[i + 1 :]:
                    if one.row[:2] != other.row[:2]:
                        continue
                    both_known = one.known_from < other.known_to and other.known_from < one.known_to
                    both_true = one.row[2] < other.row[3] and other.row[2] < one.row[3]
                    assert not (both_known and both_true), (one.row, other.row)


def test_a_step_that_fails_changes_nothing() -> None:
    class Picky(StandingFold):
        def step(self, state, fact):
            if fact[2] == "order-placed":
                raise ValueError("not this one")
            return super().step(state, fact)

    state, changes = KeyState(Picky(), named("x")), Changes()
    state.apply(("2024-01-01 00:00:00+00:00", 1, "registered", NULL, "true", *[NULL] * 4), changes)
    before = [(e.row, e.known_from) for e in state.rows()]
    for at in ("2024-02-01 00:00:00+00:00", "2023-02-01 00:00:00+00:00"):
        with pytest.raises(ValueError, match="not this one"):
            state.apply((at, 2, "order-placed", *[NULL] * 6), changes)
    assert [(e.row, e.known_from) for e in state.rows()] == before
    assert len(state.facts) == 1


def test_the_collector_runs_again_when_nobody_holds_it_off() -> None:
    one, other = CollectorPause(), CollectorPause()
    one.hold()
    other.hold()
    one.done(more=False)
    assert not gc.isenabled()
    other.done(more=True)
    assert not gc.isenabled()
    other.release()
    other.release()
    assert gc.isenabled()
    batches = 0
    while batches == 0 or not gc.isenabled():
        one.hold()
        batches += 1
        one.done(more=True)
    assert batches == 10


def late_responses(count: int) -> tuple[Story, UUID]:
    story = Story()
    customer = story.customer("acme", START)
    campaign = story.campaign("fair", START)
    for number in range(count):
        story.respond(customer, campaign, START + timedelta(days=500, hours=number))
    for number in range(count):
        story.respond(customer, campaign, START + timedelta(days=100, hours=number))
    return story, customer


@pytest.mark.parametrize("fold", [StandingFold(), CreditFold()], ids=["lifecycle", "attribution"])
def test_a_long_list_that_comes_late_is_not_quadratic(fold: Fold) -> None:
    """Counted in steps, so that the machine's load does not matter."""
    steps = 0

    class Counting(type(fold)):  # type: ignore[misc]
        def step(self, state, fact):
            nonlocal steps
            steps += 1
            return super().step(state, fact)

    story, customer = late_responses(500)
    counting = Counting()
    state, changes = KeyState(counting, customer), Changes()
    for fact in facts_of(counting, story)[customer]:
        state.apply(fact, changes)
    assert steps < 3 * len(state.facts)


def test_texts_for_copy_keep_instants_in_order() -> None:
    instants = [
        START + timedelta(microseconds=offset)
        for offset in (0, 1, 999_999, 1_000_000, 1_500_000, 86_400_000_000)
    ]
    assert sorted(map(instant, instants)) == [instant(one) for one in instants]


@pytest.mark.parametrize("value", [*NASTY, "\r", "\x0b", "\u2028"])
def test_escaped_text_has_no_separators(value: str) -> None:
    escaped = text(value)
    assert not set("\t\n\r") & set(escaped)
    assert (escaped == r"\N") == (value is None)


def test_a_fact_is_one_line() -> None:
    line = fact_line("key", ("2024-01-01 00:00:00+00:00", 7, text("a\tb"), text(None)))
    assert line == "key\t2024-01-01 00:00:00+00:00\t7\ta\\tb\t\\N"
