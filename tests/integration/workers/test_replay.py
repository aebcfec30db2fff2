"""`crm replay`: history from the database, without the product."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from rich.console import Console
from typer.testing import CliRunner

from domain.pipeline import DEFAULT_PIPELINE_ID
from tests.bench import company
from tests.contract.kept import fill_log, fill_vault, golden_rows
from tests.integration.workers.conftest import Installation
from tests.unit.infra.keys import MASTER_KEY
from workers.cli import cli
from workers.replaying import Asked, ReplayRefused, WrongOption, run_replay

pytestmark = pytest.mark.database


def replay(installation: Installation, told: Any = None, **options: Any) -> list[dict[str, Any]]:
    """The lines it writes."""
    out = io.BytesIO()
    asked = Asked(**{"filters": {}, **options})
    more = {} if told is None else {"told": told}
    assert run_replay(installation.settings(), asked, out=out, **more) == 0
    return [json.loads(line) for line in out.getvalue().splitlines()]


@pytest.fixture
def filled(installation: Installation) -> Installation:
    """A log of two thousand events."""
    company.fill(installation.url, 2_000)
    return installation


@pytest.fixture
def golden(installation: Installation) -> Installation:
    """A log with persons in it, whose keys are there."""
    settings = installation.settings()
    settings.data_dir.mkdir(parents=True)
    settings.master_key_file.write_bytes(MASTER_KEY)
    fill_log(installation.url, "log", golden_rows())
    fill_vault(installation.url, "vault")
    return installation


def test_the_whole_log_and_parts_of_it(filled: Installation) -> None:
    *lines, last = replay(filled)
    assert [line["position"] for line in lines] == list(range(1, len(lines) + 1))
    assert last == {"next_after": len(lines), "end": len(lines)}
    *part, last = replay(filled, filters={"after": 100, "to": 110, "limit": 3})
    assert (part, last) == (lines[100:103], {"next_after": 103, "end": len(lines)})
    lost = [line for line in lines if line["type"] == "crm.opportunity.lost"]
    assert replay(filled, filters={"type": ["crm.opportunity.lost"]})[:-1] == lost
    deal = UUID(lost[0]["stream"]["id"])
    assert replay(filled, stream=deal)[-2] == lost[0]
    since, until = lines[50]["recorded_at"], lines[60]["recorded_at"]
    between = replay(filled, filters={"from": since, "until": until})[:-1]
    assert between == [line for line in lines if since <= line["recorded_at"] < until]


def test_a_state_a_difference_and_a_command(filled: Installation) -> None:
    *lines, _ = replay(filled)
    lost = next(line for line in lines if line["type"] == "crm.opportunity.lost")
    deal = UUID(lost["stream"]["id"])
    (state,) = replay(filled, stream=deal, state=True)
    assert (state["state"]["status"], state["version"]) == ("lost", lost["version"])
    (state,) = replay(filled, stream=deal, state=True, version="1")
    assert state["state"]["status"] == "open"
    (before,) = replay(filled, stream=deal, state=True, as_of=lost["occurred_at"][:10] + "T00:00Z")
    assert before["state"]["status"] == "open"
    version = str(lost["version"])
    (found,) = replay(filled, stream=deal, difference=(str(lost["version"] - 1), version))
    words = {one["what"]: one["words"].partition(",")[0] for one in found["differences"]}
    assert words == {
        "status": "status: open → lost",
        "loss_cause": "loss_cause: nothing → price",
        "competitor": "competitor: nothing → Globex",
    }
    (trace,) = replay(filled, command=UUID(lost["command_id"]))
    assert len(trace["events"]) == 1000  # the whole log is of one command here
    assert trace["more_events"]
    assert not trace["read_models"]["funnel"]["visible"]


def test_tables_at_a_terminal(filled: Installation) -> None:
    *lines, _ = replay(filled, filters={"limit": 5})
    asked: list[dict[str, Any]] = [
        {"stream": DEFAULT_PIPELINE_ID, "state": True},
        {"stream": DEFAULT_PIPELINE_ID, "difference": ("0", "1")},
        {"command": UUID(lines[0]["command_id"])},
    ]
    for options, expected in zip(asked, ("revisions", "nothing", "funnel not yet"), strict=True):
        console = Console(file=io.StringIO(), width=200)
        wanted = Asked(filters={}, **options)
        assert run_replay(filled.settings(), wanted, console=console) == 0
        shown = console.file.getvalue()  # type: ignore[attr-defined]
        assert expected in shown or expected == "nothing"
        assert "project sale" in shown or "command" in options


def test_personal_text_for_those_who_ask_and_hold_the_key(golden: Installation) -> None:
    handed: list[dict[str, Any]] = []

    def told(**one: Any) -> None:
        handed.append(one)

    text = json.dumps(replay(golden, told))
    assert "[personal]" in text
    assert "Trillian" not in text
    assert handed == []
    *lines, last = replay(golden, told, personal=True)
    assert "Trillian Astra" in json.dumps(lines)
    (one,) = handed
    assert one["kind"] == "replay"
    assert one["actor"].startswith("terminal:")
    assert (one["first"], one["last"]) == (1, last["end"])

    subject = "f6cb1ec9-9311-58fe-842f-1d2db8b73118"
    golden.query(
        f"UPDATE vault.keys SET wrapped = NULL, destroyed_at = now() WHERE subject = '{subject}'"
    )
    for personal in (False, True):
        of_it = replay(golden, told, personal=personal, stream=UUID(subject))
        assert of_it[0]["data"]["personal_name"] == "[erased]"


def test_without_the_master_key_there_is_no_personal_text(filled: Installation) -> None:
    with pytest.raises(ReplayRefused, match=r"master\.key is not there"):
        replay(filled, personal=True)
    assert not filled.settings().master_key_file.exists()


def test_a_file_is_new_and_whole(filled: Installation, tmp_path: Path) -> None:
    path = tmp_path / "log.ndjson"
    asked = Asked(filters={"limit": 10}, output=path)
    assert run_replay(filled.settings(), asked) == 0
    assert path.read_bytes().count(b"\n") == 11
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(WrongOption, match="there already"):
        run_replay(filled.settings(), asked)
    assert [one.name for one in tmp_path.glob("*ndjson*")] == ["log.ndjson"]
    with pytest.raises(WrongOption, match="No such file"):
        run_replay(filled.settings(), Asked(filters={}, output=tmp_path / "no" / "x"))


@pytest.mark.parametrize(
    "options",
    [
        "--after 5 --to 4",
        "--after x",
        "--type crm.nothing",
        "--from 2026-01-01T00:00:00",
        "--from 2026-01-02T00:00:00Z --until 2026-01-01T00:00:00Z",
        "--limit 0",
        "--stream x",
        "--state",
        "--difference 1 2",
        "--version 1",
        "--stream {id} --state --version 1 --as-of 2026-01-01T00:00:00Z",
        "--stream {id} --state --as-of 2026-01-01",
        "--stream {id} --state --difference 1 2",
        "--stream {id} --difference 2 1",
        "--stream {id} --difference 1 2026-01-01T00:00:00Z",
        "--stream {id} --difference 1 2 --version 3",
        "--stream {id} --state --limit 3",
        "--command {id} --stream {id}",
    ],
)
def test_what_cannot_be_asked(tmp_path: Path, options: str) -> None:
    """Told before anything is started."""
    arguments = options.format(id=uuid4()).split()
    environment = {"CRM_DATA_DIR": str(tmp_path / "data")}
    result = CliRunner().invoke(cli, ["replay", *arguments], env=environment)
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    assert not (tmp_path / "data").exists()


def test_what_there_is_none_of(filled: Installation) -> None:
    for options in ({"stream": uuid4(), "state": True}, {"command": uuid4()}):
        with pytest.raises(ReplayRefused, match=r"no stream|no event"):
            replay(filled, **options)
    assert replay(filled, stream=uuid4())[0]["next_after"] > 0
