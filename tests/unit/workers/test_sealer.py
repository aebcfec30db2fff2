"""The sealer's round: what it publishes where, and what it tells when it refuses or cannot."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from infra.metrics import WorkerMetrics
from infra.proof.sealing import Sealed, SealRefused
from workers.sealer import Sealing


class Sealer:
    """Comes to what it is told to."""

    def __init__(self, *outcomes: Sealed | SealRefused) -> None:
        self.outcomes = list(outcomes)

    def seal(self) -> Sealed:
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, SealRefused):
            raise outcome
        return outcome


class Place:
    """Where notes are published, and sometimes cannot be."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.away = False

    def __call__(self, note: str) -> None:
        if self.away:
            raise OSError("away")
        self.notes.append(note)


def told(registry: CollectorRegistry, name: str) -> float | None:
    return registry.get_sample_value(name)


def test_it_goes_on_at_once_only_while_there_is_more() -> None:
    place, registry = Place(), CollectorRegistry()
    sealer = Sealer(
        Sealed(5, 9, "five", added=5),
        Sealed(9, 9, "nine", added=4),
        Sealed(9, 9, "nine"),
        Sealed(9, 20, "nine", elsewhere=True),
    )
    worker = Sealing(sealer, {"here": place}, WorkerMetrics(registry))  # type: ignore[arg-type]
    assert [worker.step() for _ in range(2)] == [True, False]
    assert (told(registry, "seal_position"), told(registry, "seal_lag_events")) == (9, 0)
    assert [worker.step() for _ in range(2)] == [False, False]
    assert told(registry, "seal_lag_events") == 11
    assert place.notes == ["five", "nine"]


def test_a_refusal_is_told_once_in_the_log_and_all_the_while_by_a_metric() -> None:
    registry = CollectorRegistry()
    refusal = SealRefused("events are lost")
    sealer = Sealer(refusal, refusal, SealRefused("another"), Sealed(1, 1, "one", added=1))
    worker = Sealing(sealer, {}, WorkerMetrics(registry))  # type: ignore[arg-type]
    with capture_logs() as lines:
        for _ in range(3):
            assert worker.step() is False
            assert told(registry, "seal_refused") == 1
        assert worker.step() is False
    assert told(registry, "seal_refused") == 0
    assert [line.get("reason", line["event"]) for line in lines if line["event"] != "sealed"] == [
        "events are lost",
        "another",
        "the log is sealed again",
    ]
    with pytest.raises(SealRefused):
        Sealing(Sealer(refusal), {}, WorkerMetrics()).seal()  # type: ignore[arg-type]


def test_a_place_that_is_away_is_tried_again_and_holds_up_no_other() -> None:
    here, away, registry = Place(), Place(), CollectorRegistry()
    away.away = True
    worker = Sealing(Sealer(), {"away": away, "here": here}, WorkerMetrics(registry))  # type: ignore[arg-type]
    with capture_logs() as lines:
        assert [worker.publish("one"), worker.publish("one")] == [False, False]
    assert len(lines) == 1
    assert told(registry, "seal_unpublished") == 1
    assert here.notes == ["one"]
    away.away = False
    assert worker.publish("one") is True
    assert (away.notes, here.notes) == (["one"], ["one"])
    assert told(registry, "seal_unpublished") == 0
