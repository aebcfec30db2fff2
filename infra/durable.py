"""What is to outlive a loss of power."""

from __future__ import annotations

import os
from pathlib import Path


def settle(*paths: Path) -> None:
    """Has what was written there on the disk: a file's content, or the names in a folder. Raises
    `OSError`."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
