# Everything runs in .venv, which `make setup` makes (PYTHON=... chooses the interpreter of a new one).
SHELL := /bin/sh
BIN := .venv/bin
SOURCES := domain infra projections api workers tests
export PYTHON
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV

.DEFAULT_GOAL := help
.PHONY: help setup run test check format bench lock clean

help:  ## this list
	@awk -F ':.*## *' '/^[a-z]+:.*##/ { printf "make %-8s %s\n", $$1, $$2 }' Makefile

setup:  ## make .venv with everything in it (does nothing when it is up to date)
	@deploy/setup.sh

run: setup  ## start the product with sample data in ./data and print its address
	@exec $(BIN)/crm up --demo

test: setup  ## the layers and the whole suite
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/pytest -n 2 $(ARGS)

check: setup  ## format, ruff, mypy, the layers, the fast tests
	@$(BIN)/ruff format $(SOURCES)
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/pytest -q -m 'not slow' tests/unit $(ARGS)

format: setup  ## lay the code out, and mend what ruff can mend
	@$(BIN)/ruff format $(SOURCES)
	@$(BIN)/ruff check --fix $(SOURCES)

bench: setup  ## measure, against the same work done by others on this machine
	@$(BIN)/python -m tests.bench

lock:  ## renew both lock files (packages and hashes, no address of an index)
	@deploy/lock.sh

clean:  ## remove .venv and what tools left; the product's data stays
	rm -rf .venv .setup.lock .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -not -path './.git/*' -type d -prune -exec rm -rf {} +
