"""The demo company in a log: the same twice, whole after a stop, and nothing doubled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import pytest

from domain.definitions import BUILT_IN
from domain.policies.demand import Demand
from domain.policies.levels import Levels
from infra.ids import event_id
from tests.integration.workers.conftest import Event, Installation
from workers.demo import customers
from workers.policies import Policy, policing
from workers.steps import LogUnreachable, Steps
from workers.wiring import Databases, Ledger, ledger

pytestmark = pytest.mark.database

UNTIL = date(2025, 3, 1)
YESTERDAY = datetime(2025, 2, 1, 12, tzinfo=UTC)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A company with few customers, where it is not the story that matters."""
    monkeypatch.setattr(customers, "CUSTOMERS", 26)


def unsealed(events: list[Event]) -> list[Event]:
    """Without what encryption makes different each time."""
    personal = ("summary", "detail", "personal_name", "personal_attributes")
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


@pytest.mark.usefixtures("small")
def test_rates_that_others_quote_stay_as_they_are(installation: Installation) -> None:
    def rates() -> set[object]:
        return {event.stream_id for event in installation.events() if event.kind == "recorded"}

    assert installation.demo(seed=1, until=UNTIL) == 0
    quoted = installation.events("crm.exchange-rate.")
    assert len(rates()) == 2
    assert installation.demo(seed=2, until=UNTIL - timedelta(days=40)) == 0
    assert installation.events("crm.exchange-rate.") == quoted
    assert installation.demo(seed=2) == 0
    assert "it was there already" in installation.said


@pytest.mark.usefixtures("small")
def test_evidence_leads_to_the_event_it_rests_on(installation: Installation) -> None:
    """What was rehearsed is what has become of it."""
    assert installation.demo(until=UNTIL) == 0
    events = installation.events()
    ids = {event_id(event.stream_id, event.version): event for event in events}
    ruled = [event for event in events if "rule" in str(event.state)]
    assert {event.kind for event in ruled} == {"level-changed", "demand-alerted"}
    for event in ruled:
        rests_on = event.state["evidence"] if event.kind == "level-changed" else event.state
        assert ids[UUID(rests_on["event_id"])].occurred_at <= event.occurred_at


@pytest.mark.usefixtures("small")
def test_the_policies_find_it_as_they_would_have_left_it(installation: Installation) -> None:
    assert installation.demo(until=UNTIL) == 0
    before = installation.events()
    end = datetime(2025, 3, 1, tzinfo=UTC)
    addresses = Databases(installation.url, installation.url)
    left = (
        "SELECT (SELECT count(*) FROM log.policy_position WHERE position >= (SELECT max(position)"
        " FROM log.events WHERE topic = 'crm.customer.order-placed')) < 2 OR EXISTS (SELECT FROM"
        f" log.policy_timer WHERE due_at < '{end.isoformat()}')"
    )

    async def run(book: Ledger) -> None:
        both: list[Policy] = [Levels(BUILT_IN.levels), Demand()]
        async with policing(both, addresses, book) as workers:
            heard = book.doorbell.rings
            while installation.query(left)[0][0]:
                assert all(worker.is_alive() for worker in workers)
                await asyncio.to_thread(book.doorbell.wait, heard, 0.2)
                heard = book.doorbell.rings
        await book.commands.close()

    with ledger(installation.settings(), addresses, lambda: end) as book:
        asyncio.run(run(book))
    assert installation.events() == before


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
    assert levels == {"new", "growing", "stable", "declining", "problem", "no-value"}
    causes = {event.state["cause"] for event in events if event.kind == "churned"}
    assert len(causes) >= 4
    kinds = {event.kind for event in events}
    assert {"churned", "won-back", "relationship-started", "terminated", "archived"} <= kinds
    assert {"demand-described", "stock-reported", "demand-alerted"} <= kinds
    assert {"delivered", "team-changed"} <= kinds
    assert {"retention-planned", "retention-spent", "attendance-recorded"} <= kinds
    assert {"rejected", "cancelled", "completed", "payment-overdue", "suspended"} <= kinds
