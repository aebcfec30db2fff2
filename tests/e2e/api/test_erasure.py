"""Erasing a person over HTTP: what is shown before and after, and the certificate."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID, uuid4

import pytest

from api.tokens import Scope
from infra.postgres import connect
from tests.e2e.api.running import Client, Product

NOBODY = "00000000-0000-4000-8000-000000000007"
EXTERNAL = {"source": "shop", "id": "wang.fang@erasure.example"}


def ask(client: Client, path: str, body: Any = None) -> Any:
    return client.post(path, json=body, headers={"Idempotency-Key": uuid4().hex})


def erase(client: Client, path: str, reason: str = "asked for") -> dict[str, Any]:
    response = ask(client, f"{path}/erasure", {"reason": reason})
    assert response.status_code == 200, response.text
    certificate: dict[str, Any] = response.json()
    client.position = max(client.position, certificate["position"])
    return certificate


@pytest.fixture
def person(admin: Client) -> str:
    made = admin.done(
        "/v1/customers",
        {
            "kind": "person",
            "name": "Wang Fang",
            "region": "north",
            "external_id": {**EXTERNAL, "id": f"{uuid4()}@erasure.example"},
            "attributes": {"born": "1980-02-03", "score": 1.5},
        },
    )
    path = f"/v1/customers/{made['id']}"
    admin.done(f"{path}/profile", {"attributes": {"born": "1981", "vip": True, "score": 2}})
    admin.done(f"{path}/profile", {"removed_attributes": ["vip"]})
    signal = {"kind": "complaint", "severity": "low", "detail": "Ms Wang was angry"}
    admin.done(f"{path}/churn-signals", signal)
    return path


@pytest.fixture
def contact(admin: Client) -> str:
    company = admin.done("/v1/customers", {"name": "Harbour Works"})["id"]
    body = {"name": "Li Wei", "email": "li@harbour.example", "department": "sales"}
    added = admin.done(f"/v1/customers/{company}/contacts", body)
    return f"/v1/customers/{company}/contacts/{added['contact_id']}"


def test_attributes_of_a_person_are_sealed_and_merged(
    product: Product, admin: Client, person: str
) -> None:
    assert admin.read(person)["attributes"] == {"born": "1981", "score": 2}
    (listed,) = [
        item
        for item in admin.read("/v1/customers", kind="person", limit=1000)["items"]
        if item["id"] == person.rpartition("/")[2]
    ]
    assert listed["attributes"] == {"born": "1981", "score": 2}
    early = admin.read(person, known_at=admin.read(person)["position"] - 3)
    assert early["attributes"] == {"born": "1980-02-03", "score": 1.5}
    with product.client(Scope.READ) as reader:
        reader.position = admin.position
        assert reader.read(person)["attributes"] == {}


def test_a_person_is_erased(product: Product, admin: Client, person: str) -> None:
    before = admin.read(person)
    certificate = erase(admin, person)
    assert certificate["subject"] == certificate["customer_id"] == before["id"]
    assert (certificate["kind"], certificate["actor"]) == ("customer", "rep-1")
    assert certificate["reason"] == "asked for"
    assert certificate["destroyed"]["sealed_fields"] == 5  # the name, three changes, the detail
    assert len(certificate["destroyed"]["positions"]) == 4
    assert certificate["left_in_clear"] == certificate["handouts"] == []
    assert certificate["elsewhere_within_seconds"] == 60
    after = admin.read(person)
    assert after["name"] == "[erased]"
    assert (after["attributes"], after["external_id"]) == ({}, None)
    assert (after["region"], after["registered_at"]) == ("north", before["registered_at"])
    with product.client(Scope.READ) as reader:
        reader.position = admin.position
        assert reader.read(person)["name"] is None


def test_what_was_true_and_known_before_does_not_bring_it_back(admin: Client, person: str) -> None:
    before = admin.read(person)
    source, id_ = before["external_id"]["source"], before["external_id"]["id"]
    then = {"known_at": before["position"]}
    filters = {"external_source": source, "external_id": id_}
    for moment in ({}, then):
        (found,) = admin.read("/v1/customers", **filters, **moment)["items"]
        assert found["id"] == before["id"]
    erase(admin, person)
    for moment in ({}, then, {"as_of": before["registered_at"]}):
        shown = admin.read(person, **moment)
        assert (shown["name"], shown["external_id"]) == ("[erased]", None)
        assert shown["attributes"] == {}
        assert admin.read("/v1/customers", external_id=id_, **moment)["items"] == []
        assert admin.read("/v1/customers", search=id_[:30], **moment)["items"] == []


def test_again_it_answers_the_same(admin: Client, person: str, last_actor: Any) -> None:
    first = erase(admin, person)
    end = admin.get("/health/ready").json()["position"]
    with admin_of(admin, "rep-2") as other:
        again = ask(other, f"{person}/erasure").json()
    assert again == first
    assert admin.get("/health/ready").json()["position"] == end


def admin_of(client: Client, _: str) -> Client:
    other = Client(str(client.base_url), None)
    other.headers["Authorization"] = client.headers["Authorization"]
    return other


def test_a_contact_is_erased_and_the_others_stay(admin: Client, contact: str) -> None:
    company = contact.partition("/contacts/")[0]
    admin.done(f"{company}/contacts", {"name": "Li Na"})
    certificate = erase(admin, contact)
    assert certificate["destroyed"]["sealed_fields"] == 2
    assert certificate["kind"] == "contact"
    shown = {one["name"]: one for one in admin.read(company)["contacts"]}
    assert shown.keys() == {"[erased]", "Li Na"}
    gone = shown["[erased]"]
    assert (gone["email"], gone["phone"], gone["department"]) == ("[erased]", None, "sales")


def test_nothing_new_is_written_and_the_customer_goes_on(admin: Client, person: str) -> None:
    erase(admin, person)
    signal = {"kind": "complaint", "severity": "low", "detail": "a text"}
    for path, body in (
        ("profile", {"name": "Wang Fang"}),
        ("profile", {"attributes": {"born": "1980"}}),
        ("churn-signals", signal),
    ):
        refused = admin.command(f"{person}/{path}", body)
        assert refused.status_code == 409
        assert refused.json()["type"].endswith(":subject-erased")
    amount = {"value": "12.50", "currency": "CNY"}
    admin.done(f"{person}/orders", {"order_id": "1", "amount": amount})
    admin.done(f"{person}/profile", {"region": "south"})
    assert admin.read(person)["region"] == "south"


def test_the_event_is_in_the_log_once(product: Product, admin: Client, contact: str) -> None:
    certificate = erase(admin, contact, "a reason")
    erase(admin, contact, "another")
    connection = connect(product.database_url, search_path=["log"], autocommit=True)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT position, actor, reason, state FROM events"
            " WHERE topic = 'crm.customer.contact-erased'"
            " AND convert_from(state, 'UTF8') LIKE %s",
            [f"%{certificate['subject']}%"],
        )
        ((position, actor, reason, state),) = cursor.fetchall()
    connection.close()
    assert (position, actor, reason) == (certificate["position"], "rep-1", "a reason")
    assert json.loads(bytes(state)) == {"contact_id": certificate["subject"]}


def test_certificates_are_for_the_audit(product: Product, admin: Client, contact: str) -> None:
    certificate = erase(admin, contact)
    subject = certificate["subject"]
    with product.client(Scope.AUDIT) as auditor:
        assert auditor.get(f"/v1/audit/erasures/{subject}").json() == certificate
        assert auditor.get(f"/v1/audit/erasures/{NOBODY}").status_code == 404
        found, after = [], None
        while True:
            parameters = {"limit": 1} | ({} if after is None else {"after": after})
            page = auditor.get("/v1/audit/erasures", params=parameters).json()
            found += page["items"]
            if (after := page["next"]) is None:
                break
        assert sorted(UUID(one["subject"]) for one in found) == [
            UUID(one["subject"]) for one in found
        ]
        (mine,) = [one for one in found if one["subject"] == subject]
        assert mine.items() <= certificate.items()
        assert auditor.get("/v1/audit/erasures", params={"limit": 0}).status_code == 422
    with product.client(Scope.READ, Scope.PERSONAL) as reader:
        for path in ("/v1/audit/erasures", f"/v1/audit/erasures/{subject}"):
            assert reader.get(path).status_code == 403


def test_exports_made_before_are_listed(product: Product, admin: Client, contact: str) -> None:
    admin.read("/v1/customers")
    connection = connect(product.database_url, search_path=["log"], autocommit=True)
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO handouts (actor, kind, position, what, personal) VALUES"
            " ('old', 'export', 0, 'all', false), ('bi', 'export', %s, 'dim_person', false)",
            [admin.position],
        )
    certificate = erase(admin, contact)
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO handouts (actor, kind, position, what, personal)"
            " VALUES ('late', 'export', %s, 'all', false)",
            [admin.position],
        )
    connection.close()
    (handout,) = certificate["handouts"]
    assert (handout["actor"], handout["what"]) == ("bi", "dim_person")
    again = admin.get(f"/v1/audit/erasures/{certificate['subject']}").json()
    assert again["handouts"] == certificate["handouts"]


@pytest.mark.parametrize(
    ("path", "status", "slug"),
    [
        (f"/v1/customers/{NOBODY}/erasure", 404, "customer-not-found"),
        (f"/v1/customers/{NOBODY}/contacts/{NOBODY}/erasure", 404, "customer-not-found"),
        ("{company}/contacts/" + NOBODY + "/erasure", 404, "contact-not-found"),
        ("{company}/erasure", 422, "not-a-person"),
        ("/v1/customers/7/erasure", 422, "invalid-request"),
        ("{company}/contacts/x/erasure", 422, "invalid-request"),
    ],
)
def test_whom_there_is_not(admin: Client, contact: str, path: str, status: int, slug: str) -> None:
    company = contact.partition("/contacts/")[0]
    response = ask(admin, path.format(company=company))
    assert response.status_code == status, response.text
    assert response.json()["type"] == f"urn:crm-ledger:problem:{slug}"


def test_who_may_erase_and_how(product: Product, contact: str) -> None:
    path, key = f"{contact}/erasure", {"Idempotency-Key": "1"}
    for scopes in ((Scope.COMMAND,), (Scope.PERSONAL,), (Scope.READ, Scope.AUDIT)):
        with product.client(*scopes) as client:
            assert client.post(path, headers=key).status_code == 403
    with product.client(Scope.COMMAND, Scope.PERSONAL) as client:
        assert client.post(path).status_code == 400
        for body, status in (
            ({"reason": 7}, 422),
            ({"name": "x"}, 422),
            ({"reason": "x" * 20_000}, 422),
            ([], 422),
        ):
            assert client.post(path, json=body, headers=key).status_code == status
        typed = {**key, "Content-Type": "application/json"}
        assert client.post(path, content=b"{", headers=typed).status_code == 400
        assert client.post(path, content=b"x" * 70_000, headers=typed).status_code == 413
        assert client.post(path, content=b"{}", headers=key).status_code == 415
        assert client.post(path, headers=key).status_code == 200
