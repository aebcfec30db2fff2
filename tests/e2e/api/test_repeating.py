"""A command is done once, however often it is sent; a conflict is told, never merged."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from api.tokens import Scope
from tests.e2e.api.making import amount, customer, deal
from tests.e2e.api.running import Client, Product


def kind(response: httpx.Response) -> str:
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == response.status_code
    return str(problem["type"]).removeprefix("urn:crm-ledger:problem:")


def test_a_creation_says_where_the_new_thing_is(admin: Client) -> None:
    response = admin.command("/v1/customers", {"name": "ACME"})
    answer = response.json()
    assert response.status_code == 201
    assert answer.keys() == {"id", "version", "position"}
    assert response.headers["etag"] == '"1"'
    assert response.headers["location"] == f"/v1/customers/{answer['id']}"
    assert admin.read(response.headers["location"])["name"] == "ACME"


def test_a_repeated_creation_makes_one(admin: Client) -> None:
    name, key = uuid.uuid4().hex, uuid.uuid4().hex
    first, again = (admin.command("/v1/customers", {"name": name}, key=key) for _ in range(2))
    assert again.json() == first.json()
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    assert len(admin.read("/v1/customers", name=name)["items"]) == 1


def test_a_repeated_contact_is_the_same_contact(admin: Client) -> None:
    path, key = f"/v1/customers/{customer(admin)}/contacts", uuid.uuid4().hex
    first, again = (admin.command(path, {"name": "Zhang San"}, key=key) for _ in range(2))
    assert first.status_code == 201
    assert again.json() == first.json()
    assert uuid.UUID(first.json()["contact_id"])


def test_a_repetition_is_answered_as_at_first_though_the_state_has_moved_on(
    admin: Client,
) -> None:
    path, key = f"/v1/opportunities/{deal(admin)}", uuid.uuid4().hex
    headers = {"If-Match": '"1"'}
    first = admin.command(f"{path}/stage", {"stage": "bid"}, key=key, headers=headers)
    admin.done(f"{path}/loss", {"cause": "price", "competitor": "none"})
    again = admin.command(f"{path}/stage", {"stage": "bid"}, key=key, headers=headers)
    assert (again.status_code, again.json()) == (200, first.json())


@pytest.mark.parametrize(
    "other", [{"stage": "negotiation"}, {"stage": "bid", "reason": "asked by the customer"}]
)
def test_the_same_key_with_another_body_is_refused(admin: Client, other: dict[str, Any]) -> None:
    path, key = f"/v1/opportunities/{deal(admin)}/stage", uuid.uuid4().hex
    admin.command(path, {"stage": "bid"}, key=key)
    response = admin.command(path, other, key=key)
    assert (response.status_code, kind(response)) == (422, "key-reused")


def test_the_same_key_on_another_path_or_with_if_match_is_refused(admin: Client) -> None:
    one, other, key = deal(admin), deal(admin), uuid.uuid4().hex
    assert admin.command(f"/v1/opportunities/{one}/suspend", key=key).status_code == 200
    for path, headers in (
        (f"/v1/opportunities/{other}/suspend", {}),
        (f"/v1/opportunities/{one}/resume", {}),
        (f"/v1/opportunities/{one}/suspend", {"If-Match": '"1"'}),
    ):
        response = admin.command(path, key=key, headers=headers)
        assert (response.status_code, kind(response)) == (422, "key-reused")


def test_keys_of_other_principals_are_other_keys(product: Product) -> None:
    key = uuid.uuid4().hex
    answers = []
    for subject in ("rep-1", "rep-2"):
        with product.client(Scope.COMMAND, subject=subject) as client:
            answers.append(client.command("/v1/customers", {"name": subject}, key=key))
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json()["id"] != answers[1].json()["id"]


def test_a_refused_command_leaves_its_key_free(admin: Client) -> None:
    path, key = f"/v1/opportunities/{deal(admin)}/resume", uuid.uuid4().hex
    assert admin.command(path, key=key).status_code == 409
    admin.done(path.replace("resume", "suspend"))
    assert admin.command(path, key=key).status_code == 200


def test_the_same_key_at_the_same_moment_is_done_once(product: Product) -> None:
    key, name = uuid.uuid4().hex, uuid.uuid4().hex
    with product.client() as client, ThreadPoolExecutor(8) as threads:
        sent = [
            threads.submit(client.command, "/v1/customers", {"name": name}, key=key)
            for _ in range(24)
        ]
        answers = [answer.result().json() for answer in sent]
        assert all(answer == answers[0] for answer in answers)
        assert len(client.read("/v1/customers", name=name)["items"]) == 1


def test_a_stale_version_is_told(admin: Client) -> None:
    path = f"/v1/opportunities/{deal(admin)}"
    headers = {"If-Match": '"1"'}
    changed = admin.command(f"{path}/amount", {"amount": amount("2.00")}, headers=headers)
    assert changed.status_code == 200
    assert changed.headers["etag"] == '"2"'
    response = admin.command(f"{path}/amount", {"amount": amount("3.00")}, headers=headers)
    assert (response.status_code, kind(response)) == (412, "stale-version")
    assert admin.read(path)["amount"] == amount("2.00")


def test_the_etag_of_a_read_is_good_for_if_match(admin: Client) -> None:
    path = f"/v1/opportunities/{deal(admin)}"
    read = admin.get(path, params={"min_position": admin.position})
    headers = {"If-Match": read.headers["etag"]}
    assert admin.command(f"{path}/suspend", headers=headers).status_code == 200


def test_a_star_matches_what_exists(admin: Client) -> None:
    headers = {"If-Match": "*"}
    known = admin.command(f"/v1/opportunities/{deal(admin)}/suspend", headers=headers)
    unknown = admin.command(f"/v1/opportunities/{uuid.uuid4()}/suspend", headers=headers)
    assert (known.status_code, unknown.status_code) == (200, 404)


def test_of_many_changes_to_one_version_one_is_done(product: Product) -> None:
    with product.client() as client, ThreadPoolExecutor(8) as threads:
        path = f"/v1/opportunities/{deal(client)}/amount"
        sent = [
            threads.submit(
                client.command, path, {"amount": amount(f"{n}.00")}, headers={"If-Match": '"1"'}
            )
            for n in range(16)
        ]
        statuses = sorted(answer.result().status_code for answer in sent)
    assert statuses == [200] + [412] * 15


def test_an_external_id_is_taken_once(admin: Client) -> None:
    external = {"source": "old crm", "id": uuid.uuid4().hex}
    first = admin.command("/v1/customers", {"name": "ACME", "external_id": external})
    second = admin.command("/v1/customers", {"name": "Other", "external_id": external})
    assert (second.status_code, kind(second)) == (409, "already-exists")
    assert second.json()["existing_id"] == first.json()["id"]
    found = admin.read(
        "/v1/customers", external_source=external["source"], external_id=external["id"]
    )
    assert [item["id"] for item in found["items"]] == [first.json()["id"]]


def test_a_command_already_done_adds_nothing(admin: Client) -> None:
    path = f"/v1/opportunities/{deal(admin)}/stage"
    first, again = admin.done(path, {"stage": "bid"}), admin.done(path, {"stage": "bid"})
    assert (first["version"], again["version"]) == (2, 2)
