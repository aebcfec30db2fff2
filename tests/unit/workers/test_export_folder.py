"""The folder of an export: whatever ends it, what was there before is there again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from workers.exporting.folder import InTheWay, new_folder, write_manifest


def export(path: Path, text: str) -> None:
    with new_folder(path, overwrite=True) as folder:
        (folder / "deal.csv").write_text(text)
        write_manifest(folder, {"tables": {"deal": {"files": {"deal.csv": {}}}}})


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(5, "Input/output error")], ids=repr)
def test_an_end_between_the_two_renames_brings_the_earlier_export_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    export(tmp_path / "out", "earlier")
    rename = Path.rename

    def fails_for_the_new_one(self: Path, target: Any) -> Path:
        if ".new-" in self.name:
            raise error
        return rename(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", fails_for_the_new_one)
        with pytest.raises((KeyboardInterrupt, InTheWay)):
            export(tmp_path / "out", "later")
    assert (tmp_path / "out" / "deal.csv").read_text() == "earlier"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_name_that_is_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InTheWay, match="too long"):
        export(tmp_path / ("x" * 300), "any")


@pytest.mark.parametrize("asked", ["exists", "iterdir"])
def test_a_folder_that_cannot_be_looked_into_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    (tmp_path / "out").mkdir()

    def refused(_: Path) -> Any:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(Path, asked, refused)
        with pytest.raises(InTheWay, match="Permission denied"):
            export(tmp_path / "out", "any")


def test_a_link_is_never_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "mine")
    with pytest.raises(InTheWay, match="no folder"):
        export(tmp_path / "out", "any")
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    with pytest.raises(InTheWay, match="no folder"):
        export(tmp_path / "nowhere", "any")


def test_what_fails_inside_is_not_laid_to_the_folder(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match="no database"),
        new_folder(tmp_path / "out", overwrite=False),
    ):
        raise RuntimeError("no database")
    assert list(tmp_path.iterdir()) == []
