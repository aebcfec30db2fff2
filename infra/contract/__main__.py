"""Writes the contract into a directory, and names the files that changed. Removes nothing.

Writes nothing at all, and ends with 1, if a schema that is there would change for those who go by
it: that takes a new `class_version` of the event, with an upcaster from the present one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from infra.contract.asyncapi import ASYNCAPI, documents
from infra.contract.compatibility import breaks


def main(directory: Path) -> int:
    changed = {}
    broken = []
    for path, text in documents().items():
        file = directory / path
        kept = file.read_text(encoding="utf-8") if file.exists() else None
        if kept == text:
            continue
        changed[file] = text
        if kept is not None and path != ASYNCAPI:
            found = breaks(json.loads(kept), json.loads(text))
            broken += [f"{path}{problem}" for problem in found]
    if broken:
        sys.stderr.write("These need a new class_version:\n" + "\n".join(broken) + "\n")
        return 1
    for file, text in changed.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        sys.stdout.write(f"{file}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
