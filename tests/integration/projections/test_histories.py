"""Random histories, at random dates, as known at random positions: every answer of the read models
is that of a slow and separate refold of the raw events.

A few of them here; as many as one likes by `make oracle`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from random import Random

import pytest

from projections.catalogue import PROJECTIONS
from projections.summaries import Summarizer
from tests.integration.projections.conftest import Models
from tests.integration.projections.oracle.histories import histories
from tests.integration.projections.oracle.questions import Asker, moments

pytestmark = pytest.mark.database

SEED = int(os.environ.get("ORACLE_SEED") or 1)
HISTORIES = int(os.environ.get("ORACLE_HISTORIES") or 10_000)
TOGETHER = 500
"""Customers in one log."""
MOMENTS = 20
"""That each log is asked about."""


def compare(models: Models, seed: int, customers: int, times: int) -> Asker:
    """The answers about one log, at so many moments. Raises AssertionError."""
    random = Random(seed)
    story = histories(seed, customers)
    models.project(story)
    for projection in PROJECTIONS.values():  # whole blocks are summed up, the end is not
        summarizer = Summarizer(projection, models.pool, schema=models.read, positions=128)
        while summarizer.step():
            pass
    asker = Asker(models, story)
    for moment, start, end in moments(story, random, times):
        asker.ask_all(moment, start, end)
    return asker


@pytest.mark.parametrize("seed", [1, 2])
def test_every_answer_is_that_of_a_refold(models: Models, seed: int) -> None:
    asker = compare(models, seed, customers=40, times=6)
    assert asker.questions > 1_000


@pytest.mark.oracle
@pytest.mark.parametrize("number", range(-(-HISTORIES // TOGETHER)))
def test_histories(
    models: Models, number: int, told: Callable[[str], None], counted: dict[str, int]
) -> None:
    customers = min(TOGETHER, HISTORIES - number * TOGETHER)
    began = time.monotonic()
    asker = compare(models, SEED * 100_000 + number, customers, MOMENTS)
    counted["histories"] += customers
    counted["questions"] += asker.questions
    told(
        f"seed {SEED}: {counted['histories']:,} of {HISTORIES:,} histories,"
        f" {counted['questions']:,} answers compared, the last {customers:,} with"
        f" {len(asker.story.events):,} events in {time.monotonic() - began:.0f} s"
    )


@pytest.fixture(scope="module")
def counted() -> dict[str, int]:
    return {"histories": 0, "questions": 0}


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Says something to whoever runs the tests."""

    def tell(line: str) -> None:
        with capsys.disabled():
            print(f"\n{line}", end="", flush=True)  # noqa: T201

    return tell
