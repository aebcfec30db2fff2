"""The folder of an export: nobody sees it before it is whole."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from infra.durable import settle

MANIFEST: Final = "manifest.json"
KIND: Final = "crm-ledger export"
"""What a manifest says that it is of."""


class InTheWay(Exception):
    """What is there already would be lost, or cannot be written to."""


@contextmanager
def new_folder(
    path: Path, *, overwrite: bool, advice: str = "--overwrite replaces an earlier export"
) -> Iterator[Path]:
    """A folder beside ``path``, which takes its place when all went well and is gone otherwise.

    What is at ``path`` is replaced where it is an empty folder or, with ``overwrite``, an earlier
    export and nothing else. ``advice`` is for who has something else there. Raises ``InTheWay``.
    """
    path = Path(os.path.abspath(path))
    _refuse_others(path, overwrite, advice)
    mark = uuid.uuid4().hex[:8]
    new, old = (path.with_name(f".{path.name}.{state}-{mark}") for state in ("new", "old"))
    try:
        new.mkdir(parents=True)
    except OSError as error:
        raise InTheWay(f"{new.parent} cannot be written to: {error.strerror}") from None
    try:
        yield new
        settle(*new.iterdir(), new)
        _refuse_others(path, overwrite, advice)
        if path.exists():
            path.rename(old)
        new.rename(path)
        settle(path.parent)
    except OSError as error:
        _put_back(old, path)
        raise InTheWay(f"{path} cannot be written: {error.strerror or error}") from None
    except BaseException:
        _put_back(old, path)
        raise
    finally:
        for folder in (new, old):
            shutil.rmtree(folder, ignore_errors=True)


def _put_back(old: Path, path: Path) -> None:
    """The earlier export to its place, where nothing has taken that."""
    if os.path.lexists(old) and not os.path.lexists(path):
        old.rename(path)


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Raises ``OSError``."""
    text = json.dumps({"kind": KIND, **manifest}, ensure_ascii=False, indent=2)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def _refuse_others(path: Path, overwrite: bool, advice: str) -> None:
    try:
        _look(path, overwrite, advice)
    except OSError as error:
        raise InTheWay(f"{path} cannot be looked at: {error.strerror or error}") from None


def _look(path: Path, overwrite: bool, advice: str) -> None:
    if not path.exists() and not path.is_symlink():
        return
    if not path.is_dir() or path.is_symlink():
        raise InTheWay(f"{path} is there, and is no folder")
    there = {entry.name for entry in path.iterdir()}
    if not there:
        return
    if not overwrite:
        raise InTheWay(f"{path} is not empty; {advice}")
    others = there - _files_of_an_export(path)
    if others:
        raise InTheWay(f"{path} holds what is not of an export: {min(others)}")


def _files_of_an_export(path: Path) -> set[str]:
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        if manifest["kind"] != KIND:
            return set()
        files = {name for table in manifest["tables"].values() for name in table["files"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()
    return {MANIFEST, *files}
