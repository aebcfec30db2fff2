"""docs/scaling.md names settings, commands and files that there are."""

from __future__ import annotations

import re

from tests.unit.deploy.checked import ROOT, parse_command, unknown_settings

PAGE = ROOT / "docs" / "scaling.md"
TEXT = PAGE.read_text(encoding="utf-8")


def test_the_settings_and_commands_it_names_are_there() -> None:
    assert unknown_settings(TEXT) == set()
    for command in re.findall(r"`crm ([a-z]+)`", TEXT):
        arguments = ["funnel"] if command in ("project", "rebuild") else []
        assert parse_command([command, *arguments]) == command


def test_its_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (PAGE.parent / target).exists(), target
