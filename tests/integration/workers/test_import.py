"""Imports through the command path: what goes in, what is reported, and what a second run does."""

from __future__ import annotations

import os
import signal
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from domain.values import ExternalId, stream_id
from tests.integration.workers.conftest import HEADER, Installation
from workers.importing import run_import
from workers.importing.course import ALL_IN, SOME_NOT, USAGE

pytestmark = pytest.mark.database

OPEN = "1,press,Acme,Ann,bid,12.50,EUR,2024-01-31,2024-09-30,,,,"
WON = "2,pump,Acme,Ann,negotiation,100,EUR,2024-01-31,,2024-03-01,won,,"
LOST = "3,valve,Bolt,,prospect,7,EUR,2024-01-31,,2024-01-31,lost,price,Rival"

BY_STAGES = """
source = "old"
[columns]
id = "id"
name = "name"
stage = "stage"
opened = "opened"
account = "account"
amount = "amount"
outcome = "outcome"
closed = "closed"
[pipeline]
name = "short"
enter = "all"
[[pipeline.stages]]
name = "first"
chance_to_next = "0.5"
duration_months = "1"
[[pipeline.stages]]
name = "second"
chance_to_next = "0.5"
duration_months = "1"
[outcomes]
won = "won"
lost = "lost"
[missing]
opened = "earliest"
account = "unidentified"
"""
SHORT = "id,name,account,stage,amount,opened,closed,outcome"


@pytest.fixture
def by_stages(installation: Installation) -> str:
    path = installation.folder / "by_stages.toml"
    path.write_text(BY_STAGES)
    return str(path)


def kinds(installation: Installation, id_: str, source: str = "generic") -> list[str]:
    """What happened to a deal, in order."""
    deal = stream_id("opportunity", ExternalId(source, id_))
    return [event.kind for event in installation.events() if event.stream_id == deal]


def test_open_won_and_lost(installation: Installation) -> None:
    assert installation.load(installation.file(OPEN, WON, LOST)) == ALL_IN
    assert "3 lines: 3 new deals" in installation.said
    assert kinds(installation, "1") == ["opened"]
    assert kinds(installation, "2") == ["opened", "contract-signed"]
    assert kinds(installation, "3") == ["opened", "lost"]
    customers = installation.events("crm.customer.registered")
    assert {event.state["name"] for event in customers} == {"Acme", "Bolt"}
    lost = installation.events("crm.opportunity.lost")[0]
    assert (lost.state["cause"], lost.state["competitor"]) == ("price", "Rival")
    assert (lost.actor, lost.reason) == ("import:generic", "import of deals.csv, line 4")
    assert installation.reported() == []


def test_nobodys_name_is_in_the_log(installation: Installation) -> None:
    owners = installation.folder / "owners.csv"
    installation.load(installation.file(OPEN), owners=owners)
    opened = installation.events("crm.opportunity.opened")[0]
    _, row = owners.read_text().splitlines()
    assert row == f"{opened.state['owner']},Ann,,,"
    assert "Ann" not in str(installation.events())


def test_days_begin_at_midnight_of_the_time_zone(installation: Installation) -> None:
    zone = {"CRM_TIMEZONE": "Asia/Shanghai"}
    assert installation.load(installation.file(LOST), settings=zone) == ALL_IN
    midnight = datetime(2024, 1, 30, 16, tzinfo=UTC)
    events = installation.events("crm.opportunity")
    assert [(event.kind, event.occurred_at) for event in events] == [
        ("opened", midnight),
        ("lost", midnight),
    ]
    assert installation.events("crm.customer.registered")[0].occurred_at == midnight


def test_a_second_run_adds_nothing(installation: Installation) -> None:
    path = installation.file(OPEN, WON, LOST)
    installation.load(path)
    before = installation.events()
    for _ in range(2):
        assert installation.load(path) == ALL_IN
        assert "0 new deals, 0 carried on, 3 unchanged" in installation.said
        assert installation.events() == before
        installation.forget_receipts()


def test_a_row_added_in_the_middle(installation: Installation) -> None:
    installation.load(installation.file(OPEN, LOST))
    before = installation.events()
    assert installation.load(installation.file(OPEN, WON, LOST)) == ALL_IN
    assert "1 new deals, 0 carried on, 2 unchanged" in installation.said
    added = installation.events()[len(before) :]
    assert [event.kind for event in added if event.topic.startswith("crm.opportunity")] == [
        "opened",
        "contract-signed",
    ]


@pytest.mark.parametrize("receipts", [True, False])
def test_a_deal_that_has_gone_on(installation: Installation, receipts: bool) -> None:
    installation.load(installation.file(OPEN))
    won = OPEN.replace("bid", "negotiation").replace(",,,,", ",2024-05-02,won,,")
    path = installation.file(won)
    for said in ("1 carried on", "1 unchanged"):
        if not receipts:
            installation.forget_receipts()
        assert installation.load(path) == ALL_IN
        assert said in installation.said
    assert kinds(installation, "1") == ["opened", "stage-advanced", "contract-signed"]
    day = datetime(2024, 5, 2, tzinfo=UTC)
    assert [event.occurred_at for event in installation.events("crm.opportunity")][1:] == [day] * 2


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("12.50", "13", "amount: 12.50 EUR here, 13.00 EUR in the file"),
        ("press", "mill", "name: press here, mill in the file"),
        ("Acme", "Bolt", "account: another customer here"),
        ("2024-09-30", "", "expected_close: 2024-09-30 here, nothing in the file"),
        ("2024-01-31", "2024-01-30", "opened: 2024-01-31T00:00:00+00:00 here"),
    ],
)
def test_a_changed_row_is_reported_and_left(
    installation: Installation, before: str, after: str, message: str
) -> None:
    installation.load(installation.file(OPEN))
    deals = installation.events("crm.opportunity")
    assert installation.load(installation.file(OPEN.replace(before, after, 1))) == SOME_NOT
    assert installation.reported() == [(2, "1", "changed")]
    assert installation.messages()[0].startswith(message)
    assert installation.events("crm.opportunity") == deals


@pytest.mark.parametrize(
    ("after", "message"),
    [
        (WON.replace("100", "101"), "amount: 100.00 EUR here, 101.00 EUR in the file; amount"),
        (WON.replace("2024-03-01", "2024-03-02"), "closed: 2024-03-01 here"),
        (WON.replace("won", "lost"), "outcome: won here, lost in the file"),
        (WON.replace("2024-03-01,won", ","), "outcome: open in the file, ended in an earlier one"),
    ],
)
def test_an_outcome_that_changed_is_reported(
    installation: Installation, after: str, message: str
) -> None:
    installation.load(installation.file(WON))
    before = installation.events()
    assert installation.load(installation.file(after)) == SOME_NOT
    assert installation.messages()[0].startswith(message)
    assert installation.events() == before


def test_a_change_is_taken_as_far_as_it_is_new(installation: Installation) -> None:
    installation.load(installation.file(OPEN))
    won = OPEN.replace("press", "mill").replace(",,,,", ",2024-05-02,won,,")
    assert installation.load(installation.file(won)) == SOME_NOT
    assert installation.messages() == ["name: press here, mill in the file"]
    assert kinds(installation, "1") == ["opened", "contract-signed"]


def test_stages_are_gone_through(installation: Installation, by_stages: str) -> None:
    path = installation.file(
        "1,a,Acme,second,1,2024-02-01,,",
        "2,b,Acme,second,1,2024-02-02,2024-02-02,won",
        "3,c,,first,1,,,",
        header=SHORT,
    )
    assert installation.load(path, by_stages) == ALL_IN
    assert kinds(installation, "1", "old") == ["opened", "stage-advanced"]
    assert kinds(installation, "2", "old") == ["opened", "stage-advanced", "contract-signed"]
    assert kinds(installation, "3", "old") == ["opened"]
    opened = {
        event.state["name"]: event.occurred_at
        for event in installation.events("crm.opportunity.opened")
    }
    assert opened["c"] == opened["a"] == datetime(2024, 2, 1, tzinfo=UTC)
    unknown = [
        event
        for event in installation.events("crm.customer.registered")
        if not event.state["identified"]
    ]
    assert [event.state.get("name") for event in unknown] == [None]
    pipeline = installation.events("crm.pipeline.defined")[0]
    assert pipeline.state["name"] == "short"
    assert pipeline.occurred_at == datetime(2024, 2, 1, tzinfo=UTC)


def test_a_deal_without_date_goes_on_with_one(installation: Installation, by_stages: str) -> None:
    other = "1,a,Acme,first,1,2024-02-01,,"
    installation.load(installation.file(other, "2,b,Acme,first,1,,,", header=SHORT), by_stages)
    later = installation.file(other, "2,b,Acme,second,1,2024-03-01,,", header=SHORT)
    assert installation.load(later, by_stages) == ALL_IN
    assert "1 carried on, 1 unchanged" in installation.said
    advanced = installation.events("crm.opportunity.stage-advanced")
    assert [event.occurred_at for event in advanced] == [datetime(2024, 3, 1, tzinfo=UTC)]


def test_a_stage_that_is_taken_back_is_reported(installation: Installation, by_stages: str) -> None:
    installation.load(installation.file("1,a,Acme,second,1,2024-02-01,,", header=SHORT), by_stages)
    back = installation.file("1,a,Acme,first,1,2024-02-01,,", header=SHORT)
    assert installation.load(back, by_stages) == SOME_NOT
    assert installation.messages() == ["stage: first in the file, second in an earlier one"]


def test_a_pipeline_here_that_lacks_a_stage(installation: Installation, by_stages: str) -> None:
    path = installation.file("1,a,Acme,second,1,2024-02-01,,", header=SHORT)
    installation.load(path, by_stages)
    changed = Path(by_stages).read_text().replace('"second"', '"third"')
    Path(by_stages).write_text(changed)
    assert installation.load(path, by_stages) == USAGE
    assert "the pipeline here has no stage 'third'" in installation.said


def test_a_changed_account_is_reported(installation: Installation, by_stages: str) -> None:
    accounts = installation.folder / "accounts.csv"
    Path(by_stages).write_text(
        BY_STAGES + '[accounts]\nfile = "accounts.csv"\nname = "name"\nindustry = "branch"\n'
    )
    path = installation.file("1,a,Acme,first,1,2024-02-01,,", header=SHORT)
    accounts.write_text("name,branch\nBolt,food\nAcme,food\n")
    assert installation.load(path, by_stages) == ALL_IN
    accounts.write_text("name,branch\nBolt,food\nAcme,paper\n")
    for _ in range(2):
        assert installation.load(path, by_stages) == SOME_NOT
        assert installation.reported() == [(3, "Acme", "changed")]
        assert installation.messages() == ["industry: food here, paper in the file"]
        installation.forget_receipts()
    assert len(installation.events("crm.customer")) == 1


BAD = [
    (",a,Acme,,bid,1,EUR,2024-01-31,,,,,", "missing-id"),
    ("b1,a,Acme,,lost,1,EUR,2024-01-31,,,,,", "unknown-stage"),
    ("b2,a,Acme,,bid,1,EUR,31/01/2024,,,,,", "bad-date"),
    ("b3,a,Acme,,bid,1.2.3,EUR,2024-01-31,,,,,", "bad-number"),
    ("b4,a,Acme,,bid,-1,EUR,2024-01-31,,,,,", "negative-amount"),
    ("b5,a,Acme,,bid,1,EUR,2024-01-31,,2024-01-30,lost,,", "closed-before-opened"),
    (f"b6,{'a' * 201},Acme,,bid,1,EUR,2024-01-31,,,,,", "invalid-text"),
    ("b7,a,Acme,,bid,1,EUR,2024-01-31,,,,", "columns"),
    ("b8,a,Acme,,bid,1,EUR,2024-01-31,,,,,,", "columns"),
    ("b9,a,\xff,,bid,1,EUR,2024-01-31,,,,,", "encoding"),
    ("1,a,Acme,,bid,1,EUR,2024-01-31,,,,,", "duplicate-id"),
    ("b10,a,Acme,,bid,1,EUR,2999-01-31,,,,,", "in-the-future"),
    ('b11,"a,Acme,,bid,1,EUR,2024-01-31,,,,,', "quotes"),
    ("b12,a,Acme,,bid,0.001,EUR,2024-01-31,,,,,", "invalid-money"),
    ("b13,a,Acme,,bid,1,EUR,1900-01-01,,,,,", "invalid-date"),  # at midnight in the east
]


@pytest.mark.parametrize("run", ["first", "second"])
def test_bad_lines_are_reported_and_the_rest_goes_in(installation: Installation, run: str) -> None:
    lines = [OPEN, *(line for line, _ in BAD), WON]
    path = installation.folder / "deals.csv"
    content = "\r\n".join([HEADER, *lines, '4,"two\nlines",Acme,,bid,1,EUR,2024-01-31,,,,,'])
    path.write_bytes(b"\xef\xbb\xbf" + content.encode("latin-1"))
    zone = {"CRM_TIMEZONE": "Asia/Shanghai"}
    if run == "second":
        installation.load(path, settings=zone)
    assert installation.load(path, settings=zone) == SOME_NOT
    assert [(line, problem) for line, _, problem in installation.reported()] == [
        (n, problem) for n, (_, problem) in enumerate(BAD, 3)
    ]
    names = {event.state["name"] for event in installation.events("crm.opportunity.opened")}
    assert names == {"press", "pump", "two\nlines"}
    assert "1 × missing-id" in installation.said
    assert "deals.csv, line 7 (b4): amount -1 is negative" in installation.said


def test_an_identical_line_twice_is_a_duplicate_too(installation: Installation) -> None:
    path = installation.file(OPEN, OPEN)
    for _ in range(2):
        assert installation.load(path) == SOME_NOT
        assert installation.reported() == [(3, "1", "duplicate-id")]


def test_of_two_lines_with_an_id_the_good_one_is_taken(installation: Installation) -> None:
    path = installation.file(OPEN.replace("12.50", "x"), OPEN)
    assert installation.load(path) == SOME_NOT
    assert installation.reported() == [(2, "1", "bad-number")]
    assert kinds(installation, "1") == ["opened"]


def test_only_a_header(installation: Installation) -> None:
    assert installation.load(installation.file()) == ALL_IN
    assert "0 lines" in installation.said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty: it has no header"),
        (b"id,name\n", "there is no column 'stage' (columns.stage of the mapping)"),
    ],
)
def test_files_that_cannot_be_used(installation: Installation, content: bytes, said: str) -> None:
    path = installation.folder / "deals.csv"
    path.write_bytes(content)
    assert installation.load(path) == USAGE
    assert said in installation.said
    assert installation.events() == []


def test_a_report_as_csv(installation: Installation) -> None:
    report = installation.folder / "report.csv"
    settings = installation.settings()
    path = installation.file(",a,Acme,,bid,1,EUR,2024-01-31,,,,,")
    assert run_import(settings, path, "generic", report=report) == SOME_NOT
    assert report.read_text() == (
        "file,line,id,problem,message\ndeals.csv,2,,missing-id,the id is missing\n"
    )
    assert run_import(settings, path, "generic", report=report.with_suffix(".xls")) == USAGE


def test_two_sources_do_not_meet(installation: Installation) -> None:
    path = installation.file(OPEN)
    installation.load(path, source="one")
    installation.load(path, source="two")
    assert len(installation.events("crm.opportunity.opened")) == 2


def test_many_wins_of_one_customer_at_once(installation: Installation) -> None:
    lines = [WON.replace("2,pump", f"{n},pump", 1) for n in range(200)]
    assert installation.load(installation.file(*lines)) == ALL_IN
    assert len(installation.events("crm.opportunity.contract-signed")) == 200
    assert len(installation.events("crm.customer.relationship-started")) == 1


def test_it_can_be_stopped_and_goes_on(installation: Installation) -> None:
    lines = [OPEN.replace("1,press", f"{n},press", 1) for n in range(3000)]
    path = installation.file(*lines)

    def stop() -> None:
        while not installation.events("crm.opportunity.opened"):
            pass
        os.kill(os.getpid(), signal.SIGINT)

    stopper = threading.Thread(target=stop)
    stopper.start()
    assert installation.load(path) == 130
    stopper.join()
    assert "Run it again to go on." in installation.said
    there = len(installation.events("crm.opportunity.opened"))
    assert 0 < there < 3000
    assert installation.load(path) == ALL_IN
    assert f"{3000 - there:,} new deals, 0 carried on, {there:,} unchanged" in installation.said
    assert len(installation.events("crm.opportunity.opened")) == 3000
