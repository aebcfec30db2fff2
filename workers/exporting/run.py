"""One export from beginning to end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from psycopg2.extensions import connection as Connection  # noqa: N812  (it is a class)
from rich.console import Console

from domain.definitions import Definitions
from infra import handouts
from infra.definitions import load as load_definitions
from infra.handouts import at_the_machine
from infra.postgres import connect
from infra.settings import Settings
from projections.catalogue import projections
from projections.snapshot import BiView, Snapshot, snapshot
from projections.star import KEYS
from workers.exporting.files import FILES, Row, as_text, checksum
from workers.exporting.folder import new_folder, write_manifest
from workers.loop import DONE, INTERRUPTED, Signals
from workers.progress import progress, terminal
from workers.wiring import databases, now

FORMATS: Final = tuple(FILES)

_BATCH: Final = 20_000
"""Rows that are in memory at once."""


class UnknownTable(Exception):
    """There is no view of that name in `bi`."""


def run_export(
    settings: Settings,
    folder: Path,
    *,
    formats: Sequence[str] = FORMATS,
    tables: Sequence[str] = (),
    overwrite: bool = False,
    console: Console | None = None,
    clock: Callable[[], datetime] = now,
) -> int:
    """Writes the views of `bi`, or just `tables`, as files into `folder`; returns the exit code.

    All are as at one position of the log, which the manifest names, however far the read models
    were apart, in the order of their keys. 130: stopped by SIGINT or SIGTERM. Whatever ends it
    early, `folder` is as it was.
    Raises InTheWay, UnknownTable, NotBuilt, and what the database raises.
    """
    console = console or terminal()
    definitions = load_definitions(settings.definitions_file)
    models = projections(definitions)
    try:
        with ExitStack() as stack:
            stack.enter_context(Signals())
            new = stack.enter_context(new_folder(folder, overwrite=overwrite))
            addresses = stack.enter_context(databases(settings, administering=False))
            connection = stack.enter_context(
                closing(connect(addresses.read, role="crm_reader", application_name="crm export"))
            )
            shot = stack.enter_context(snapshot(connection, models.values()))
            told = stack.enter_context(progress(console, "rows exported", None))
            export = _Export(connection, shot, new, formats, definitions, told)
            manifest = export.run(tables, clock())
            write_manifest(new, manifest)
            _note(addresses.log, manifest)  # before it is given away, by the end of this block
    except KeyboardInterrupt:
        return INTERRUPTED
    rows = sum(table["rows"] for table in manifest["tables"].values())
    console.print(
        f"{folder}: {len(manifest['tables']):,} tables, {rows:,} rows,"
        f" as at position {manifest['position']:,}"
    )
    return DONE


def _note(url: str, manifest: Mapping[str, Any]) -> None:
    """That this has left the product, for the certificates of those who are erased later."""
    with closing(
        connect(url, role="crm_reader", search_path=["log"], application_name="crm export")
    ) as connection:
        handouts.record(
            connection,
            actor=at_the_machine(),
            kind="export",
            position=manifest["position"],
            what=", ".join(manifest["tables"]),
            personal=False,
        )
        connection.commit()


class _Export:
    def __init__(
        self,
        connection: Connection,
        shot: Snapshot,
        folder: Path,
        formats: Sequence[str],
        definitions: Definitions,
        told: Callable[[int], None],
    ) -> None:
        self._connection = connection
        self._shot = shot
        self._folder = folder
        self._formats = list(dict.fromkeys(formats))
        self._definitions = {name: part.id for name, part in definitions.parts().items()}
        self._told = told
        self._rows = 0

    def run(self, tables: Sequence[str], at: datetime) -> dict[str, Any]:
        """The manifest of what was written."""
        views = {view.name: view for view in self._shot.views}
        for name in tables:
            if name not in views:
                raise UnknownTable(f"{name}; there are {', '.join(views)}")
        wanted = [view for name, view in views.items() if not tables or name in tables]
        return {
            "version": 1,
            "position": self._shot.position,
            "exported_at": at.isoformat(),
            "read_models": {
                name: {"id": one.id, "position": one.position, "parked": one.parked}
                for name, one in self._shot.reached.items()
            },
            "definitions": self._definitions,
            "tables": {view.name: self._table(view) for view in wanted},
        }

    def _table(self, view: BiView) -> dict[str, Any]:
        paths = {name: self._folder / f"{view.name}.{name}" for name in self._formats}
        rows = 0
        with ExitStack() as stack:
            files = [
                stack.enter_context(closing(FILES[name](path, view, self._about())))
                for name, path in paths.items()
            ]
            for batch in self._batches(view):
                for file in files:
                    file.write(batch)
                rows += len(batch)
                self._told(self._rows + rows)
        self._rows += rows
        return {
            "comment": view.comment,
            "rows": rows,
            "columns": [
                {"name": c.name, "type": c.type, "comment": c.comment} for c in view.columns
            ],
            "files": {path.name: checksum(path) for path in paths.values()},
        }

    def _about(self) -> Mapping[str, str]:
        named = (f"{name} {id_}" for name, id_ in self._definitions.items())
        return {"position": str(self._shot.position), "definitions": ", ".join(named)}

    def _batches(self, view: BiView) -> Iterator[list[Row]]:
        listed = ", ".join(map(as_text, view.columns))
        order = ", ".join(f"row.{column}" for column in KEYS[view.name])
        with self._connection.cursor("export") as cursor:
            cursor.execute(
                f"SELECT {listed} FROM ({self._shot.query(view)}) AS row ORDER BY {order}"
            )
            while rows := cursor.fetchmany(_BATCH):
                yield rows
