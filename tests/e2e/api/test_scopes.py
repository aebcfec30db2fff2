"""Who may do what."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import timedelta

import httpx
import pytest

from api.tokens import Scope
from tests.e2e.api.making import amount, campaign, customer, deal
from tests.e2e.api.running import WAIT, Client, Product

KEY = {"Idempotency-Key": "k"}


def kind(response: httpx.Response) -> str:
    return str(response.json()["type"]).removeprefix("urn:crm-ledger:problem:")


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer x", "Basic dXNlcjpwYXNz", "Bearer a.b.c", "a b c"],
)
def test_without_a_valid_token_nothing_is_said_but_that(
    product: Product, authorization: str | None
) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    told = set()
    with httpx.Client(base_url=product.url, headers=headers, timeout=WAIT) as nobody:
        for response in (
            nobody.get("/v1/customers"),
            nobody.get(f"/v1/customers/{uuid.uuid4()}"),
            nobody.post("/v1/customers", headers=KEY, json={"name": "ACME"}),
            nobody.post("/v1/bulk", content=b""),
        ):
            assert response.status_code == 401
            assert response.headers["www-authenticate"].startswith("Bearer")
            told.add(response.content)
    assert len(told) == 1


def test_an_expired_token(product: Product) -> None:
    token = product.tokens.issue("rep-1", frozenset({Scope.READ}), timedelta(seconds=-1))
    with Client(product.url, token) as client:
        assert client.get("/v1/customers").status_code == 401


def test_the_scheme_may_be_written_in_any_case(product: Product) -> None:
    token = product.tokens.issue("rep-1", frozenset({Scope.READ}))
    response = httpx.get(
        f"{product.url}/v1/funnel", headers={"Authorization": f"bearer {token}"}, timeout=WAIT
    )
    assert response.status_code == 200


@pytest.mark.parametrize("scope", [Scope.READ, Scope.APPROVE, Scope.PERSONAL, Scope.AUDIT])
def test_commands_need_the_scope_command(product: Product, scope: Scope) -> None:
    with product.client(scope) as client:
        response = client.command("/v1/customers", {"name": "ACME"})
        assert (response.status_code, kind(response)) == (403, "forbidden")
        assert 'scope="command"' in response.headers["www-authenticate"]
        bulk = client.post("/v1/bulk", content=b"", headers={"Content-Type": "application/json"})
        assert bulk.status_code == 403


@pytest.mark.parametrize("scope", [Scope.COMMAND, Scope.APPROVE, Scope.PERSONAL, Scope.AUDIT])
def test_reads_need_the_scope_read(product: Product, scope: Scope) -> None:
    with product.client(scope) as client:
        for path in ("/v1/customers", f"/v1/customers/{uuid.uuid4()}", "/v1/funnel"):
            assert client.get(path).status_code == 403


def test_campaigns_are_approved_by_those_who_may(product: Product, admin: Client) -> None:
    path = f"/v1/campaigns/{campaign(admin, 'submit')}"
    with product.client(Scope.COMMAND) as rep, product.client(Scope.APPROVE) as boss:
        for step in ("approve", "reject"):
            assert rep.command(f"{path}/{step}").status_code == 403
        assert boss.command(f"{path}/approve").status_code == 200
        assert boss.command(f"{path}/start").status_code == 403
        assert rep.command(f"{path}/start").status_code == 200


def test_a_stage_that_needs_approval_is_entered_by_those_who_may(
    product: Product, admin: Client
) -> None:
    stages = [
        {"name": "talk", "chance_to_next": "0.5", "duration_months": 1},
        {"name": "sign", "chance_to_next": "1", "duration_months": 0, "approval": True},
    ]
    body = {"name": "guarded", "stages": stages, "approvals": ["suspend", "terminate"]}
    pipeline = admin.done("/v1/pipelines", body)["id"]
    path = f"/v1/opportunities/{deal(admin, pipeline_id=pipeline)}"
    with (
        product.client(Scope.COMMAND) as rep,
        product.client(Scope.COMMAND, Scope.APPROVE, subject="boss") as boss,
    ):
        for step, sent in (("stage", {"stage": "sign"}), ("suspend", {}), ("terminate", {})):
            response = rep.command(f"{path}/{step}", sent)
            assert (response.status_code, kind(response)) == (403, "needs-approval")
            assert boss.command(f"{path}/{step}", sent).status_code == 200


def test_names_of_persons_are_for_those_who_may_read_them(product: Product, admin: Client) -> None:
    person = customer(admin, name="Li Si", kind="person")
    company = customer(admin, name="Harbour Works")
    contact = {"name": "Zhang San", "email": "z@harbour.example", "phone": "+86 1", "role": "coach"}
    admin.done(f"/v1/customers/{company}/contacts", contact)
    read = {"min_position": admin.position}
    with (
        product.client(Scope.READ) as analyst,
        product.client(Scope.READ, Scope.PERSONAL) as rep,
    ):
        seen = rep.get(f"/v1/customers/{company}", params=read).json()["contacts"][0]
        assert {name: seen[name] for name in contact} == contact
        assert rep.get(f"/v1/customers/{person}", params=read).json()["name"] == "Li Si"

        response = analyst.get(f"/v1/customers/{company}", params=read)
        assert response.json()["name"] == "Harbour Works"
        hidden = response.json()["contacts"][0]
        assert (hidden["name"], hidden["email"], hidden["phone"]) == (None, None, None)
        assert hidden["role"] == "coach"
        assert analyst.get(f"/v1/customers/{person}", params=read).json()["name"] is None
        listed = analyst.get("/v1/customers", params={**read, "kind": "person", "limit": 1000})
        assert {item["name"] for item in listed.json()["items"]} == {None}


def test_the_actor_is_the_subject_of_the_token(
    product: Product, admin: Client, last_actor: Callable[[], str]
) -> None:
    with product.client(Scope.COMMAND, subject="rep-17") as rep:
        customer(rep)
    assert last_actor() == "rep-17"
    deal(admin, amount=amount("1.00"))
    assert last_actor() == "rep-1"
