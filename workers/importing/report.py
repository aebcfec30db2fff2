"""What could not be taken, line by line, to a file and in sum to the terminal."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, TextIO

from workers.importing.records import FileError

EXAMPLES: Final = 3
"""Shown for each kind of problem."""
CHANGED: Final = "changed"


@dataclass(frozen=True, slots=True)
class Entry:
    """Why a line was not taken, or not all of it."""

    file: str
    line: int
    id: str
    problem: str
    message: str


_FIELDS: Final = list(Entry.__dataclass_fields__)


class Report:
    """Collects entries; written to `path` as they come: NDJSON or CSV by its ending."""

    def __init__(self, path: Path | None) -> None:
        """Raises FileError."""
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, list[Entry]] = {}
        self._file: TextIO | None = None
        self._csv: Any = None
        if path is None:
            return
        if path.suffix not in (".csv", ".ndjson", ".jsonl"):
            raise FileError(f"{path}: a report ends in .csv, .ndjson or .jsonl")
        try:
            self._file = path.open("w", encoding="utf-8", newline="")
        except OSError as error:
            raise FileError(f"{path}: {error.strerror or error}") from None
        if path.suffix == ".csv":
            self._csv = csv.DictWriter(self._file, _FIELDS, lineterminator="\n")
            self._csv.writeheader()

    def add(self, entry: Entry) -> None:
        self.counts[entry.problem] += 1
        examples = self.examples.setdefault(entry.problem, [])
        if len(examples) < EXAMPLES:
            examples.append(entry)
        if self._csv is not None:
            self._csv.writerow(asdict(entry))
        elif self._file is not None:
            self._file.write(json.dumps(asdict(entry), ensure_ascii=False) + "\n")

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
