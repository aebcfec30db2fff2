"""deploy/compose.yaml: against the schema of the Compose specification, and against the product."""

from __future__ import annotations

import re
from typing import Any

import pytest

from projections.catalogue import PROJECTIONS
from tests.unit.deploy.checked import (
    DEPLOY,
    documents,
    parse_command,
    run_linter,
    settings_of,
    unknown_settings,
    version,
)

(COMPOSE,) = documents("compose.yaml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: one for name, one in SERVICES.items() if one["image"].startswith("crm-ledger")}


def interpolated(value: Any) -> str:
    """As Compose does it where nothing but the required variables is set."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(value))
    return re.sub(r"\$\{\w+:\?[^}]*\}", "given", text)


def test_it_keeps_to_the_compose_specification() -> None:
    found = run_linter(
        "check-jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
        DEPLOY / "compose.yaml",
    )
    assert found == ""


@pytest.mark.parametrize("name", OURS)
def test_every_process_is_a_command_with_settings_that_load(name: str) -> None:
    service = OURS[name]
    settings = settings_of({k: interpolated(v) for k, v in service["environment"].items()})
    assert not settings.embedded
    assert settings.kafka_bootstrap == "kafka:9092"
    command = parse_command(service["command"])
    assert (settings.metrics_port is None) == (command == "api")
    assert service["image"] == f"crm-ledger:{version()}"


def test_every_process_of_the_product_is_there() -> None:
    commands = [service["command"] for service in OURS.values()]
    assert {command[0] for command in commands} == {"api", "relay", "project", "policies", "seal"}
    assert commands.count(["api"]) == 2
    assert commands.count(["relay"]) == 2
    for read_model in PROJECTIONS:
        assert ["project", read_model] in commands


def test_workers_have_names_that_outlive_their_containers() -> None:
    for name, service in OURS.items():
        if service["command"][0] == "project":
            assert service["hostname"] == name


@pytest.mark.parametrize("name", OURS)
def test_containers_may_do_no_more_than_they_need(name: str) -> None:
    service = OURS[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]


def test_only_the_api_is_reached_from_outside_and_from_this_machine_only() -> None:
    published = {name: one.get("ports", []) for name, one in SERVICES.items()}
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)
    assert {name for name, ports in published.items() if ports} == {"api-1", "api-2"}


def test_those_that_take_commands_share_the_keys_and_nobody_else_has_them() -> None:
    for service in OURS.values():
        takes_commands = service["command"][0] in ("api", "policies")
        assert ("keys:/data" in service.get("volumes", [])) == takes_commands


def test_volumes_and_dependencies_are_there() -> None:
    for service in SERVICES.values():
        assert set(service.get("depends_on", {})) <= SERVICES.keys()
        for volume in service.get("volumes", []):
            assert volume.partition(":")[0] in COMPOSE["volumes"]
        for needed in service.get("depends_on", {}):
            assert "healthcheck" in SERVICES[needed]


def test_it_holds_no_password_and_no_unknown_setting() -> None:
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    assert unknown_settings(text) == set()
    for service in SERVICES.values():
        for name, value in service["environment"].items():
            if "PASSWORD" in name:
                assert str(value).startswith("${POSTGRES_PASSWORD:?")
            assert not re.search(r"://[^/@\s]*:[^/@\s]*@", str(value))
