"""What a process carries about that never draws, fits or exports anything."""

from __future__ import annotations

import subprocess
import sys

HEAVY = (
    "matplotlib", "pyarrow", "sklearn", "scipy.linalg", "scipy.optimize", "scipy.sparse",
    "scipy.special", "scipy.stats",
)  # fmt: skip


def test_the_command_loads_nothing_heavy_before_it_is_needed() -> None:
    look = f"import sys, workers.cli; print([name for name in {HEAVY!r} if name in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", look], check=True, capture_output=True, text=True
    ).stdout
    assert found == "[]\n"
