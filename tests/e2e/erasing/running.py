"""The product as processes on a data directory of its own, and a search through all it leaves."""

from __future__ import annotations

import base64
import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from infra.embedded import EmbeddedPostgres
from infra.postgres import connect, quote

ROOT = Path(__file__).parents[3]
PATIENCE = 300.0


class Running:
    """``crm`` and its workers; what they say goes to files in ``said``."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.directory = folder / "data"
        self.said = folder / "said"
        self.said.mkdir()
        self.settings = settings
        self.processes: dict[str, subprocess.Popen[str]] = {}
        self.url = ""

    def environment(self, **settings: str) -> dict[str, str]:
        others = {name: value for name, value in os.environ.items() if not name.startswith("CRM_")}
        return {
            **others,
            "CRM_DATA_DIR": str(self.directory),
            "CRM_PORT": "0",
            "CRM_LOG_LEVEL": "debug",
            **self.settings,
            **settings,
        }

    def start(self, *arguments: str, **settings: str) -> subprocess.Popen[str]:
        name = arguments[0]
        with (self.said / f"{name}.log").open("ab") as output:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "workers.cli", *arguments],
                cwd=ROOT,
                env=self.environment(**settings),
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
            )
        return self.processes[name]

    def up(self, **settings: str) -> None:
        """Starts it and waits until it says where it listens."""
        process = self.start("up", **settings)
        assert process.stdout is not None
        address = re.search(r"http://\S+", process.stdout.readline())
        assert address is not None, (self.said / "up.log").read_text()[-2000:]
        self.url = address[0]

    def crm(self, *arguments: str, **settings: str) -> str:
        """A command that must succeed; gives what it says."""
        done = subprocess.run(
            [sys.executable, "-m", "workers.cli", *arguments],
            cwd=ROOT,
            env=self.environment(**settings),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        with (self.said / f"{arguments[0]}.log").open("a") as output:
            output.write(done.stdout + done.stderr)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def end(self, name: str = "up", number: signal.Signals = signal.SIGTERM) -> int:
        process = self.processes.pop(name)
        process.send_signal(number)
        return self.ended(process)

    def ended(self, process: subprocess.Popen[str]) -> int:
        try:
            return process.wait(PATIENCE)
        finally:
            if process.stdout is not None:
                process.stdout.close()

    def client(self) -> httpx.Client:
        token = (self.directory / "token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=PATIENCE)

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """A command that must succeed."""
        with self.client() as client:
            response = client.post(
                path, json=body or {}, headers={"Idempotency-Key": uuid.uuid4().hex}
            )
        assert response.is_success, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def get(self, path: str, **parameters: Any) -> dict[str, Any]:
        with self.client() as client:
            response = client.get(path, params=parameters)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def close(self) -> None:
        for name in list(self.processes):
            self.end(name, signal.SIGKILL)


class Database:
    """The embedded database seen by its administrator."""

    def __init__(self, url: str) -> None:
        self._connection = connect(url, autocommit=True)

    def rows(self, statement: str, parameters: Any = None) -> list[Any]:
        with self._connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []

    def tables(self) -> list[str]:
        """All there are in schemas of the product."""
        return [
            f"{quote(schema)}.{quote(table)}"
            for schema, table in self.rows(
                "SELECT schemaname, tablename FROM pg_tables"
                " WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
                " ORDER BY schemaname, tablename"
            )
        ]

    def holding(self, *texts: str) -> dict[str, set[str]]:
        """For each text the tables with it in any column, also in the bytes of one."""
        found: dict[str, set[str]] = {text: set() for text in texts}
        wanted = [(text, form.decode()) for text in texts for form in forms(text)]
        columns = ", ".join(["coalesce(bool_or(position(%s IN whole) > 0), false)"] * len(wanted))
        for table in self.tables():
            (held,) = self.rows(
                f"SELECT {columns} FROM (SELECT row::text AS whole FROM {table} AS row) AS rows",
                [form for _, form in wanted],
            )
            for (text, _), holds in zip(wanted, held, strict=True):
                if holds:
                    found[text].add(table.replace('"', ""))
        return found

    def close(self) -> None:
        self._connection.close()


@contextmanager
def database(directory: Path) -> Iterator[Database]:
    """Joins the server of the data directory, or runs it alone."""
    with EmbeddedPostgres(directory) as server:
        opened = Database(server.admin_url)
        try:
            yield opened
        finally:
            opened.close()


def forms(text: str) -> list[bytes]:
    """How a text may stand somewhere: as it is, in hexadecimal digits, in base64."""
    raw = text.encode()
    encoded = [base64.b64encode(b" " * before + raw) for before in range(3)]
    return [raw, raw.hex().encode(), *(part[4:-4] for part in encoded)]


def files_holding(folders: Iterable[Path], *texts: str) -> dict[str, set[str]]:
    """For each text the files with it in any form; one that goes away meanwhile holds nothing."""
    found: dict[str, set[str]] = {text: set() for text in texts}
    for folder in folders:
        for path in folder.rglob("*"):
            if not path.is_file() or path.is_symlink():
                continue
            try:
                content = path.read_bytes()
            except FileNotFoundError:
                continue
            for text in texts:
                if any(form in content for form in forms(text)):
                    found[text].add(str(path))
    return found
