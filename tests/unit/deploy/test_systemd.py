"""deploy/systemd: what linters of unit files say, and against the product."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from projections.catalogue import PROJECTIONS
from tests.unit.deploy.checked import DEPLOY, parse_command, settings_of, unknown_settings

SYSTEMD = DEPLOY / "systemd"
UNITS = sorted(path.name for path in SYSTEMD.glob("*.service"))
PROGRAM = "/opt/crm-ledger/.venv/bin/crm"
INSTANCES = {"crm-api@.service": ["8000"], "crm-project@.service": list(PROJECTIONS)}


def directives(unit: str) -> list[tuple[str, str]]:
    text = (SYSTEMD / unit).read_text(encoding="utf-8")
    return [(name, value) for name, value in re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE)]


def only(unit: str, name: str) -> str:
    (value,) = [value for key, value in directives(unit) if key == name]
    return value


def environment() -> dict[str, str]:
    text = (SYSTEMD / "crm.env").read_text(encoding="utf-8")
    return dict(re.findall(r"^([A-Z_]+)=(.*)$", text, re.MULTILINE))


@pytest.mark.parametrize("unit", UNITS)
def test_linters_have_nothing_to_say(unit: str, tmp_path: Path) -> None:
    """systemdlint comes with the development tools; where systemd is, it is asked as well."""
    text = (SYSTEMD / unit).read_text(encoding="utf-8")
    # The program is where it will be installed, not on this machine.
    copied = tmp_path / unit
    copied.write_text(text.replace(PROGRAM, "/bin/true"), encoding="utf-8")
    linter = Path(sys.executable).parent / "systemdlint"
    done = subprocess.run(
        [linter, "--norootfs", copied], check=False, capture_output=True, text=True
    )
    said = f"{done.stdout}{done.stderr}".splitlines()
    # Its advice on security takes 0077 for a mask that lets the world write.
    assert [line for line in said if "[Security." not in line] == []
    analyzer = shutil.which("systemd-analyze")
    if analyzer is not None:
        command = [analyzer, "verify", "--man=no", str(copied)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert f"{done.stdout}{done.stderr}".strip() == ""
        assert done.returncode == 0


def test_every_process_of_the_product_is_there() -> None:
    commands = {only(unit, "ExecStart").split()[1] for unit in UNITS}
    assert commands == {"api", "relay", "project", "policies", "seal", "rebuild"}


@pytest.mark.parametrize("unit", UNITS)
def test_every_unit_runs_a_command_with_settings_that_load(unit: str) -> None:
    program, *words = only(unit, "ExecStart").split()
    assert program == PROGRAM
    assert ("%i" in "".join(value for _, value in directives(unit))) == ("@" in unit)
    for instance in INSTANCES.get(unit, [""]):
        parse_command([word.replace("%i", instance) for word in words])
        own = [value for name, value in directives(unit) if name == "Environment"]
        given = dict(value.replace("%i", instance).split("=", 1) for value in own)
        settings = settings_of({**environment(), **given})
        assert not settings.embedded
        assert settings.kafka_bootstrap is not None
    assert ("EnvironmentFile", "/etc/crm-ledger/crm.env") in directives(unit)
    assert environment()["CRM_DATA_DIR"] == f"/var/lib/{only(unit, 'StateDirectory')}"


@pytest.mark.parametrize("unit", UNITS)
def test_units_may_do_no_more_than_they_need(unit: str) -> None:
    found = dict(directives(unit))
    assert found["User"] == "crm-ledger"
    assert found["CapabilityBoundingSet"] == ""
    assert found["ProtectSystem"] == "strict"
    assert found["UMask"] == "0077"
    for name in ("NoNewPrivileges", "ProtectHome", "PrivateTmp", "PrivateDevices"):
        assert found[name] == "yes"


@pytest.mark.parametrize("unit", [unit for unit in UNITS if unit != "crm-verify.service"])
def test_a_process_that_ended_by_itself_is_not_started_again(unit: str) -> None:
    """One that a newer version has replaced ends with 0, one with a wrong setting with 2."""
    assert only(unit, "Restart") == "on-failure"
    assert only(unit, "RestartPreventExitStatus") == "2"


def test_there_is_no_secret_and_no_unknown_setting_in_the_files() -> None:
    for path in SYSTEMD.iterdir():
        text = path.read_text(encoding="utf-8")
        assert unknown_settings(text) == set()
        assert not re.search(r"://[^/@\s]*:[^/@\s]*@", text)
        assert "PASSWORD=" not in text


def test_the_instructions_enable_every_unit_for_every_read_model() -> None:
    text = (SYSTEMD / "crm.env").read_text(encoding="utf-8")
    for unit in UNITS:
        stem = unit.removesuffix(".service")
        for instance in INSTANCES.get(unit, [""]):
            assert re.search(rf" {stem}{instance}\b", text)


def test_timers_start_services_that_are_there_and_may_end() -> None:
    timers = sorted(path.name for path in SYSTEMD.glob("*.timer"))
    assert timers
    for timer in timers:
        service = timer.replace(".timer", ".service")
        assert only(service, "Type") == "oneshot"
        assert "Restart" not in dict(directives(service))
        assert only(timer, "WantedBy") == "timers.target"
        assert dict(directives(timer)).keys() >= {"OnCalendar", "Persistent"}
