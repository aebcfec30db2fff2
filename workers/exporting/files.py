"""Rows of a view into files. All values come as PostgreSQL's texts, None being NULL."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

from infra.postgres import quote
from projections.snapshot import BiView, ViewColumn

Row: TypeAlias = tuple[str | None, ...]

DECIMALS: Final = 12
"""Places of a number in an export. Amounts have four at most, shares six; quotients are rounded."""

_FORMULAS: Final = tuple("=+-@\t\r\n＝＋－＠")  # noqa: RUF001
"""What a spreadsheet takes for the beginning of a formula, or drops before it looks for one; in
East Asian versions the fullwidth forms as well."""

_NO_TEXTS: Final = frozenset(
    (
        *("smallint", "integer", "bigint", "boolean", "date", "timestamp with time zone"),
        *("numeric", "real", "double precision", "uuid"),
    )
)


def as_text(column: ViewColumn) -> str:
    """An SQL expression for the column's value as exports have it: infinite times are NULL."""
    name = quote(column.name)
    if column.type in ("date", "timestamp with time zone"):
        return f"CASE WHEN isfinite({name}) THEN {name}::text END"
    if column.type == "numeric":
        rounded = f"CASE WHEN scale({name}) > {DECIMALS} THEN round({name}, {DECIMALS})"
        return f"({rounded} ELSE {name} END)::text"
    return f"{name}::text"


def is_text(column: ViewColumn) -> bool:
    """Whether anything may stand there."""
    return column.type not in _NO_TEXTS


class TableFile(Protocol):
    """A file that is being written; whole once it is closed."""

    def write(self, rows: Sequence[Row]) -> None: ...

    def close(self) -> None: ...


class CsvFile:
    """UTF-8, a line of names, then the rows. Texts stand in quotes, NULL is nothing at all.

    A text that a spreadsheet would run as a formula gets an apostrophe in front.
    """

    def __init__(self, path: Path, view: BiView, _: Mapping[str, str]) -> None:
        self._file = path.open("w", encoding="utf-8", newline="")
        csv.writer(self._file, lineterminator="\n").writerow(c.name for c in view.columns)
        self._cells: list[Callable[[str], str]] = [
            _quoted if is_text(column) else str for column in view.columns
        ]

    def write(self, rows: Sequence[Row]) -> None:
        cells = self._cells
        self._file.writelines(
            ",".join(
                "" if value is None else cell(value) for cell, value in zip(cells, row, strict=True)
            )
            + "\n"
            for row in rows
        )

    def close(self) -> None:
        self._file.close()


def _quoted(value: str) -> str:
    if value.startswith(_FORMULAS):
        value = f"'{value}"
    return '"' + value.replace('"', '""') + '"'


def _parquet(path: Path, view: BiView, about: Mapping[str, str]) -> TableFile:
    from workers.exporting.parquet import ParquetFile  # heavy, and only needed here

    return ParquetFile(path, view, about)


FILES: Final[Mapping[str, Callable[[Path, BiView, Mapping[str, str]], TableFile]]] = {
    "parquet": _parquet,
    "csv": CsvFile,
}
"""By the format's name, which is also the end of the file's name."""


def checksum(path: Path) -> dict[str, Any]:
    """As the manifest has it."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}
