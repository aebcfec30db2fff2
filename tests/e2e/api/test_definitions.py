"""What definitions are in force, through the API."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from api.tokens import Scope
from tests.e2e.api.running import Client, Product


def test_those_built_in(product: Product, admin: Client) -> None:
    """R68: a strategy for each of the six levels."""
    found = admin.get("/v1/definitions").json()
    assert {part["id"] for part in found.values()} == {"1"}
    assert found["attribution"]["w"] == ["30", "30", "30", "10"]
    assert found["levels"]["growth"] == "0.2"
    assert sorted(found["strategies"]["by_level"]) == [
        "declining",
        "growing",
        "new",
        "no-value",
        "problem",
        "stable",
    ]  # R68: each level has one


def test_those_of_a_file(start_product: Callable[..., Product], tmp_path: Path) -> None:
    file = tmp_path / "definitions.toml"
    file.write_text("[levels]\nversion = 2\ngrowth = 0.1\n", encoding="utf-8")
    with start_product(definitions_file=file).client(Scope.READ) as reader:
        found = reader.get("/v1/definitions").json()
    assert found["levels"]["id"].startswith("2-")
    assert (found["levels"]["growth"], found["forecast"]["id"]) == ("0.1", "1")


def test_for_readers_only(product: Product) -> None:
    with product.client(Scope.COMMAND) as client:
        assert client.get("/v1/definitions").status_code == 403
