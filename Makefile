# Everything builds its own .venv; nothing has to be prepared but a Python ≥ 3.11.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WANTED := python3 python3.14 python3.13 python3.12 python3.11
OLD_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in $(WANTED); do \
	$$p -c '$(OLD_ENOUGH)' >/dev/null 2>&1 && { echo $$p; break; }; done)
# Two cores are busy with three: many tests wait for a disk, a process, or a server.
WORKERS ?= 3
# Outside of the project: the SQLite library for Node.js, two minutes if it has to be compiled.
NODE_MODULES ?= $(or $(TMPDIR),/tmp)/replicator-frameworks
NODE_PATH ?= $(NODE_MODULES)/node_modules

.DEFAULT_GOAL := help
.PHONY: help install demo check test frameworks soak chaos fuzz bench docs clean

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(STAMP) ## build .venv with everything a developer needs

$(STAMP): pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: no Python >= 3.11 found; set PYTHON=…" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@

demo: $(STAMP) ## lose a database on purpose and get it back from a real S3 server
	@$(BIN)/replicator demo

check: $(STAMP) ## ruff, mypy --strict, import contracts
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache

test: $(STAMP) ## every test but the slow ones, with branch coverage
	$(BIN)/pytest -n $(WORKERS) -m "not slow and not frameworks" --cov --cov-report=term

frameworks: $(STAMP) $(NODE_PATH)/better-sqlite3 ## real applications: Django, FastAPI, Huey, apsw, Node.js
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test,frameworks]'
	NODE_PATH=$(NODE_PATH) $(BIN)/pytest -n $(WORKERS) tests/e2e/frameworks tests/unit/contrib $(ARGS)

$(NODE_PATH)/better-sqlite3:
	npm install --silent --no-audit --no-fund --prefix $(NODE_MODULES) better-sqlite3@12

soak: $(STAMP) ## the slow tests: a gigabyte, an idle minute, long runs
	$(BIN)/pytest -m slow

chaos: $(STAMP) ## the whole scoreboard: a thousand kills, every fault at every call; hours
	REPLICATOR_CHAOS=$${REPLICATOR_CHAOS:-full} $(BIN)/pytest -n $(WORKERS) tests/chaos

fuzz: $(STAMP) ## mutated bytes for every parser, within 300 MiB; ARGS="--seconds 60 --target segment"
	$(BIN)/python -m tests.fuzz $(ARGS)

bench: $(STAMP) ## measure beside Litestream; ARGS=--quick takes two to three minutes
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	$(BIN)/python -m benchmarks $(ARGS)

docs: $(STAMP) ## write the generated parts of docs
	$(BIN)/python docs/generate_cli.py
	$(BIN)/python docs/generate_metrics.py
	$(BIN)/python docs/generate_api.py

clean: ## remove what this file made
	rm -rf $(VENV) .coverage* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
