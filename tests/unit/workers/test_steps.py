"""Steps are tried again while the log cannot take them, and only then."""

from __future__ import annotations

import asyncio
from typing import Any, cast
from uuid import uuid4

import pytest

from domain.errors import CustomerNotFound
from infra.commands import (
    Answer,
    Commands,
    KeyInFlight,
    KeyReused,
    StillConflicting,
    StoreUnavailable,
)
from infra.eventstore.records import OutcomeUnknown
from workers import steps
from workers.steps import LogUnreachable, Step, Steps, computed_id

DONE = Answer(200, uuid4(), 1, 1, {})
STEP = Step(lambda target: target, uuid4(), "key", ["content"])


class Prepared:
    """Commands with prepared outcomes."""

    def __init__(self, *outcomes: Answer | Exception) -> None:
        self.outcomes = list(outcomes)
        self.keys: list[str | None] = []

    async def execute(self, decide: Any, *, target: Any, request: Any) -> Answer:
        self.keys.append(request.key)
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "PAUSES", (0.0, 0.0, 0.0))


def do(prepared: Prepared) -> Answer:
    return asyncio.run(Steps(cast(Commands, prepared), b"secret").do(STEP, "somebody"))


@pytest.mark.parametrize(
    "error",
    [StoreUnavailable("down"), OutcomeUnknown("cut"), KeyInFlight(), StillConflicting()],
)
def test_it_is_tried_again_under_the_same_key(error: Exception) -> None:
    prepared = Prepared(error, error, DONE)
    assert do(prepared) == DONE
    assert prepared.keys == ["key"] * 3


def test_in_the_end_it_is_given_up() -> None:
    prepared = Prepared(*[StoreUnavailable("down")] * 4)
    with pytest.raises(LogUnreachable, match="down"):
        do(prepared)
    assert prepared.outcomes == []


@pytest.mark.parametrize("error", [KeyReused(), CustomerNotFound("none")])
def test_a_refusal_is_final(error: Exception) -> None:
    prepared = Prepared(error, DONE)
    with pytest.raises(type(error)):
        do(prepared)
    assert prepared.outcomes == [DONE]


def test_computed_ids_do_not_run_into_each_other() -> None:
    assert computed_id("a", "b") == computed_id("a", "b")
    assert len({computed_id("a", "b"), computed_id("ab"), computed_id("a", "b", "")}) == 3


def test_hashes_are_keyed() -> None:
    commands = cast(Commands, Prepared())
    assert Steps(commands, b"one").hash([1]) != Steps(commands, b"other").hash([1])
