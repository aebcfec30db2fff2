#!/bin/sh
# Renews requirements.lock (what the product needs) and requirements-dev.lock (the tools and tests too):
# names, versions and hashes for Python 3.11 and later, never the address of an index.
set -eu
cd "$(dirname "$0")/.."
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
python3 -m venv "$tools"
"$tools/bin/pip" install --quiet uv
compile() {
    output=$1
    shift
    "$tools/bin/uv" pip compile pyproject.toml "$@" --upgrade --universal --python-version 3.11 \
        --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --quiet --output-file "$output"
}
compile requirements.lock
compile requirements-dev.lock --extra dev
