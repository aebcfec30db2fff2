"""Every answer that can be drawn, drawn by the running product, and shown at the terminal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from api.plots.pictures import DRAWN
from tests.e2e.api.making import amount, campaign, customer, deal
from tests.e2e.api.running import Client, Product
from workers.cli import cli

PARAMETERS = {"/v1/lifecycle/flows": {"from": "2026-01-01T00:00:00Z"}}


@pytest.fixture(scope="module")
def company(start_product: Callable[..., Product]) -> Product:
    """A won deal with a touch, an open one, and a customer who is only that."""
    product = start_product()
    with product.client() as client:
        one = customer(client)
        fair = campaign(client, "submit", "approve", "start", name="fair [bold]")
        client.done(
            f"/v1/customers/{one}/responses",
            {"campaign_id": fair, "channel": "conference", "kind": "visit"},
        )
        won = deal(client, customer_id=one)
        day = product.clock().date().isoformat()
        signed = {"amount": amount("900.00"), "signed_on": day}
        client.done(f"/v1/opportunities/{won}/contract", signed)
        deal(client)
        client.read("/v1/attribution")
        client.read("/v1/funnel")
        client.read("/v1/lifecycle")
    return product


def test_what_can_be_drawn_is_there(company: Product) -> None:
    paths = company.app.openapi()["paths"]
    for path in DRAWN:
        content = paths[path]["get"]["responses"]["200"]["content"]
        assert content.keys() == {"application/json", "image/png", "image/svg+xml"}


@pytest.mark.parametrize("path", sorted(DRAWN))
def test_the_answer_as_a_picture(company: Product, path: str) -> None:
    parameters = PARAMETERS.get(path, {})
    with company.client() as client:
        drawn = client.get(f"{path}.png", params=parameters)
        assert (drawn.status_code, drawn.headers["content-type"]) == (200, "image/png"), drawn.text
        assert drawn.content.startswith(b"\x89PNG")
        svg = client.get(path, params=parameters, headers={"Accept": "image/svg+xml"})
        assert svg.headers["content-type"] == "image/svg+xml"
        assert "nothing to show" not in svg.text
        assert client.get(path, params=parameters).json().keys() >= {"position", "as_of"}


def test_a_picture_needs_the_same_right_as_the_answer(company: Product) -> None:
    with Client(company.url, None) as nobody:
        assert nobody.get("/v1/funnel.png").status_code == 401


def test_wrong_parameters_are_told_as_ever(company: Product) -> None:
    with company.client() as client:
        refused = client.get("/v1/funnel.png", params={"nonsense": 1})
        assert refused.status_code == 422
        assert refused.headers["content-type"] == "application/problem+json"
        assert client.get("/v1/customers.png").status_code in (404, 405)


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["forecast", "--months", "3"], "total"),
        (["lifecycle", "--classification", "path"], "2 customers"),
        (["attribution", "--model", "first"], "fair [bold]"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_at_the_terminal(
    company: Product,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: list[str],
    told: str,
) -> None:
    token = tmp_path / "token"
    with company.client() as client:
        token.write_text(client.headers["Authorization"].removeprefix("Bearer "))
    monkeypatch.setenv("CRM_DATA_DIR", str(tmp_path))
    picture = tmp_path / "answer.png"
    arguments: list[Any] = [*command, "--url", company.url, "--picture", str(picture)]
    shown = CliRunner().invoke(cli, arguments, env={"COLUMNS": "140"})
    assert shown.exit_code == 0, shown.output
    assert told in shown.output
    assert picture.read_bytes().startswith(b"\x89PNG")
