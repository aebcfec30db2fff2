"""docs/verify_log.py, which knows nothing of the product, on a real export and on tampered ones."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.proof.ground import Ground

pytestmark = pytest.mark.database

SCRIPT = Path(__file__).parents[3] / "docs" / "verify_log.py"


def run(ground: Ground, export: Path, note: str, key: str | None = None) -> tuple[int, str]:
    checkpoint = ground.folder / "checkpoint"
    checkpoint.write_text(note, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-I", SCRIPT, export, checkpoint, key or str(ground.key.verifying)],
        check=False,
        capture_output=True,
        text=True,
        cwd=ground.folder,
    )
    return done.returncode, (done.stdout + done.stderr).strip()


def test_it_uses_nothing_of_ours() -> None:
    text = SCRIPT.read_text(encoding="utf-8")
    imported = {
        line.split()[1].split(".")[0] for line in text.splitlines() if "import " in line[:7]
    }
    imported |= {line.split()[1].split(".")[0] for line in text.splitlines() if line[:5] == "from "}
    assert imported <= {*sys.stdlib_module_names, "cryptography"}


def test_a_real_export_and_tampered_ones(filled: Callable[[int], Ground]) -> None:
    ground = filled(300)
    ground.seal()
    ground.record(7)
    note = ground.sealer().seal().note
    ground.record(3)  # not sealed
    export = ground.export()
    assert run(ground, export, note) == (0, "ok: the first 307 events are what was signed")

    lines = export.read_text(encoding="utf-8").splitlines()
    wrong = ground.folder / "wrong.ndjson"

    def said(changed: list[str]) -> str:
        wrong.write_text("\n".join(changed) + "\n", encoding="utf-8")
        code, text = run(ground, wrong, note)
        assert code == 1
        return text

    event: dict[str, Any] = json.loads(lines[99])
    for name, value in {
        "actor": "x",
        "reason": "another",
        "causation_id": event["stream_id"],
        "state": "e30=",
        "version": 9,
        "recorded_at": "2026-01-01T00:00:00.000000+00:00",
    }.items():
        changed = json.dumps({**event, name: value})
        assert "not what was signed" in said([*lines[:99], changed, *lines[100:]]), name
    assert said([*lines[:99], *lines[100:]]) == "wrong: position 100 is missing or out of order"
    assert "out of order" in said([*lines[:50], lines[51], lines[50], *lines[52:]])
    assert "ends at 306" in said(lines[:306])


def test_forged_checkpoints_and_strange_keys(filled: Callable[[int], Ground]) -> None:
    ground = filled(5)
    note, export = ground.seal(), ground.export()
    text = ground.sealer().seal().note
    forged = text.replace("\n5\n", "\n4\n")
    assert run(ground, export, forged)[1] == "wrong: the signature is not that of the checkpoint"
    new, rotated = ground.sealer().rotate()
    assert run(ground, export, rotated.note, str(new))[0] == 0
    assert "has not signed" in run(ground, export, text, str(new))[1]
    assert note.checkpoint.size == 5
