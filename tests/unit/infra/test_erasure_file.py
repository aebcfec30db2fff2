"""The file of erasures: only ever added to, and read whatever a crash did to its end."""

from __future__ import annotations

import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from infra.erasure_file import Entry, ErasureFile

FIRST = Entry(UUID(int=1), UUID(int=2), "contact", datetime(2026, 1, 2, 3, 4, 5, 6, UTC), "rep-1")
SECOND = Entry(UUID(int=3), UUID(int=3), "customer", datetime(2026, 1, 3, tzinfo=UTC), "rep-2")


@pytest.fixture
def file(tmp_path: Path) -> ErasureFile:
    return ErasureFile(tmp_path / "later" / "erasures.ndjson")


def test_what_was_added_is_read(file: ErasureFile) -> None:
    assert list(file.entries()) == []
    file.append([])
    assert not file.path.exists()
    file.append([FIRST])
    file.append([SECOND])
    assert list(file.entries()) == [FIRST, SECOND]
    assert file.path.read_text().count("\n") == 2
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600


def test_a_line_that_a_crash_left_half_spoils_no_other(file: ErasureFile) -> None:
    file.append([FIRST, SECOND])
    whole = file.path.read_bytes()
    for length in range(len(whole.splitlines()[0]) + 1, len(whole)):
        file.path.write_bytes(whole[:length])
        file.append([SECOND])
        found = list(file.entries())
        assert (found[0], found[-1]) == (FIRST, SECOND)
        assert len(found) == (3 if length == len(whole) - 1 else 2)


@pytest.mark.parametrize(
    "line", ["{}", "[]", "null", "7", "\x00\x00", '{"subject": "7"}', '{"subject": null}']
)
def test_a_line_that_is_none_is_told_of(file: ErasureFile, line: str, capsys: Any) -> None:
    file.append([FIRST])
    with file.path.open("a") as opened:
        opened.write(line + "\n\n")
    file.append([SECOND])
    assert list(file.entries()) == [FIRST, SECOND]
