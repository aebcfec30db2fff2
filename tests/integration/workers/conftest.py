"""An installation of one's own for each test: an empty database and a data directory."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from rich.console import Console

from infra.migrations import migrate
from infra.postgres import connect
from infra.settings import Settings, load
from workers.demo import run_demo
from workers.importing import run_import

HEADER = (
    "id,name,account,owner,stage,amount,currency,opened,expected_close,closed,outcome,"
    "loss_cause,competitor"
)


@dataclass(frozen=True)
class Event:
    """A row of the log; `state` is its JSON."""

    position: int
    stream_id: UUID
    version: int
    topic: str
    occurred_at: datetime
    actor: str
    reason: str | None
    state: dict[str, Any] = field(hash=False)

    @property
    def kind(self) -> str:
        return self.topic.rsplit(".", 1)[1]


class Installation:
    """A product that is run in this process, command by command."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.said = ""
        self._environment = {"CRM_DATABASE_URL": url, "CRM_DATA_DIR": str(folder / "data")}

    def settings(self, **others: str) -> Settings:
        return load(self._environment | others)

    def file(self, *lines: str, header: str = HEADER, name: str = "deals.csv") -> Path:
        path = self.folder / name
        path.write_text("\n".join([header, *lines, ""]), encoding="utf-8", newline="")
        return path

    def load(self, path: Path, mapping: str = "generic", **options: Any) -> int:
        """Runs the import; its report lies in `reported`."""
        settings = self.settings(**options.pop("settings", {}))
        console = Console(file=io.StringIO(), width=200)
        report = self.folder / "report.ndjson"
        code = run_import(settings, path, mapping, report=report, console=console, **options)
        self.said = console.file.getvalue()  # type: ignore[attr-defined]
        return code

    def demo(self, **options: Any) -> int:
        settings = self.settings(**options.pop("settings", {}))
        console = Console(file=io.StringIO(), width=200)
        code = run_demo(settings, console=console, **options)
        self.said = console.file.getvalue()  # type: ignore[attr-defined]
        return code

    def reported(self) -> list[tuple[int, str, str]]:
        """Line, id and problem of each line that was not taken, by line."""
        report = (self.folder / "report.ndjson").read_text()
        entries = map(json.loads, report.splitlines())
        return sorted((entry["line"], entry["id"], entry["problem"]) for entry in entries)

    def messages(self) -> list[str]:
        report = (self.folder / "report.ndjson").read_text()
        return [json.loads(line)["message"] for line in report.splitlines()]

    def query(self, statement: str) -> list[Any]:
        connection = connect(self.url, autocommit=True)
        with connection.cursor() as cursor:
            cursor.execute(statement)
            rows = cursor.fetchall() if cursor.description else []
        connection.close()
        return rows

    def events(self, prefix: str = "crm.") -> list[Event]:
        """Those whose topic begins so, in order."""
        rows = self.query(
            "SELECT position, stream_id, version, topic, occurred_at, actor, reason,"
            " convert_from(state, 'UTF8') FROM log.events ORDER BY position"
        )
        names = [column.name for column in fields(Event)]
        found = [
            Event(**dict(zip(names, [*row[:-1], json.loads(row[-1])], strict=True))) for row in rows
        ]
        return [event for event in found if event.topic.startswith(prefix)]

    def forget_receipts(self) -> None:
        """As time does."""
        self.query("DELETE FROM log.receipts")


@pytest.fixture
def new_installation(new_database: Callable[[], str], tmp_path: Path) -> Callable[[], Installation]:
    made = 0

    def make() -> Installation:
        nonlocal made
        made += 1
        folder = tmp_path / str(made)
        folder.mkdir()
        url = new_database()
        migrate(url)
        return Installation(url, folder)

    return make


@pytest.fixture
def installation(new_installation: Callable[[], Installation]) -> Installation:
    return new_installation()
