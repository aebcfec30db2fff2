"""Random histories, at random dates, as known at random positions: every answer of the read models
is that of a slow and separate refold of the raw events.

A few of them here; as many as one likes by `make oracle`, with ARGS="-n 2" on two cores.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from random import Random

import pytest

from projections.catalogue import PROJECTIONS
from projections.summaries import Summarizer
from tests.integration.projections.conftest import Models
from tests.integration.projections.oracle import waterfall
from tests.integration.projections.oracle.histories import histories
from tests.integration.projections.oracle.questions import Asker, moments

pytestmark = pytest.mark.database

SEED = int(os.environ.get("ORACLE_SEED") or 1)
HISTORIES = int(os.environ.get("ORACLE_HISTORIES") or 10_000)
TOGETHER = 1_000
"""Customers in one log."""
MOMENTS = 10
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


KINDS = (
    "rates", "attribution", "attribution by data", "converted attribution", "return", "funnel",
    "converted funnel", "closed", "converted forecast", "learned chances", "forecast learned",
    "forecast half_elapsed", "forecast full_duration", "forecast aged", "durations",
    "durations with a survival median", "flows", "losses", "losses of a level", "declines",
    "cohorts by first_purchase", "cohorts by registration", "buyers", "buyers who bought again",
    "buyers of known cost", "scores", "value in other currencies", "models of buying",
    "models of spending", "customers that may be gone", "one-off customers", "mean values",
    *(f"waterfall {kind}" for kind in ("opening", *waterfall.IN, *waterfall.OUT, "closing")),
)  # fmt: skip
"""Of questions: each run has answers that say something."""


@pytest.mark.parametrize("seed", [1, 4])
def test_every_answer_is_that_of_a_refold(models: Models, seed: int) -> None:
    asker = compare(models, seed, customers=40, times=6)
    assert asker.questions > 1_000
    assert [kind for kind in KINDS if not asker.told[kind]] == []


@pytest.mark.oracle
@pytest.mark.parametrize("number", range(-(-HISTORIES // TOGETHER)))
def test_histories(models: Models, number: int, told: Callable[[str], None]) -> None:
    """Each part is a log of its own, so that any of them may run beside the others or again."""
    customers = min(TOGETHER, HISTORIES - number * TOGETHER)
    began = time.monotonic()
    asker = compare(models, SEED * 100_000 + number, customers, MOMENTS)
    seconds = time.monotonic() - began
    told(
        f"seed {SEED}, part {number + 1}: {customers:,} of {HISTORIES:,} histories,"
        f" {asker.questions:,} answers compared, {len(asker.story.events):,} events,"
        f" {seconds:.0f} s"
    )
    report(
        {
            "seed": SEED,
            "part": number,
            "histories": customers,
            "events": len(asker.story.events),
            "answers": asker.questions,
            "seconds": round(seconds, 1),
            "told": dict(sorted(asker.told.items())),
        }
    )
    # A small last part may lack something.
    missing = [kind for kind in KINDS if not asker.told[kind]] if customers >= 40 else []
    assert missing == []


def report(part: dict[str, object]) -> None:
    """A line of JSON at the end of the file ORACLE_REPORT, if there is one to write; parts that run
    at once do not tear each other's lines."""
    if path := os.environ.get("ORACLE_REPORT"):
        line = json.dumps(part) + "\n"
        with open(path, "ab", buffering=0) as file:
            file.write(line.encode())


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Says something to whoever runs the tests."""

    def tell(line: str) -> None:
        with capsys.disabled():
            print(f"\n{line}", end="", flush=True)  # noqa: T201

    return tell
