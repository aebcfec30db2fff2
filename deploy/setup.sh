#!/bin/sh
# Makes .venv with the locked packages in it; does nothing when it is up to date.
# Needs Python 3.11 or later and the network. PYTHON=... chooses the interpreter of a new one.
set -eu
cd "$(dirname "$0")/.."

fail() { echo "setup: $*" >&2; exit 1; }

# What .venv was made from: any change of these makes it anew (the path, because scripts name it).
wanted() { { cat requirements-dev.lock pyproject.toml deploy/setup.sh; pwd; } | cksum; }

up_to_date() { [ "$(cat .venv/.made-from 2>/dev/null)" = "$(wanted)" ] && .venv/bin/python -c '' 2>/dev/null; }

up_to_date && exit 0

[ -w . ] || fail "$(pwd) is not writable by $(id -un), and its .venv is missing or out of date.
  Run 'make setup' as the owner of the folder, or work in a copy of your own."

# Two runs at once: the second waits for the first.
if command -v flock >/dev/null 2>&1; then
    exec 9>.setup.lock
    flock 9
    up_to_date && exit 0
fi

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

python=
for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.14 python}; do
    if new_enough "$candidate"; then python=$candidate; break; fi
done
[ -n "$python" ] || fail "Python 3.11 or later is needed and was not found${PYTHON:+ at $PYTHON}.
  Install it (Debian, Ubuntu: apt-get install python3 python3-venv), or name it: make setup PYTHON=/path/to/python3.12"

# Debian keeps the part of Python that makes virtual environments in a package of its own.
if ! "$python" -c 'import venv, ensurepip' >/dev/null 2>&1; then
    package="python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
    command -v apt-get >/dev/null 2>&1 ||
        fail "$python cannot make virtual environments: its modules venv and ensurepip are missing. Install them."
    if [ "$(id -u)" = 0 ]; then as_root=; elif sudo -n true >/dev/null 2>&1; then as_root='sudo -n'; else
        fail "$python cannot make virtual environments. An administrator has to run: apt-get install $package"
    fi
    echo "setup: installing $package"
    { $as_root apt-get update -q && $as_root apt-get install -q -y --no-install-recommends "$package"; } >&2 ||
        fail "could not install $package. An administrator has to run: apt-get install $package"
fi

echo "setup: making .venv with $("$python" --version 2>&1); this takes a minute the first time"
rm -f .venv/.made-from
"$python" -m venv --clear .venv || fail "could not make .venv in $(pwd)"
pip() { .venv/bin/python -m pip --disable-pip-version-check --quiet "$@"; }
pip install --require-hashes -r requirements-dev.lock ||
    fail "could not install the locked packages. Is the network there? Run 'make setup' again."
pip install --no-deps --no-build-isolation --editable . || fail "could not install the project itself"
wanted >.venv/.made-from
echo "setup: done"
