"""States after any event and at any date, what made them differ, and a command's causes."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

import pytest

from api.tokens import Scope
from infra.commands import LoopRepository
from infra.ids import event_id
from tests.e2e.api.making import amount, customer, deal
from tests.e2e.api.running import Client, Product

BEGUN = datetime(2026, 1, 1, 9, tzinfo=UTC)


def on(day: int) -> str:
    return (BEGUN + timedelta(days=day)).isoformat()


@pytest.fixture
def sold(admin: Client) -> str:
    """A deal: opened on day 0, bid on day 10, to seller-2 on day 20; and told last of all, that on
    day 5 it had gone to seller-9 and its amount been raised."""
    owner = customer(admin, occurred_at=on(-1))
    made = deal(admin, customer_id=owner, owner="seller-1", occurred_at=on(0))
    path = f"/v1/opportunities/{made}"
    admin.done(f"{path}/stage", {"stage": "bid", "occurred_at": on(10), "reason": "tender"})
    admin.done(f"{path}/transfer", {"owner": "seller-2", "occurred_at": on(20)})
    admin.done(f"{path}/transfer", {"owner": "seller-9", "occurred_at": on(5)})
    admin.done(f"{path}/amount", {"amount": amount("7000.00"), "occurred_at": on(5)})
    return made


def state(client: Client, stream: str, **parameters: Any) -> dict[str, Any]:
    response = client.get(f"/v1/audit/streams/{stream}/state", params=parameters)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_after_each_event_as_the_write_side_had_it(
    admin: Client, product: Product, sold: str
) -> None:
    seen = [state(admin, sold, version=n) for n in range(1, 6)]
    assert [one["state"]["owner"] for one in seen] == [
        "seller-1", "seller-1", "seller-2", "seller-9", "seller-9"
    ]  # fmt: skip
    assert [one["state"]["stage"] for one in seen] == ["prospect", "bid", "bid", "bid", "bid"]
    assert [one["version"] for one in seen] == [one["events"] for one in seen] == [1, 2, 3, 4, 5]
    assert state(admin, sold) == seen[-1] == state(admin, sold, version=99)
    kept: Any = LoopRepository.load(cast(LoopRepository, product.crm.repository), UUID(sold))
    assert (seen[-1]["state"]["owner"], seen[-1]["version"]) == (kept.owner, kept.version)
    assert seen[-1]["state"]["amount"] == amount(str(kept.amount.value))


def test_as_of_a_date_a_fact_told_late_takes_its_place(admin: Client, sold: str) -> None:
    owners = {4: "seller-1", 5: "seller-9", 15: "seller-9", 20: "seller-2", 30: "seller-2"}
    for day, owner in owners.items():
        assert state(admin, sold, as_of=on(day))["state"]["owner"] == owner
    assert state(admin, sold, as_of=on(4))["state"]["amount"] == amount("1000.00")
    late = state(admin, sold, as_of=on(5))
    assert (late["events"], late["version"], late["last_event"]["version"]) == (3, 5, 5)
    assert late["state"]["stage"] == "prospect"
    assert admin.get(f"/v1/audit/streams/{sold}/state", params={"as_of": on(-1)}).status_code == 404


def test_it_is_what_the_read_model_says(admin: Client, sold: str) -> None:
    for day in (0, 4, 5, 9, 10, 20, 25):
        read = admin.read(f"/v1/opportunities/{sold}", as_of=on(day))
        folded = state(admin, sold, as_of=on(day))["state"]
        assert {n: folded[n] for n in ("stage", "owner", "amount", "status")} == {
            n: read[n] for n in ("stage", "owner", "amount", "status")
        }


def test_as_known_then(admin: Client, sold: str) -> None:
    items = admin.get(f"/v1/audit/streams/{sold}").json()["items"]
    positions = [item["position"] for item in items]
    then = state(admin, sold, as_of=on(15), known_at=positions[2])
    assert (then["state"]["owner"], then["position"]) == ("seller-1", positions[1])
    assert state(admin, sold, known_at=positions[2])["state"]["owner"] == "seller-2"
    recorded = admin.get(f"/v1/audit/streams/{sold}").json()["items"][2]["recorded_at"]
    assert state(admin, sold, known_at=recorded)["events"] == 3


def differences(client: Client, stream: str, **parameters: Any) -> dict[str, dict[str, Any]]:
    renamed = {name.rstrip("_"): value for name, value in parameters.items()}
    response = client.get(f"/v1/audit/streams/{stream}/difference", params=renamed)
    assert response.status_code == 200, response.text
    return {one["what"]: one for one in response.json()["differences"]}


def test_what_changed_between_versions(admin: Client, sold: str) -> None:
    found = differences(admin, sold, from_=1, to=5)
    assert {what: one["words"] for what, one in found.items()} == {
        "stage": "stage: prospect → bid, by rep-1 on 2026-01-11, reason: tender",
        "owner": "owner: seller-1 → seller-9, by rep-1 on 2026-01-06",
        "amount": "amount: 1000.00 CNY → 7000.00 CNY, by rep-1 on 2026-01-06",
    }
    assert [one["version"] for one in found["owner"]["made_by"]] == [3, 4]
    assert (found["amount"]["before"], found["amount"]["after"]) == (
        amount("1000.00"),
        amount("7000.00"),
    )
    assert differences(admin, sold, from_=3, to=3) == {}
    begun = differences(admin, sold, from_=0, to=1)
    assert begun["status"]["words"] == "status: nothing → open, by rep-1 on 2026-01-01"
    assert begun["owner"]["words"] == "owner: nothing → seller-1, by rep-1 on 2026-01-01"


def test_what_changed_between_dates(admin: Client, sold: str) -> None:
    found = differences(admin, sold, from_=on(5), to=on(30))
    assert {what: one["words"] for what, one in found.items()} == {
        "stage": "stage: prospect → bid, by rep-1 on 2026-01-11, reason: tender",
        "owner": "owner: seller-9 → seller-2, by rep-1 on 2026-01-21",
    }
    position = admin.get(f"/v1/audit/streams/{sold}").json()["items"][2]["position"]
    then = differences(admin, sold, from_=on(5), to=on(30), known_at=position)
    assert then["owner"]["words"] == "owner: seller-1 → seller-2, by rep-1 on 2026-01-21"


def test_what_changed_and_back_is_no_difference(admin: Client) -> None:
    made = deal(admin, owner="seller-1")
    for owner in ("seller-2", "seller-1"):
        admin.done(f"/v1/opportunities/{made}/transfer", {"owner": owner})
    assert differences(admin, made, from_=1, to=3) == {}
    assert len(differences(admin, made, from_=1, to=2)["owner"]["made_by"]) == 1


def test_places_inside_a_thing(admin: Client, product: Product) -> None:
    owner = customer(admin, attributes={"size": 7, "tier": "gold"})
    path = f"/v1/customers/{owner}"
    admin.done(f"{path}/orders", {"order_id": "A-1", "amount": amount("12.50", "EUR")})
    admin.done(f"{path}/profile", {"attributes": {"size": 8}, "removed_attributes": ["tier"]})
    admin.done(f"{path}/contacts", {"name": "Zhang San", "role": "coach"})
    found = differences(admin, owner, from_=1, to=4)
    told = {what: one["words"].partition(", by")[0] for what, one in found.items()}
    assert told["orders.A-1"] == "orders.A-1: nothing → 12.50 EUR"
    assert told["attributes.size"] == "attributes.size: 7 → 8"
    assert told["attributes.tier"] == "attributes.tier: gold → nothing"
    assert told["contacts.1.name"] == "contacts.1.name: nothing → Zhang San"
    assert told["type"] == "type: prospect → relationship"
    with product.client(Scope.AUDIT) as auditor:
        hidden = differences(auditor, owner, from_=1, to=4)
        assert hidden["contacts.1.name"]["after"] == "[personal]"
        assert "Zhang" not in hidden["contacts.1.name"]["words"]


def test_a_person_renamed_differs_though_nobody_reads_the_name(
    admin: Client, product: Product
) -> None:
    person = customer(admin, name="Li Si", kind="person")
    admin.done(f"/v1/customers/{person}/profile", {"name": "Li Wu"})
    with product.client(Scope.AUDIT) as auditor:
        assert differences(auditor, person, from_=1, to=2)["personal_name"]["words"].startswith(
            "personal_name: [personal] → [personal], by rep-1"
        )
    assert differences(admin, person, from_=1, to=2)["personal_name"]["after"] == "Li Wu"


def test_a_command_with_its_cause_and_effects(admin: Client, product: Product) -> None:
    made = deal(admin)
    path = f"/v1/opportunities/{made}"
    key = uuid.uuid4().hex
    cause = {"X-Causation-ID": str(event_id(made, 1))}
    admin.command(f"{path}/stage", {"stage": "bid"}, key=key, headers=cause)
    effect = {"X-Causation-ID": str(event_id(made, 2))}
    admin.command(f"{path}/transfer", {"owner": "seller-3"}, headers=effect)
    first, moved, given = admin.get(f"/v1/audit/streams/{made}").json()["items"]
    assert moved["caused_by"] == {
        "id": first["event_id"],
        "stream_id": made,
        "version": 1,
    }
    admin.read(path)  # waits until the read model has it

    trace = admin.get(f"/v1/audit/commands/{moved['command_id']}").json()
    assert [event["position"] for event in trace["events"]] == [moved["position"]]
    (receipt,) = trace["receipts"]
    assert (receipt["key"], receipt["scope"], receipt["status"]) == (key, "rep-1", 200)
    assert receipt["position"] == moved["position"]
    assert (trace["caused_by"]["kind"], trace["caused_by"]["event"]) == ("event", first)
    (caused,) = trace["caused"]
    assert caused["command_id"] == given["command_id"]
    assert [event["position"] for event in caused["events"]] == [given["position"]]
    assert trace["read_models"].keys() == {"customers", "funnel", "lifecycle", "attribution"}
    funnel = trace["read_models"]["funnel"]
    assert funnel["visible"]
    assert funnel["position"] >= moved["position"]

    product.pausing.set()
    try:
        late = admin.done(f"{path}/transfer", {"owner": "seller-4"})
        items = admin.get(f"/v1/audit/streams/{made}").json()["items"]
        trace = admin.get(f"/v1/audit/commands/{items[-1]['command_id']}").json()
        assert trace["events"][0]["position"] == late["position"]
        assert not trace["read_models"]["funnel"]["visible"]
        assert trace["caused_by"] is None
    finally:
        product.pausing.clear()


def test_causes_by_command_and_by_what_is_not_here(admin: Client) -> None:
    made = deal(admin)
    (first,) = admin.get(f"/v1/audit/streams/{made}").json()["items"]
    elsewhere = str(uuid.uuid4())
    for cause in (first["command_id"], elsewhere):
        admin.command(
            f"/v1/opportunities/{made}/transfer",
            {"owner": cause},
            headers={"X-Causation-ID": cause},
        )
    _, by_command, unknown = admin.get(f"/v1/audit/streams/{made}").json()["items"]
    trace = admin.get(f"/v1/audit/commands/{by_command['command_id']}").json()
    assert (trace["caused_by"]["kind"], trace["caused_by"]["event"]) == ("command", first)
    trace = admin.get(f"/v1/audit/commands/{unknown['command_id']}").json()
    assert trace["caused_by"] == {"id": elsewhere, "kind": "unknown", "event": None}
    trace = admin.get(f"/v1/audit/commands/{first['command_id']}").json()
    assert [one["command_id"] for one in trace["caused"]] == [by_command["command_id"]]
