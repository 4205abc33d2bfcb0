# The commands that a person needs. `make run` and `make test` are enough to start.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup setup-dev run test lint protos lock bench chaos compose-up compose-down test-compose

setup: $(VENV)/.runtime

setup-dev: $(VENV)/.dev

$(VENV)/.runtime: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Parley needs Python 3.11 or later")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements-dev.lock
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements-dev.lock
	touch $@

run: setup
	$(BIN)/parley up

test: setup-dev lint
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

protos: setup-dev
	$(BIN)/python -m deploy.protos

lock: setup-dev
	$(BIN)/uv pip compile --quiet --generate-hashes --no-header --universal --python-version 3.11 requirements.in -o requirements.lock
	$(BIN)/uv pip compile --quiet --generate-hashes --no-header --universal --python-version 3.11 requirements-dev.in -o requirements-dev.lock

bench: setup-dev
	$(BIN)/parley bench

# For instance CHAOS_ARGS="--runs 50 --seconds 60 --parallel 3".
chaos: setup-dev
	$(BIN)/python -m tests.chaos.series $(CHAOS_ARGS)

# The stack in containers. For instance COMPOSE_ARGS="--scale edge=3".
compose-up:
	deploy/compose-up $(COMPOSE_ARGS)

# Stops it; what people wrote stays in its volumes.
compose-down:
	deploy/compose-down

# Starts the stack in the engine of this machine, breaks it, looks at it, and takes it down with all that it had.
test-compose: setup-dev
	$(BIN)/python -m pytest -m compose tests/compose --timeout 600
