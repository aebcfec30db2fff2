"""Records of a CSV file, one by one, with the line each begins in; a bad one spoils no other."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import BinaryIO, Final

LONGEST_LINE: Final = 1_000_000
"""Bytes."""
MOST_LINES: Final = 1_000
"""Of one record: a field may have line breaks in quotes."""
WHITESPACE: Final = "whitespace"
"""Instead of a delimiter: fields stand apart by any number of blanks or tabs, without quotes."""
_BOM: Final = b"\xef\xbb\xbf"


class FileError(Exception):
    """The file as a whole cannot be used. The message names it."""


class LineError(Exception):
    """A line that cannot be taken: `problem` is a stable word, the message says more."""

    def __init__(self, problem: str, message: str) -> None:
        super().__init__(message)
        self.problem = problem
        self.message = message


@dataclass(frozen=True, slots=True)
class Record:
    """The fields of a record, or why it has none."""

    line: int
    fields: list[str]
    error: LineError | None = None


class Table:
    """A file of records, read as a stream: CSV, or columns apart by blanks or by their widths.

    Takes a byte order mark, either kind of line break, and line breaks inside quotes. Blank lines
    are passed over. Line numbers are those of an editor: the first line's is 1.
    """

    def __init__(
        self,
        path: Path,
        *,
        encoding: str = "utf-8",
        delimiter: str = ",",
        names: Sequence[str] | None = None,
        widths: Sequence[int] | None = None,
    ) -> None:
        """`names` are the columns of a file without header; a first line that repeats them is
        taken for one. `widths` (characters) are those of the columns, instead of a delimiter; the
        last column goes on to the end of the line. Raises FileError.
        """
        self.path = path
        self._encoding = encoding
        self._delimiter = delimiter
        self._edges = None if widths is None else list(pairwise(accumulate(widths, initial=0)))
        if path.exists() and not path.is_file():
            raise FileError(f"{path}: is not a file that can be read twice")
        try:
            with path.open("rb") as file:
                first = next(self._records(file), None)
        except OSError as error:
            raise FileError(f"{path}: {error.strerror or error}") from None
        found = None if first is None else [name.strip() for name in first.fields]
        self._headed = names is None or found == list(names)
        if names is not None:
            self.header = list(names)
            return
        if first is None or found is None:
            raise FileError(f"{path}: is empty: it has no header")
        if first.error is not None:
            raise FileError(f"{path}, line {first.line}: {first.error.message}")
        self.header = found

    def column(self, name: str, key: str) -> int:
        """Where a column is; `key` is the mapping's for it. Raises FileError."""
        found = [i for i, column in enumerate(self.header) if column == name]
        if len(found) == 1:
            return found[0]
        what = "there is no column" if not found else "there are two columns"
        raise FileError(f"{self.path}: {what} {name!r} ({key} of the mapping)")

    def records(self) -> Iterator[Record]:
        """Those after the header, each with as many fields. Raises FileError."""
        try:
            with self.path.open("rb") as file:
                records = self._records(file)
                if self._headed:
                    next(records, None)
                for record in records:
                    yield self._checked(record)
        except OSError as error:
            raise FileError(f"{self.path}: {error.strerror or error}") from None

    def _checked(self, record: Record) -> Record:
        given, wanted = len(record.fields), len(self.header)
        if record.error is not None or given == wanted:
            return record
        error = LineError("columns", f"has {given} columns, the header {wanted}")
        return Record(record.line, record.fields, error)

    def _records(self, file: BinaryIO) -> Iterator[Record]:
        lines = _Lines(file)
        while (line := lines.next()) is not None:
            number, raw = line
            try:
                fields = self._fields(raw, lines)
            except LineError as error:
                yield Record(number, [], error)
                continue
            if fields:
                yield Record(number, fields)

    def _fields(self, raw: bytes, lines: _Lines) -> list[str]:
        """Of the record that begins with `raw`, with the lines that it goes on in."""
        text = self._text(raw)
        taken: list[tuple[int, bytes]] = []
        while True:
            try:
                return self._parsed(text)
            except LineError:
                more = self._up_to_quote(lines, taken) if text.count('"') % 2 else None
                if more is None:
                    lines.give_back(taken)
                    raise
                text += more

    def _up_to_quote(self, lines: _Lines, taken: list[tuple[int, bytes]]) -> str | None:
        """The text up to and with the next line that has a quotation mark; None: there is none."""
        parts: list[str] = []
        while len(taken) < MOST_LINES and (line := lines.next()) is not None:
            taken.append(line)
            try:
                parts.append(self._text(line[1]))
            except LineError:
                return None
            if '"' in parts[-1]:
                return "".join(parts)
        return None

    def _text(self, raw: bytes) -> str:
        if len(raw) > LONGEST_LINE:
            raise LineError("too-long", f"the line has more than {LONGEST_LINE:,} bytes")
        try:
            return raw.decode(self._encoding)
        except UnicodeDecodeError as error:
            raise LineError(
                "encoding", f"byte {error.start + 1} of the line is not {self._encoding}"
            ) from None

    def _parsed(self, text: str) -> list[str]:
        """The fields; none of a blank line."""
        if self._edges is not None:
            return self._cut(text.rstrip("\r\n"), self._edges)
        if self._delimiter == WHITESPACE:
            return text.split()
        try:
            fields = next(csv.reader([text], delimiter=self._delimiter, strict=True), [])
        except csv.Error as error:
            raise LineError("quotes", f"is not CSV: {error}") from None
        return fields if any(field.strip() for field in fields) else []

    @staticmethod
    def _cut(text: str, edges: Sequence[tuple[int, int]]) -> list[str]:
        """At the edges; a line that ends before a column begins has fewer fields."""
        if not text.strip():
            return []
        last = edges[-1][0]
        cut = [text[begin:end] for begin, end in edges if begin < len(text)]
        return [*cut[:-1], text[last:]] if len(cut) == len(edges) else cut


class _Lines:
    """The lines of a file as bytes, with their numbers; some can be given back."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._number = 0
        self._back: deque[tuple[int, bytes]] = deque()

    def next(self) -> tuple[int, bytes] | None:
        """A line that is too long comes cut to one byte more than allowed."""
        if self._back:
            return self._back.popleft()
        raw = self._file.readline(LONGEST_LINE + 1)
        if not raw:
            return None
        rest = raw
        while not rest.endswith(b"\n") and len(rest) == LONGEST_LINE + 1:
            rest = self._file.readline(LONGEST_LINE + 1)
        self._number += 1
        if self._number == 1:
            raw = raw.removeprefix(_BOM)
        return self._number, raw

    def give_back(self, lines: list[tuple[int, bytes]]) -> None:
        self._back.extendleft(reversed(lines))
