"""The image: what hadolint says, and what a container engine would find."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import distribution

import pytest
from packaging.requirements import Requirement

from tests.unit.deploy.checked import (
    DEPLOY,
    ROOT,
    parse_command,
    run_linter,
    settings_of,
    unknown_settings,
    version,
)

DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
FINAL_STAGE = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]


def test_hadolint_has_nothing_to_say() -> None:
    assert run_linter("hadolint", DEPLOY / "Dockerfile") == ""


def test_it_runs_a_command_of_crm_as_a_user_who_is_not_root() -> None:
    assert re.search(r'^ENTRYPOINT \["crm"\]$', FINAL_STAGE, re.MULTILINE)
    command = re.search(r'^CMD \["(.+)"\]$', FINAL_STAGE, re.MULTILINE)
    assert command is not None
    assert parse_command(command[1].split('", "')) == "api"
    user = re.search(r"^USER (\d+)$", FINAL_STAGE, re.MULTILINE)
    assert user is not None
    assert int(user[1]) > 0
    assert f"--uid {user[1]} " in FINAL_STAGE


def test_its_settings_are_settings() -> None:
    assert unknown_settings(DOCKERFILE) == set()
    settings_of(dict(re.findall(r"(CRM_[A-Z_]+)=(\S+)", FINAL_STAGE)))
    assert f"crm-ledger:{version()} " in DOCKERFILE


def test_what_is_copied_is_let_into_the_context_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    let_in = {rule[1:] for rule in rules if rule.startswith("!")}
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
        for source in line.split()[:-1]
    }
    assert let_in == copied
    assert all((ROOT / one).exists() for one in copied)


def test_every_package_of_the_product_is_in_it() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    packages = re.search(r"^packages = \[(.+)\]$", text, re.MULTILINE)
    assert packages is not None
    for package in re.findall(r'"(\w+)"', packages[1]):
        assert f"\nCOPY {package} ./{package}\n" in DOCKERFILE


def test_what_builds_the_wheel_is_locked_with_all_that_it_needs() -> None:
    names = re.search(r"/\^\(([a-z|-]+)\)==/", DOCKERFILE)
    assert names is not None
    wanted = set(names[1].split("|"))
    lock = (ROOT / "requirements-dev.lock").read_text(encoding="utf-8")
    assert wanted <= set(re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE))
    for name in wanted:
        for text in distribution(name).requires or []:
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                assert needed.name.lower() in wanted, f"{name} needs {needed}"


@contextmanager
def answering(status: int) -> Iterator[tuple[int, list[str]]]:
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port, asked
        finally:
            server.shutdown()
            thread.join()


def check_health(**environment: str) -> int:
    return subprocess.run(
        [sys.executable, DEPLOY / "healthcheck.py"],
        env=environment,
        check=False,
        capture_output=True,
    ).returncode


@pytest.mark.parametrize(
    ("variable", "path"), [("CRM_PORT", "/health/live"), ("CRM_METRICS_PORT", "/metrics")]
)
def test_a_container_is_healthy_when_its_process_answers(variable: str, path: str) -> None:
    with answering(200) as (port, asked):
        assert check_health(**{variable: str(port)}) == 0
        assert asked == [path]
    assert check_health(**{variable: str(port)}) == 1
    with answering(503) as (port, _):
        assert check_health(**{variable: str(port)}) == 1
