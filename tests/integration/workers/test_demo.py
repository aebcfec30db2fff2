"""The demo company in a log: the same twice, whole after a stop, and nothing doubled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from tests.integration.workers.conftest import Event, Installation
from workers.demo import customers
from workers.steps import LogUnreachable, Steps

pytestmark = pytest.mark.database

UNTIL = date(2025, 3, 1)
YESTERDAY = datetime(2025, 2, 1, 12, tzinfo=UTC)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A company with few customers, where it is not the story that matters."""
    monkeypatch.setattr(customers, "CUSTOMERS", 26)


def unsealed(events: list[Event]) -> list[Event]:
    """Without what encryption makes different each time."""
    personal = ("summary", "detail", "personal_name")
    return [
        replace(
            event,
            state={
                name: None if name in personal or event.kind == "contact-added" else value
                for name, value in event.state.items()
            },
        )
        for event in events
    ]


@pytest.mark.usefixtures("small")
def test_the_same_seed_gives_the_same_events(new_installation: Callable[[], Installation]) -> None:
    one, other = new_installation(), new_installation()
    for installation in (one, other):
        assert installation.demo(seed=5, until=UNTIL) == 0
    events = one.events()
    assert len(events) > 700
    assert unsealed(events) == unsealed(other.events())
    times = [event.occurred_at for event in events]
    assert times == sorted(times)


@pytest.mark.usefixtures("small")
def test_again_and_again(installation: Installation) -> None:
    assert installation.demo(clock=lambda: YESTERDAY) == 0
    before = installation.events()
    later = YESTERDAY + timedelta(days=20)
    assert installation.demo(clock=lambda: later) == 0
    assert "up to 2025-02-01: it was there already" in installation.said
    installation.forget_receipts()
    assert installation.demo(clock=lambda: later) == 0
    assert installation.events() == before
    assert installation.demo(until=UNTIL) == 2
    assert "is there, up to 2025-02-01" in installation.said
    assert installation.demo(seed=2, until=date(2999, 1, 1)) == 2
    assert installation.events() == before


@pytest.mark.usefixtures("small")
def test_it_goes_on_after_a_stop(
    new_installation: Callable[[], Installation], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, halved = new_installation(), new_installation()
    whole.demo(until=UNTIL)

    with monkeypatch.context() as patched:
        do = Steps.do
        given = 0

        async def only_some(self: Steps, *arguments: object) -> object:
            nonlocal given
            given += 1
            if given > 300:
                raise LogUnreachable("as if it had been killed")
            return await do(self, *arguments)  # type: ignore[arg-type]

        patched.setattr(Steps, "do", only_some)
        assert halved.demo(until=UNTIL) == 1
    assert 0 < len(halved.events()) < 400
    assert halved.demo() == 0
    assert unsealed(halved.events()) == unsealed(whole.events())


def test_what_it_is_to_show(installation: Installation) -> None:
    installation.demo(until=UNTIL)
    events = installation.events()
    responses: dict[str, list[datetime]] = {}
    for event in events:
        if event.kind == "campaign-responded":
            responses.setdefault(str(event.stream_id), []).append(event.occurred_at)
    opened = {event.stream_id: event for event in events if event.kind == "opened"}
    touched = untouched = 0.0
    for event in events:
        if event.kind != "contract-signed":
            continue
        opening = opened[event.stream_id]
        value = float(event.state["amount"]["value"])
        look_back = event.occurred_at - timedelta(days=90)
        if any(
            look_back < at <= event.occurred_at
            for at in responses.get(opening.state["customer_id"], [])
        ):
            touched += value
        elif "campaign_id" not in opening.state:
            untouched += value
    assert touched > 0
    assert untouched > 0
    levels = {event.state["level"] for event in events if event.kind == "level-changed"}
    assert levels == {"growing", "stable", "declining", "problem", "no-value"}
    kinds = {event.kind for event in events}
    assert {"churned", "won-back", "relationship-started", "terminated", "archived"} <= kinds
    assert {"rejected", "cancelled", "completed", "payment-overdue", "suspended"} <= kinds
