"""Checkpoints outside of the database: a folder with each of them, and the newest as ``latest``."""

from __future__ import annotations

import os
import re
from pathlib import Path

from infra.durable import settle
from infra.proof.notes import MOST_BYTES, NotANote, parse

LATEST = "latest"


class CheckpointFolder:
    """One file per size, and ``latest``. Files are whole or not there, and survive a crash."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def latest(self) -> str | None:
        """The newest note; none if there is none, or it is not to be read as one."""
        try:
            with (self.path / LATEST).open("rb") as file:
                return file.read(MOST_BYTES + 1).decode()
        except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
            return None

    def retire(self) -> None:
        """Puts the newest note aside, under its log's name: another log begins here.

        Raises ``OSError``.
        """
        note = self.latest()
        if note is None:
            return
        try:
            origin = parse(note).checkpoint.origin
        except NotANote:
            origin = "unreadable"
        name = re.sub(r"[^A-Za-z0-9.-]", "-", origin)[:100]
        (self.path / LATEST).replace(self.path / f"{LATEST}-{name}")

    def publish(self, note: str) -> None:
        """Writes a note. One of the same size is replaced: a handover of keys signs it once more.

        Raises ``OSError``.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        for name in (str(parse(note).checkpoint.size), LATEST):
            draft = self.path / f".{name}.{os.getpid()}"
            with draft.open("w", encoding="utf-8") as file:
                file.write(note)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self.path / name)
        settle(self.path)
