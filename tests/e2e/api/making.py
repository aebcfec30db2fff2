"""Things to do something with, made through the API."""

from __future__ import annotations

import uuid
from typing import Any

from tests.e2e.api.running import Client


def amount(value: str = "1000.00", currency: str = "CNY") -> dict[str, str]:
    return {"value": value, "currency": currency}


def customer(client: Client, **body: Any) -> str:
    return str(client.done("/v1/customers", {"name": f"ACME {uuid.uuid4().hex}", **body})["id"])


def deal(client: Client, **body: Any) -> str:
    owner = body.pop("customer_id", None) or customer(client)
    opened = {"customer_id": owner, "name": "crane", "amount": amount(), **body}
    return str(client.done("/v1/opportunities", opened)["id"])


def campaign(client: Client, *steps: str, **body: Any) -> str:
    planned = {
        "name": "spring fair",
        "channel": "conference",
        "starts_on": "2026-03-01",
        "ends_on": "2026-03-31",
        "budget": amount("50000.00"),
        **body,
    }
    made = str(client.done("/v1/campaigns", planned)["id"])
    for step in steps:
        client.done(f"/v1/campaigns/{made}/{step}")
    return made
