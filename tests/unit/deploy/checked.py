"""What files of deployment say, held against the product: its settings, commands and image."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer
import yaml
from typer.main import get_command

from infra.settings import PREFIX, Settings, load
from workers.cli import cli

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
SECRETS = {"CRM_DATABASE_URL": "postgresql://crm@database/crm"}
"""What has to come from outside."""

_SETTINGS = {PREFIX + name.upper() for name in Settings.model_fields}


def documents(*parts: str) -> list[Any]:
    """The documents of a YAML file below `deploy/`."""
    with DEPLOY.joinpath(*parts).open(encoding="utf-8") as file:
        return list(yaml.safe_load_all(file))


def unknown_settings(text: str) -> set[str]:
    """The words in `text` that look like settings and are none."""
    return set(re.findall(r"\bCRM_[A-Z_]*[A-Z]\b", text)) - _SETTINGS


def settings_of(environment: Mapping[str, Any]) -> Settings:
    """What the product makes of it. Raises `SettingsError`."""
    return load({name: str(value) for name, value in environment.items()})


def parse_command(words: list[str]) -> str:
    """The name of the command of `crm` that is run by these words, without running it.

    Raises `click.UsageError` for one that there is not, and for arguments that it does not take.
    """
    group = get_command(cli)
    with group.make_context("crm", list(words)) as context:
        name, command, rest = group.resolve_command(context, list(words))  # type: ignore[attr-defined]
        assert command is not None
        command.make_context(name, rest, parent=typer.Context(command))
    return str(name)


def version() -> str:
    with (ROOT / "pyproject.toml").open("rb") as file:
        return str(tomllib.load(file)["project"]["version"])


def run_linter(name: str, *arguments: str | Path) -> str:
    """What a linter of the development tools finds; empty if nothing."""
    program = Path(sys.executable).parent / name
    done = subprocess.run(
        [program, *arguments], cwd=ROOT, check=False, capture_output=True, text=True
    )
    found = f"{done.stdout}{done.stderr}".strip()
    return found if done.returncode else ""


def strings(value: Any) -> Iterator[str]:
    """Every string in a document, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield str(key)
            yield from strings(one)
    elif isinstance(value, list):
        for one in value:
            yield from strings(one)
