"""Imports of responses: what goes in, what is reported, and what a second run does."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from domain.values import ExternalId, stream_id
from tests.integration.workers.conftest import Installation
from workers.importing import run_orders, run_responses
from workers.importing.course import ALL_IN, SOME_NOT

pytestmark = pytest.mark.database

HEADER = "customer,name,campaign,channel,kind,at"
FAIR = "7,Acme,fair,conference,visit,2024-03-01T10:00:00"
MAIL = "7,,mail,letter,reply,2024-03-05T08:30:00"
OTHER = "8,,fair,conference,visit,2024-02-28T09:00:00"


class Responses:
    """Runs ``crm import responses``; its mapping plans campaigns that are not here."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        shipped = Path("workers/mappings/responses.toml").read_text()
        planning = installation.folder / "planning.toml"
        planning.write_text(shipped.replace('missing = "refuse"    #', 'missing = "plan"    #'))
        self.planning = str(planning)

    def load(self, *lines: str, mapping: str | None = None, **options: Any) -> int:
        path = self.installation.file(*lines, header=HEADER, name="responses.csv")
        settings = self.installation.settings(**options.pop("settings", {}))
        console = Console(file=io.StringIO(), width=200)
        report = self.installation.folder / "report.ndjson"
        code = run_responses(
            settings, path, mapping or self.planning, report=report, console=console, **options
        )
        self.said = console.file.getvalue()  # type: ignore[attr-defined]
        return code

    def recorded(self) -> list[tuple[datetime, str, str]]:
        """When, by which channel and of which kind, in order of time."""
        events = self.installation.events("crm.customer.campaign-responded")
        return sorted((e.occurred_at, e.state["channel"], e.state["kind"]) for e in events)


@pytest.fixture
def responses(installation: Installation) -> Responses:
    return Responses(installation)


def test_responses_with_their_customers_and_campaigns(responses: Responses) -> None:
    zone = {"CRM_TIMEZONE": "Asia/Shanghai"}
    assert responses.load(FAIR, MAIL, OTHER, settings=zone) == ALL_IN, responses.said
    assert (
        "3 lines: 3 new responses, 0 unchanged, 0 reported. 2 new customers; 2 new campaigns."
        in responses.said
    )
    assert responses.recorded() == [
        (datetime(2024, 2, 28, 1, tzinfo=UTC), "conference", "visit"),
        (datetime(2024, 3, 1, 2, tzinfo=UTC), "conference", "visit"),
        (datetime(2024, 3, 5, 0, 30, tzinfo=UTC), "letter", "reply"),
    ]
    campaigns = responses.installation.events("crm.campaign.planned")
    fair = next(e for e in campaigns if e.state["name"] == "fair")
    assert fair.stream_id == stream_id("campaign", ExternalId("generic", "fair"))
    assert (fair.state["starts_on"], fair.state["ends_on"]) == ("2024-02-28", "2024-03-01")
    assert fair.state["budget"]["value"] == "0.00"
    customers = responses.installation.events("crm.customer.registered")
    assert {e.state.get("name") for e in customers} == {"Acme", None}


@pytest.mark.parametrize("receipts", [True, False], ids=["receipts", "no receipts"])
def test_alike_lines_are_responses_of_their_own_in_every_run(
    responses: Responses, receipts: bool
) -> None:
    assert responses.load(FAIR, FAIR, MAIL) == ALL_IN
    before = responses.installation.events()
    assert len(responses.recorded()) == 3
    if not receipts:
        responses.installation.forget_receipts()
    assert responses.load(FAIR, FAIR, MAIL) == ALL_IN
    assert "0 new responses, 3 unchanged" in responses.said
    assert responses.installation.events() == before
    if not receipts:
        responses.installation.forget_receipts()
    assert responses.load(FAIR, FAIR, FAIR, MAIL, OTHER.replace("8,", "9,")) == ALL_IN
    assert "2 new responses, 3 unchanged" in responses.said
    assert len(responses.recorded()) == 5


def test_a_campaign_that_is_not_here(responses: Responses) -> None:
    assert responses.load(FAIR, MAIL, OTHER, mapping="responses") == SOME_NOT
    assert [problem for _, _, problem in responses.installation.reported()] == [
        "campaign-not-found"
    ] * 3
    assert "there is no campaign 'fair' of 'generic'" in responses.installation.messages()
    assert responses.recorded() == []
    assert responses.load(FAIR) == ALL_IN
    assert responses.load(FAIR, MAIL, mapping="responses") == SOME_NOT
    assert responses.installation.reported() == [(3, "7", "campaign-not-found")]
    assert "0 new responses, 1 unchanged" in responses.said


def test_customers_and_campaigns_of_other_systems(
    responses: Responses, installation: Installation
) -> None:
    """The web shop's customers answer what the marketing tool has sent."""
    orders = installation.file(
        "A1,7,Acme,2024-02-01,1,EUR,", header="id,customer,name,placed,amount,currency,cost"
    )
    settings = installation.settings()
    assert run_orders(settings, orders, "orders", source="shop") == ALL_IN
    mapping = installation.folder / "tool.toml"
    mapping.write_text(
        """
imports = "responses"
source = "tool"
channel = "web"
kind = "click"
[file]
dates = "%d.%m.%Y %H:%M %z"
[columns]
customer = "customer"
campaign = "campaign"
campaign_name = "name"
channel = "channel"
at = "at"
[channels]
"Trade fair" = "conference"
[customers]
source = "shop"
missing = "refuse"
[campaigns]
missing = "plan"
"""
    )
    lines = [
        "7,Spring,c1,Trade fair,,01.03.2024 10:00 +0200",
        "7,Spring,c1,,,02.03.2024 10:00 +0000",
        "8,Spring,c1,,,02.03.2024 10:00 +0000",
        "7,Spring,c1,Two words,,02.03.2024 10:00 +0000",
    ]
    assert responses.load(*lines, mapping=str(mapping)) == SOME_NOT
    assert installation.reported() == [
        (4, "8", "customer-not-found"),
        (5, "7", "invalid-channel"),
    ]
    assert responses.recorded() == [
        (datetime(2024, 3, 1, 8, tzinfo=UTC), "conference", "click"),
        (datetime(2024, 3, 2, 10, tzinfo=UTC), "web", "click"),
    ]
    campaigns = installation.events("crm.campaign.planned")
    assert [e.state["name"] for e in campaigns] == ["Spring"]
    assert campaigns[0].stream_id == stream_id("campaign", ExternalId("tool", "c1"))


BAD = [
    (",,fair,web,x,2024-03-01T10:00:00", "customer-missing"),
    ("7,,,web,x,2024-03-01T10:00:00", "campaign-missing"),
    ("7,,fair,,x,2024-03-01T10:00:00", "channel-missing"),
    ("7,,fair,web,,2024-03-01T10:00:00", "kind-missing"),
    ("7,,fair,web,x,", "at-missing"),
    ("7,,fair,web,x,2024-03-01", "bad-date"),
    ("7,,fair,web,x,2999-03-01T10:00:00", "in-the-future"),
    ("7,,fair,A Fair,x,2024-03-01T10:00:00", "invalid-channel"),
    (f"7,,fair,web,{'x' * 201},2024-03-01T10:00:00", "invalid-text"),
    ("7,,fair,web", "columns"),
]


def test_bad_lines_are_reported_and_the_rest_goes_in(responses: Responses) -> None:
    for _ in range(2):
        assert responses.load(FAIR, *(line for line, _ in BAD), MAIL) == SOME_NOT
        assert [(n, problem) for n, _, problem in responses.installation.reported()] == [
            (n, problem) for n, (_, problem) in enumerate(BAD, 3)
        ]
        assert len(responses.recorded()) == 2
