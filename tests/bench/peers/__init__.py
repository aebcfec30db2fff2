"""What we compare with: other systems, each in an environment of its own under `.bench`, made once.

The programs beside this file run there and import nothing of ours. All of them print a line of
JSON with their `rate`, in commands (or events) a second.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.bench.rounds import ROOT, tell

HERE = Path(__file__).parent
HOME = ROOT / ".bench"


def python(name: str, *requirements: str) -> Path:
    """The interpreter of an environment that holds these packages."""
    home = HOME / name
    interpreter = home / "bin" / "python"
    if not (home / "ready").exists():
        tell(f"making an environment for {name}")
        shutil.rmtree(home, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        subprocess.run([str(interpreter), "-m", "pip", "install", "-q", *requirements], check=True)
        (home / "ready").touch()
    return interpreter


def node() -> Path:
    """A folder with the packages of `package.json` and our programs for Node."""
    home = HOME / "node"
    home.mkdir(parents=True, exist_ok=True)
    for file in (HERE / "package.json", *HERE.glob("*.mjs")):
        shutil.copy(file, home)
    wanted = (HERE / "package.json").read_text()
    ready = home / "ready"
    if not ready.exists() or ready.read_text() != wanted:
        tell("making an environment for Node")
        subprocess.run(
            ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"],
            cwd=home,
            check=True,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "npm_config_update_notifier": "false"},
        )
        ready.write_text(wanted)
    return home
