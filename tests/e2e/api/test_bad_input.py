"""Whatever a client sends, it is told what is wrong: never a 500, and nothing is half-written."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import orjson
import pytest

from tests.e2e.api.making import amount, campaign, customer, deal
from tests.e2e.api.running import MAX_BODY, WAIT, Client, Product

JSON = {"Content-Type": "application/json"}


@pytest.fixture(autouse=True)
def nothing_is_written(product: Product, request: pytest.FixtureRequest) -> Iterator[None]:
    """What a test sends after it has made its things leaves the log as it was."""
    with product.client() as client:
        yield
        written = request.node.user_properties
        head = client.get("/health/ready").json()["position"]
        assert not written or head == written[-1][1]


@pytest.fixture
def path(admin: Client, request: pytest.FixtureRequest) -> str:
    """Of a deal to try things on."""
    made = f"/v1/opportunities/{deal(admin)}"
    request.node.user_properties.append(("position", admin.position))
    return made


def kind(response: httpx.Response) -> str:
    assert response.headers["content-type"] == "application/problem+json"
    assert "Traceback" not in response.text
    assert len(response.content) < 20_000
    problem = response.json()
    assert problem["status"] == response.status_code
    return str(problem["type"]).removeprefix("urn:crm-ledger:problem:")


def raw(client: Client, path: str, body: bytes, **headers: str) -> httpx.Response:
    return client.post(
        path, content=body, headers={"Idempotency-Key": uuid.uuid4().hex, **JSON, **headers}
    )


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"null,",
        b'{"stage": "bid",}',
        b'{"stage": NaN}',
        b'{"stage": Infinity}',
        b'{"stage": -Infinity}',
        b'{"stage": "\\ud800"}',
        b'{"stage": "\xed\xb0\x80"}',
        b'{"stage": "bid", "stage": "contract"}',
        b'{"stage": ' + b"[" * 500 + b"]" * 500 + b"}",
        b"[" * 60_000,
    ],
)
def test_malformed_json(admin: Client, path: str, body: bytes) -> None:
    response = raw(admin, f"{path}/stage", body)
    assert (response.status_code, kind(response)) == (400, "malformed-body")


@pytest.mark.parametrize("body", [b"[]", b'"bid"', b"null", b"7", b"true"])
def test_json_that_is_no_object(admin: Client, path: str, body: bytes) -> None:
    response = raw(admin, f"{path}/stage", body)
    assert (response.status_code, kind(response)) == (422, "invalid-request")


OPENING = {"name": "crane", "amount": amount()}
PLAN = {
    "name": "fair",
    "channel": "web",
    "starts_on": "2026-01-01",
    "ends_on": "2026-01-31",
    "budget": amount(),
}


@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("/v1/customers", {"nmae": "ACME"}),
        ("/v1/customers", {"name": ""}),
        ("/v1/customers", {"name": "   "}),
        ("/v1/customers", {"name": None}),
        ("/v1/customers", {"name": 7}),
        ("/v1/customers", {"name": ["ACME"]}),
        ("/v1/customers", {"name": "a\x00b"}),
        ("/v1/customers", {"name": "x" * 60_000}),
        ("/v1/customers", {"name": "x" * 201}),
        ("/v1/customers", {"kind": "robot"}),
        ("/v1/customers", {"identified": "yes"}),
        ("/v1/customers", {"external_id": {"source": "crm"}}),
        ("/v1/customers", {"external_id": {"source": "crm", "id": "1", "x": 1}}),
        ("/v1/customers", {"external_id": "crm:1"}),
        ("/v1/customers", {"attributes": {"a": None}}),
        ("/v1/customers", {"attributes": {"a": [1]}}),
        ("/v1/customers", {"attributes": {"a": {"_type_": "x"}}}),
        ("/v1/customers", {"attributes": {"a": 2**60}}),
        ("/v1/customers", {"attributes": {"a": 1e29}}),
        ("/v1/customers", {"attributes": {"a\x00": 1}}),
        ("/v1/customers", {"attributes": {"": 1}}),
        ("/v1/customers", {"attributes": {str(n): n for n in range(101)}}),
        ("/v1/customers", {"occurred_at": "2026-01-01T00:00:00"}),
        ("/v1/customers", {"occurred_at": "2026-01-01"}),
        ("/v1/customers", {"occurred_at": "yesterday"}),
        ("/v1/customers", {"occurred_at": 1700000000}),
        ("/v1/customers", {"occurred_at": "1700000000"}),
        ("/v1/customers", {"occurred_at": "2999-01-01T00:00:00Z"}),
        ("/v1/customers", {"occurred_at": "0001-01-01T00:00:00+14:00"}),
        ("/v1/customers", {"occurred_at": "9999-12-31T23:59:59-14:00"}),
        ("/v1/customers", {"reason": "x" * 5_000}),
        ("/v1/opportunities", {"amount": amount("-1")}),
        ("/v1/opportunities", {"amount": amount("NaN")}),
        ("/v1/opportunities", {"amount": amount("Infinity")}),
        ("/v1/opportunities", {"amount": amount("1e5")}),
        ("/v1/opportunities", {"amount": amount("1_000")}),
        ("/v1/opportunities", {"amount": amount(" 1")}),
        ("/v1/opportunities", {"amount": amount("１")}),  # noqa: RUF001
        ("/v1/opportunities", {"amount": amount("1.001")}),
        ("/v1/opportunities", {"amount": amount("1.5", "JPY")}),
        ("/v1/opportunities", {"amount": amount("1", "XXQ")}),
        ("/v1/opportunities", {"amount": amount("1", "cny")}),
        ("/v1/opportunities", {"amount": amount("9" * 16)}),
        ("/v1/opportunities", {"amount": {"value": 1, "currency": "CNY"}}),
        ("/v1/opportunities", {"amount": {"value": "1"}}),
        ("/v1/opportunities", {"amount": "1 CNY"}),
        ("/v1/opportunities", {"customer_id": "7"}),
        ("/v1/opportunities", {"expected_close": "2026-13-01"}),
        ("/v1/opportunities", {"expected_close": "2026-01-01T00:00:00"}),
        ("/v1/opportunities", {"expected_close": "0001-01-01"}),
        ("/v1/opportunities", {"stage": "no such stage"}),
        ("/v1/campaigns", {"ends_on": "2025-12-31"}),
        ("/v1/campaigns", {"channel": "carrier pigeon"}),
        ("/v1/campaigns", {"starts_on": None}),
        ("/v1/pipelines", {"stages": []}),
        ("/v1/pipelines", {"stages": [{"name": "a", "chance_to_next": "0.5"}]}),
        *(
            (
                "/v1/pipelines",
                {"stages": [{"name": "a", "chance_to_next": chance, "duration_months": 1}]},
            )
            for chance in ("-0.1", "1.1", 1.1, "NaN", "Infinity", True, None, "half", "1e-1_0")
        ),
        ("/v1/pipelines", {"approvals": ["everything"]}),
    ],
)
def test_wrong_values(admin: Client, path: str, change: dict[str, Any]) -> None:
    stage = {"name": "talk", "chance_to_next": "0.5", "duration_months": 1}
    right: dict[str, Any] = {
        "/v1/customers": {"name": "ACME"},
        "/v1/opportunities": {**OPENING, "customer_id": customer(admin)},
        "/v1/campaigns": PLAN,
        "/v1/pipelines": {"name": "p", "stages": [stage]},
    }
    before = admin.get("/health/ready").json()["position"]
    response = raw(admin, path, orjson.dumps({**right[path], **change}))
    assert response.status_code == 422, response.text
    kind(response)
    assert admin.get("/health/ready").json()["position"] == before


def test_what_is_wrong_is_named_field_by_field(admin: Client) -> None:
    body = {"name": 7, "amount": amount("1.001"), "a/b~c": 1}
    response = raw(admin, "/v1/opportunities", orjson.dumps(body))
    found = {error["in"]: error["code"] for error in response.json()["errors"]}
    assert found == {
        "#/customer_id": "missing",
        "#/name": "string_type",
        "#/amount": "invalid-money",
        "#/a~1b~0c": "extra_forbidden",
    }


def test_a_huge_field_name_is_not_repeated(admin: Client, path: str) -> None:
    body = {f"{n}" + "x" * 10_000: n for n in range(5)}
    assert kind(raw(admin, f"{path}/stage", orjson.dumps(body))) == "invalid-request"


def test_a_probability_outside_0_to_1(admin: Client, path: str) -> None:
    for chance in ("-0.01", "1.01", 2, "NaN"):
        response = admin.command(f"{path}/chance", {"chance": chance})
        assert (response.status_code, kind(response)) == (422, "invalid-request")


def test_a_loss_without_competitor(admin: Client, path: str) -> None:
    response = admin.command(f"{path}/loss", {"cause": "price"})
    assert (response.status_code, kind(response)) == (422, "competitor-missing")


def test_a_body_over_the_limit(admin: Client, path: str) -> None:
    response = raw(admin, f"{path}/stage", b" " * (MAX_BODY + 1))
    assert (response.status_code, kind(response)) == (413, "body-too-large")


def test_a_body_over_the_limit_that_does_not_say_so(admin: Client, path: str) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(200):
            yield b" " * 1_000

    response = admin.post(
        f"{path}/stage", content=parts(), headers={"Idempotency-Key": "k" * 8, **JSON}
    )
    assert (response.status_code, kind(response)) == (413, "body-too-large")


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16", ""],
)
def test_a_wrong_content_type(admin: Client, path: str, content_type: str) -> None:
    response = raw(admin, f"{path}/stage", b'{"stage": "bid"}', **{"Content-Type": content_type})
    assert (response.status_code, kind(response)) == (415, "unsupported-media-type")


def test_a_compressed_body(admin: Client, path: str) -> None:
    response = raw(admin, f"{path}/stage", b'{"stage": "bid"}', **{"Content-Encoding": "gzip"})
    assert (response.status_code, kind(response)) == (415, "unsupported-media-type")


def test_no_idempotency_key(admin: Client, path: str) -> None:
    response = admin.post(f"{path}/suspend", json={})
    assert (response.status_code, kind(response)) == (400, "idempotency-key-missing")


@pytest.mark.parametrize("key", ["k" * 256, "k" * 5_000, "clé", "a\tb"])
def test_an_idempotency_key_that_is_none(admin: Client, path: str, key: str) -> None:
    headers = {b"Idempotency-Key": key.encode("latin-1")}
    response = admin.post(f"{path}/suspend", headers=headers)
    assert (response.status_code, kind(response)) == (400, "malformed-header")


def test_an_empty_idempotency_key(admin: Client, path: str) -> None:
    response = admin.post(f"{path}/suspend", headers={"Idempotency-Key": ""})
    assert (response.status_code, kind(response)) == (400, "idempotency-key-missing")


@pytest.mark.parametrize("name", ["Idempotency-Key", "If-Match", "Content-Type", "Authorization"])
def test_a_header_sent_twice(admin: Client, path: str, name: str) -> None:
    headers = [
        ("Authorization", admin.headers["Authorization"]),
        ("Idempotency-Key", "a"),
        ("If-Match", '"1"'),
        ("Content-Type", "application/json"),
    ]
    headers.append((name, dict(headers)[name]))
    response = httpx.post(
        f"{admin.base_url}{path}/suspend", headers=headers, content=b"{}", timeout=WAIT
    )
    assert (response.status_code, kind(response)) == (400, "malformed-header")


@pytest.mark.parametrize(
    "value", ["1", '"abc"', 'W/"1"', '"1", "2"', '"-1"', '"01"', '""', '"' + "9" * 40 + '"', "x"]
)
def test_a_malformed_if_match(admin: Client, path: str, value: str) -> None:
    response = admin.command(f"{path}/suspend", headers={"If-Match": value})
    assert (response.status_code, kind(response)) == (400, "malformed-header")


def test_if_match_on_a_creation(admin: Client) -> None:
    response = admin.command("/v1/customers", {"name": "ACME"}, headers={"If-Match": '"1"'})
    assert (response.status_code, kind(response)) == (400, "malformed-header")


def test_illegal_transitions_have_the_rules_own_types(admin: Client) -> None:
    planned, lost = f"/v1/campaigns/{campaign(admin)}", f"/v1/opportunities/{deal(admin)}"
    admin.done(f"{lost}/terminate")
    for path, slug in (
        (f"{planned}/start", "campaign-not-approved"),
        (f"{lost}/resume", "deal-ended"),
        (f"{lost}/close", "review-missing"),
        (f"{lost}/purge", "deal-not-archived"),
    ):
        response = admin.command(path)
        assert (response.status_code, kind(response)) == (409, slug)


@pytest.mark.parametrize(
    ("path", "slug"),
    [
        ("/v1/customers/{}/win-back", "customer-not-found"),
        ("/v1/opportunities/{}/resume", "opportunity-not-found"),
        ("/v1/campaigns/{}/submit", "campaign-not-found"),
    ],
)
def test_commands_on_what_does_not_exist(admin: Client, path: str, slug: str) -> None:
    response = admin.command(path.format(uuid.uuid4()))
    assert (response.status_code, kind(response)) == (404, slug)


@pytest.mark.parametrize("resource", ["customers", "opportunities", "campaigns", "pipelines"])
def test_reads_of_what_does_not_exist(admin: Client, resource: str) -> None:
    response = admin.get(f"/v1/{resource}/{uuid.uuid4()}")
    assert (response.status_code, kind(response)) == (404, "not-found")


@pytest.mark.parametrize(
    "id_", ["7", "x" * 36, "%00", "..%2f", "{id}", "0" * 8 + "-0000-4000-8000-" + "0" * 13]
)
def test_ids_that_are_none(admin: Client, id_: str) -> None:
    for response in (
        admin.command(f"/v1/customers/{id_}/win-back"),
        admin.get(f"/v1/customers/{id_}"),
    ):
        assert response.status_code in (404, 422)
        kind(response)


def test_a_deal_of_an_unknown_customer(admin: Client) -> None:
    body = {**OPENING, "customer_id": str(uuid.uuid4())}
    response = admin.command("/v1/opportunities", body)
    assert (response.status_code, kind(response)) == (404, "customer-not-found")


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=-1",
        "limit=1001",
        "limit=1000000000",
        "limit=ten",
        "limit=",
        "limit=1.5",
        "sort=password",
        "sort=name;drop table",
        "colour=red",
        "search=%00",
        "name=a%00b",
        "kind=robot",
        "identified=perhaps",
        "as_of=2026-01-01T00:00:00",
        "as_of=2026-01-01",
        "as_of=0001-01-01T00:00:00%2B14:00",
        "as_of=3000-01-01T00:00:00Z",
        "as_of=9999-12-31T23:59:59Z",
        "as_of=now",
        "known_at=-1",
        "known_at=99999999999999999999",
        "known_at=2026-01-01T00:00:00",
        "min_position=-1",
        "min_position=9223372036854775808",
        "min_position=x",
        "currency=XXQ",
        "currency=cny",
        "limit=1&limit=2000",
    ],
)
def test_wrong_parameters(admin: Client, query: str) -> None:
    response = admin.get(f"/v1/customers?{query}")
    assert (response.status_code, kind(response)) == (422, "invalid-request"), response.text


@pytest.mark.parametrize("cursor", ["", "x", "AAAA", "%00", "ÿ", "A" * 1_000, "e30"])
def test_a_forged_cursor(admin: Client, cursor: str) -> None:
    response = admin.get("/v1/customers", params={"cursor": cursor})
    assert (response.status_code, kind(response)) == (400, "invalid-cursor")


@pytest.mark.parametrize("query", ["from=2026-01-01T00:00:00Z", "from=soon", "model=magic"])
def test_wrong_parameters_of_attribution(admin: Client, query: str) -> None:
    response = admin.get(f"/v1/attribution?{query}")
    assert (response.status_code, kind(response)) == (422, "invalid-request")


def test_an_unknown_path(admin: Client) -> None:
    response = admin.get("/v1/nothing")
    assert (response.status_code, kind(response)) == (404, "not-found")


def test_a_method_that_is_not_there(admin: Client) -> None:
    response = admin.put("/v1/customers")
    assert (response.status_code, kind(response)) == (405, "method-not-allowed")
    assert response.headers["allow"] == "GET, POST"


def test_bytes_that_are_no_http(product: Product) -> None:
    host, port = product.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00 nonsense\r\n\r\n")
        assert connection.recv(1_000).startswith(b"HTTP/1.1 400")


def test_a_client_that_goes_in_the_middle_of_its_body(product: Product, admin: Client) -> None:
    host, port = product.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        head = (
            "POST /v1/customers HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Authorization: {admin.headers['Authorization']}\r\nIdempotency-Key: gone\r\n"
            "Content-Length: 100\r\n\r\n"
        )
        connection.sendall(head.encode() + b'{"name": "AC')
    assert admin.command("/v1/customers", {"name": "ACME"}, key="gone").status_code == 201
