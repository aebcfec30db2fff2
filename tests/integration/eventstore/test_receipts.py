"""Receipts are kept with the events, and forgotten by age."""

from __future__ import annotations

from datetime import timedelta

import pytest

from infra.eventstore.factory import Factory
from infra.eventstore.recorders import PostgresApplicationRecorder
from tests.integration.eventstore.stepping import Log, envelope, event, receipt

pytestmark = pytest.mark.database


@pytest.fixture
def recorder(log_factory: Factory) -> PostgresApplicationRecorder:
    recorder = log_factory.application_recorder()
    assert isinstance(recorder, PostgresApplicationRecorder)
    return recorder


def test_a_receipt_comes_back_with_its_position(recorder: PostgresApplicationRecorder) -> None:
    given = receipt("key")
    assert recorder.receipt("tester", "key") is None
    recorder.insert_events([event(), event()], receipt=given, envelope=envelope())
    assert recorder.receipt("tester", "key") == receipt("key", id=given.id, position=2)
    assert recorder.receipt("other", "key") is None


def test_without_events_the_position_is_the_end_of_the_log(
    recorder: PostgresApplicationRecorder, log: Log
) -> None:
    recorder.insert_events([event()])
    assert recorder.insert_events([], receipt=receipt("key"), envelope=envelope()) == []
    kept = recorder.receipt("tester", "key")
    assert kept is not None
    assert kept.position == 1
    assert log.check() == 1


def test_receipts_are_forgotten_by_age_only(
    recorder: PostgresApplicationRecorder, log: Log
) -> None:
    ages = {"old": timedelta(days=31), "middling": timedelta(days=29), "new": timedelta()}
    for key, age in ages.items():
        recorder.insert_events([event()], receipt=receipt(key), envelope=envelope())
        log.rows("UPDATE receipts SET recorded_at = recorded_at - %s WHERE key = %s", [age, key])
    assert recorder.forget_receipts(30) == 1
    assert log.rows("SELECT key FROM receipts ORDER BY key") == [("middling",), ("new",)]
    assert recorder.forget_receipts(30) == 0
    assert log.check() == 3  # the events stay
