# Everything that a developer or a CI runs. `make` alone lists it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.made
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format fuzz bench soak lock clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  make %-8s %s\n", $$1, $$2 }'

setup: $(STAMP) ## make .venv with cdc in it, every dependency pinned by hash

$(STAMP): pyproject.toml requirements.txt deploy/dev/venv
	@PYTHON=$(PYTHON) deploy/dev/venv $(VENV)
	@$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements.txt
	@$(BIN)/python -m pip install -qq --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup ## see it run: make demo ARGS='--seconds 15 --json'
	@$(BIN)/cdc demo $(ARGS)

test: setup ## run the test suite: make test ARGS='tests/unit -k position'
	@deploy/dev/postgres15
	@$(BIN)/python -m pytest --numprocesses=auto $(ARGS)

check: setup ## lint, format, types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: setup ## put the code into its format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

fuzz: setup ## throw damaged input at the decoders
	@$(BIN)/python -m pytest tests/fuzz $(ARGS)

bench: setup ## measure against PostgreSQL's own replication, on this machine
	@PYTHONPATH=tests $(BIN)/python -m benchmarks $(ARGS)

soak: setup ## run the long tests
	@$(BIN)/python -m pytest -m soak --timeout=0 $(ARGS)

lock: setup ## resolve pyproject.toml anew into requirements.txt
	@deploy/dev/lock

clean: ## remove what was made
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
