"""Health, metrics, the reference page, and what is said when the store is in trouble."""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import Any

import httpx
import pytest
from fastapi.openapi.utils import get_openapi

from api.app import COMMANDS
from infra.embedded import EmbeddedPostgres
from infra.postgres import connect
from tests.e2e.api.making import customer
from tests.e2e.api.running import WAIT, Client, Product


def test_live_and_ready_need_no_token(product: Product) -> None:
    assert httpx.get(f"{product.url}/health/live", timeout=WAIT).json() == {"status": "live"}
    ready = httpx.get(f"{product.url}/health/ready", timeout=WAIT).json()
    assert ready["status"] == "ready"
    assert ready["reflected"].keys() == {"customers", "funnel", "lifecycle", "attribution"}


def test_metrics_count_requests_by_route_not_by_id(product: Product, admin: Client) -> None:
    made = customer(admin)
    admin.read(f"/v1/customers/{made}")
    admin.get(f"/{uuid.uuid4()}")
    text = httpx.get(f"{product.url}/metrics", timeout=WAIT).text
    counted = 'crm_http_request_seconds_count{method="GET",route="/v1/customers/{id}",status="200"}'
    assert counted in text
    assert 'route="",status="404"' in text
    assert made not in text
    assert re.search(r'projection_position\{partition="\d+",projection="funnel"\} [1-9]', text)
    assert re.search(r"^log_position [1-9]", text, re.MULTILINE)


def test_the_reference_page_needs_no_internet(product: Product) -> None:
    with httpx.Client(base_url=product.url, timeout=WAIT) as nobody:
        for page in ("/docs", "/redoc"):
            html = nobody.get(page).text
            found = re.findall(r'(?:src|href)="([^"]+)"', html)
            assert found
            for address in found:
                assert not address.startswith(("http:", "https:", "//")), address
                assert nobody.get(address).status_code == 200


def test_every_command_is_described(product: Product) -> None:
    described = httpx.get(f"{product.url}/openapi.json", timeout=WAIT).json()
    assert described["openapi"].startswith("3.1")
    for command in COMMANDS:
        operation = described["paths"][command.path]["post"]
        assert {"400", "401", "403", "404", "409", "413", "415", "422", "503"} <= set(
            operation["responses"]
        )
        named = {parameter["name"] for parameter in operation["parameters"]}
        assert "Idempotency-Key" in named or "idempotency-key" in named
        assert operation["security"] == [{"bearer": [command.scope.value]}]
        for status, response in operation["responses"].items():
            if status >= "400":
                assert response["content"].keys() == {"application/problem+json"}


def test_nobody_waits_while_it_describes_itself(
    start_product: Callable[..., Product], monkeypatch: pytest.MonkeyPatch
) -> None:
    product = start_product()
    begun, done, made = threading.Event(), threading.Event(), []

    def slow(**of: Any) -> Any:
        begun.set()
        assert done.wait(60)
        made.append(get_openapi(**of))
        return made[-1]

    monkeypatch.setattr("api.openapi.get_openapi", slow)
    with product.client() as client, ThreadPoolExecutor(2) as threads:
        asked = [threads.submit(client.get, "/openapi.json") for _ in range(2)]
        assert begun.wait(60)
        assert client.command("/v1/customers", {"name": "ACME"}).status_code == 201
        assert not any(each.done() for each in asked)
        done.set()
        one, other = (each.result() for each in asked)
    assert one.headers["content-type"] == "application/json"
    assert one.content == other.content
    assert [one.json()] == made


def test_a_key_in_flight_is_told(start_product: Callable[..., Product]) -> None:
    product = start_product(wait_for_key=0.2)
    holder = connect(product.database_url, search_path=["log"])
    with product.client() as client, holder.cursor() as cursor, ThreadPoolExecutor(2) as threads:
        cursor.execute("SELECT position FROM head FOR UPDATE")
        sent = [
            threads.submit(client.command, "/v1/customers", {"name": "ACME"}, key="k")
            for _ in range(2)
        ]
        try:
            told = wait(sent, timeout=30, return_when=FIRST_COMPLETED)
        finally:
            holder.rollback()
            holder.close()
        (second,), (first,) = told
        assert second.result().status_code == 409
        assert second.result().json()["type"].endswith(":key-in-flight")
        assert second.result().headers["retry-after"]
        assert first.result().status_code == 201
        again = client.command("/v1/customers", {"name": "ACME"}, key="k")
        assert (again.status_code, again.json()) == (201, first.result().json())


@pytest.fixture
def broken(start_product: Callable[..., Product]) -> Product:
    """A product of its own to break."""
    return start_product(wait_seconds=0.5)


def test_what_nobody_expected_is_told_without_a_trace(
    broken: Product, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the secret is hunter2")

    monkeypatch.setattr(broken.commands, "execute", fail)
    with broken.client() as client:
        response = client.command("/v1/customers", {"name": "ACME"})
        assert response.status_code == 500
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["type"].endswith(":internal-error")
        assert "hunter2" not in response.text
        assert "Traceback" not in response.text
        line = {"path": "/v1/customers", "key": "k", "body": {"name": "ACME"}}
        bulk = client.post("/v1/bulk", json=[line])
        assert (bulk.status_code, bulk.json()["status"]) == (200, 500)
        assert "hunter2" not in bulk.text


def test_a_database_that_refuses_is_no_500(broken: Product, server: EmbeddedPostgres) -> None:
    admin = connect(server.admin_url, autocommit=True)
    name = re.search(r"/(test_\w+)", broken.database_url)
    assert name is not None
    with broken.client() as client, admin.cursor() as cursor:
        assert client.command("/v1/customers", {"name": "ACME"}).status_code == 201
        cursor.execute(f"ALTER DATABASE {name[1]} ALLOW_CONNECTIONS false")
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name[1],)
        )
        try:
            assert client.get("/health/live").status_code == 200
            assert client.get("/v1/funnel").status_code == 503
            assert client.get("/health/ready").status_code == 503
            assert client.get("/metrics").status_code == 200
            refused = client.command("/v1/customers", {"name": "ACME"})
            assert refused.status_code == 503, refused.text
        finally:
            cursor.execute(f"ALTER DATABASE {name[1]} ALLOW_CONNECTIONS true")
    admin.close()
