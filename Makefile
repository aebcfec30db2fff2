# Everything runs in .venv, which `make setup` makes (PYTHON=... chooses the interpreter of a new one).
SHELL := /bin/sh
BIN := .venv/bin
SOURCES := domain infra projections api workers deploy tests
export PYTHON
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV

.DEFAULT_GOAL := help
.PHONY: help setup kafka run test search faults oracle check format bench bench-soak bench-growth bench-smoke contract dbt lock clean

help:  ## this list
	@awk -F ':.*## *' '/^[a-z-]+:.*##/ { printf "make %-12s %s\n", $$1, $$2 }' Makefile

setup:  ## make .venv with everything in it (does nothing when it is up to date)
	@deploy/setup.sh

kafka: setup  ## see to what a real Kafka needs: Java, Maven, its jars
	@deploy/kafka/setup.sh

run: setup  ## start the product with sample data in ./data and print its address
	@exec $(BIN)/crm up --demo

test: setup kafka  ## the layers and the whole suite
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=25 $(ARGS)

search: setup kafka  ## the properties, by examples that were never tried
	@$(BIN)/pytest -n 2 --dist loadfile -m 'hypothesis and not faults and not oracle' --hypothesis-profile=searching $(ARGS)

faults: setup kafka  ## every fault there is, for half an hour; SEED=n repeats a run, REPORT=file keeps it
	@FAULTS_SEED=$(SEED) FAULTS_REPORT=$(REPORT) $(BIN)/pytest -m faults tests/faults $(ARGS)

oracle: setup  ## every answer against a slow refold of random histories; SEED=n, HISTORIES=10000, REPORT=file
	@ORACLE_SEED=$(SEED) ORACLE_HISTORIES=$(HISTORIES) ORACLE_REPORT=$(REPORT) $(BIN)/pytest -m oracle tests/integration $(ARGS)

check: setup  ## format, ruff, mypy, the layers, the fast tests
	@$(BIN)/ruff format $(SOURCES)
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/pytest -q -m 'not slow' tests/unit $(ARGS)

format: setup  ## lay the code out, and mend what ruff can mend
	@$(BIN)/ruff format $(SOURCES)
	@$(BIN)/ruff check --fix $(SOURCES)

bench: setup kafka  ## measure, against the same work done by others on this machine (20 minutes; needs npm)
	@$(BIN)/python -m tests.bench $(ARGS)

bench-soak: setup kafka  ## what the processes hold in an hour of commands
	@$(BIN)/python -m tests.bench soak $(ARGS)

bench-growth: setup  ## appends and reads on 10,000,000 events against 100,000; disk for each
	@$(BIN)/python -m tests.bench growth $(ARGS)

bench-smoke: setup  ## the ratios that matter most, held against the published ones
	@$(BIN)/python -m tests.bench smoke

contract: setup  ## write the contract of the events, as the code has it, to docs/contract
	@$(BIN)/python -m infra.contract docs/contract

dbt: setup  ## write the sources for dbt, as the code has the views of bi, to deploy/dbt
	@$(BIN)/python -m deploy.dbt.describe

lock:  ## renew both lock files (packages and hashes, no address of an index)
	@deploy/lock.sh

clean:  ## remove .venv and what tools left; the product's data stays
	rm -rf .venv .setup.lock .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -not -path './.git/*' -type d -prune -exec rm -rf {} +
