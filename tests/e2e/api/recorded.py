"""What a command has left in the log, and how one is refused."""

from __future__ import annotations

import json
from typing import Any

import httpx

from infra.postgres import connect
from tests.e2e.api.running import Client, Product


def last_event(product: Product) -> tuple[str, int, dict[str, Any]]:
    """Topic, class version and body of the event that was recorded last."""
    connection = connect(product.database_url, search_path=["log"])
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT topic, class_version, state FROM events ORDER BY position DESC LIMIT 1"
            )
            topic, version, state = cursor.fetchone() or ("", 0, b"{}")
            return str(topic), int(version), json.loads(bytes(state))
    finally:
        connection.close()


def twice(client: Client, path: str, body: Any) -> int:
    """The version after a command that must succeed, and that changes nothing the second time."""
    first, again = client.done(path, body), client.done(path, body)
    assert (again["id"], again["version"]) == (first["id"], first["version"])
    return int(first["version"])


def problem(response: httpx.Response) -> tuple[int, str]:
    """Status and kind of a refusal; no kind where there was none."""
    if response.is_success:
        return response.status_code, ""
    assert response.headers["content-type"] == "application/problem+json"
    slug = str(response.json()["type"]).removeprefix("urn:crm-ledger:problem:")
    return response.status_code, slug
