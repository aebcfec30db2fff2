"""`crm rebuild` as it is called: killed anywhere, verifying, back, forgetting."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from infra import crashpoints
from infra.postgres import Pool
from projections.catalogue import PROJECTIONS
from projections.funnel import FunnelProjection
from tests.integration.projections.logged import write_log
from tests.integration.projections.story import Story
from tests.integration.projections.strategies import random_story
from tests.integration.workers.conftest import Installation
from workers.doctor import examine
from workers.rebuilding import How, forget_former, put_back, rebuild_models

pytestmark = pytest.mark.database

FUNNEL = FunnelProjection()


@dataclass
class Company:
    """An installation with a log."""

    installation: Installation
    story: Story
    said: list[str] = field(default_factory=list)

    def query(self, statement: str) -> list[Any]:
        return self.installation.query(statement)

    def rebuild(self, *names: str, **how: Any) -> int:
        self.said.clear()
        return rebuild_models(self.installation.settings(), names, How(**how), self.said.append)

    def rows(self) -> dict[str, list[Any]]:
        return {
            table: self.query(f"SELECT row::text FROM read.{table} AS row ORDER BY 1")
            for table in (*FUNNEL.tables(), *FUNNEL.sums(), "applied")
        }

    def crm(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("CRM_")},
            "CRM_DATABASE_URL": self.installation.url,
            "CRM_DATA_DIR": str(self.installation.folder / "data"),
            **settings,
        }
        return subprocess.run(
            [sys.executable, "-m", "workers.cli", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    def killed_at(self, point: str, workers: int = 1) -> bool:
        """Rebuilds the funnel in a process that kills itself there; whether it came so far."""
        process = os.fork()
        if process == 0:
            try:
                crashpoints.arm(point)
                self.rebuild("funnel", workers=workers)
            finally:
                os._exit(1)
        _, status = os.waitpid(process, 0)
        return os.waitstatus_to_exitcode(status) == -signal.SIGKILL

    def sets(self) -> set[str]:
        """The schemas of sets beside the live one."""
        like = "'^(shadow|former)_'"
        return {
            row[0] for row in self.query(f"SELECT nspname FROM pg_namespace WHERE nspname ~ {like}")
        }


@pytest.fixture
def company(installation: Installation) -> Company:
    story = random_story(85, 160, customers=25)
    with Pool(installation.url, size=1) as pool:
        write_log(pool, "log", story)
    return Company(installation, story)


# Where it is killed, by how many workers it has, and whether the next run can go on from there.
KILLED = [
    (1, "rebuild.in_share", False),
    (1, "rebuild.before_commit", False),
    (1, "rebuild.after_commit", True),
    (2, "rebuild.filled", True),
    (1, "rebuild.indexed", True),
    (1, "rebuild.caught_up", True),
    (1, "rebuild.in_swap", True),
    (1, "rebuild.swapped", True),
]


@pytest.mark.parametrize(("workers", "point", "resumed"), KILLED)
def test_killed_anywhere_it_leaves_the_live_set_and_is_right_the_next_time(
    company: Company, workers: int, point: str, resumed: bool
) -> None:
    assert company.rebuild("funnel") == 0
    good = company.rows()
    company.query("UPDATE read.deal_period SET amount = amount + 1")
    drifted = company.rows()
    assert company.killed_at(point, workers)
    assert company.rows() == drifted
    assert company.sets() == {"shadow_funnel"}
    assert company.rebuild("funnel") == 0
    assert any("went on" in line for line in company.said) == resumed
    assert company.rows() == good
    assert company.sets() == {"former_funnel"}
    assert company.rebuild("funnel", verify=True) == 0


def test_a_process_of_it_that_is_killed_ends_it(company: Company) -> None:
    assert company.rebuild("funnel") == 0
    good = company.rows()
    ended = company.crm(
        "rebuild", "funnel", "--workers", "2", CRM_CRASHPOINT="rebuild.before_commit"
    )
    assert ended.returncode == 1
    assert "has died" in ended.stdout
    assert "Traceback" not in ended.stderr
    assert company.rows() == good
    assert company.rebuild("funnel", workers=2) == 0
    assert company.rows() == good


def test_what_was_filled_is_not_gone_on_with_when_the_log_is_another(company: Company) -> None:
    assert company.rebuild("funnel") == 0
    assert company.killed_at("rebuild.caught_up")
    company.query("UPDATE log.head SET store_epoch = gen_random_uuid()")
    assert company.rebuild("funnel") == 0
    assert not any("went on" in line for line in company.said)
    assert company.rebuild("funnel", verify=True) == 0


def test_keys_that_wait_in_an_unfinished_set_are_tried_again(company: Company) -> None:
    """Somebody may have mended the log since."""
    own = next(e for e in company.story.events if e.topic == "crm.opportunity.opened")
    state = "SELECT encode(state, 'hex') FROM log.events WHERE position = "
    (good,) = company.query(f"{state}{own.position}")[0]
    spoil = "UPDATE log.events SET state = decode('{}', 'hex') WHERE position = {}"
    company.query(spoil.format(b"{}".hex(), own.position))
    assert company.rebuild("funnel") == 0
    assert company.killed_at("rebuild.caught_up")
    company.query(spoil.format(good, own.position))
    assert company.rebuild("funnel") == 0
    assert company.query("SELECT count(*) FROM read.parked") == [(0,)]


def test_all_of_them_by_one_command(company: Company) -> None:
    ended = company.crm("rebuild", "--all", "--workers", "2")
    assert ended.returncode == 0, ended.stderr
    for name in PROJECTIONS:
        assert f"{name}: rebuilt up to position 160" in ended.stdout
    ended = company.crm("rebuild", "--all", "--verify-only")
    assert ended.returncode == 0, ended.stdout
    for projection in PROJECTIONS.values():
        for table in projection.tables():
            assert f"{table}: " in ended.stdout
    assert "NO" not in ended.stdout


def test_a_drift_ends_the_nightly_check_with_1_and_the_rows_that_differ(company: Company) -> None:
    assert company.rebuild(*PROJECTIONS) == 0
    company.query("UPDATE read.deal_period SET amount = amount + 1 WHERE known_to > 900000")
    before = company.rows()
    ended = company.crm("rebuild", "--all", "--verify-only")
    assert ended.returncode == 1
    lines = ended.stdout.splitlines()
    (place,) = (number for number, line in enumerate(lines) if "same: NO" in line)
    assert lines[place].startswith("deal_period: ")
    assert lines[place + 1].startswith("  live: (")
    assert company.rows() == before
    assert company.sets() == set()


def test_one_that_cannot_be_compared_does_not_keep_the_others_from_it(company: Company) -> None:
    assert company.rebuild("funnel") == 0
    ended = company.crm("rebuild", "lifecycle", "funnel", "--verify-only")
    assert ended.returncode == 1
    assert "lifecycle: nothing is there" in ended.stdout
    assert "funnel: verified up to position 160" in ended.stdout
    assert "Traceback" not in ended.stderr


def test_back_and_forget(company: Company) -> None:
    assert company.rebuild("funnel") == 0
    assert company.crm("rebuild", "funnel", "--back").returncode == 1  # nothing was there before
    company.query("UPDATE read.deal_period SET amount = amount + 1")
    drifted = company.rows()
    assert company.rebuild("funnel") == 0
    rebuilt = company.rows()
    (finding,) = (one for one in examine(company.installation.settings()) if "--back" in one.text)
    assert finding.good
    assert finding.subject == "former funnel"
    assert " MB" in finding.text
    ended = company.crm("rebuild", "funnel", "--back")
    assert ended.returncode == 0
    assert "is back, it goes on from position 160" in ended.stdout
    assert company.rows() == drifted
    assert put_back(company.installation.settings(), ["funnel"], company.said.append) == 0
    assert company.rows() == rebuilt
    assert forget_former(company.installation.settings(), ["funnel"], company.said.append) == 0
    assert company.sets() == set()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["funnel", "--all"],
        ["nonsense"],
        ["funnel", "--back", "--forget"],
        ["funnel", "--verify-only", "--back"],
        ["funnel", "--workers", "0"],
    ],
)
def test_what_makes_no_sense_is_refused(
    company: Company, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    from typer.testing import CliRunner

    from workers.cli import cli

    ended = CliRunner().invoke(cli, ["rebuild", *arguments])
    assert ended.exit_code == 2
    assert company.sets() == set()


def test_gently_comes_to_the_same(
    company: Company, monkeypatch: pytest.MonkeyPatch, new_installation: Callable[[], Installation]
) -> None:
    assert company.rebuild("funnel") == 0
    rested: list[float] = []
    monkeypatch.setattr("projections.rebuild.rebuilding.Gentle.batch", 20)
    monkeypatch.setattr("projections.rebuild.rebuilding.time.sleep", rested.append)
    monkeypatch.setattr("workers.rebuilding.os.nice", lambda _: 0)
    good = company.rows()
    assert company.rebuild("funnel", gently=True) == 0
    assert company.rows() == good
    assert len(rested) >= 8
