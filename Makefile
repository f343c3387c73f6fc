# Every target sets up what it needs: a virtual environment in .venv with the pinned dependencies.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
LOWEST ?= .venv-lowest
BIN := $(VENV)/bin
CONFIG ?= configs/mt10_quick.yaml
COMPARISON ?= configs/compare/point.yaml
ARGS ?=
RUNS ?= runs
PORT ?= 6006
STAMP := $(VENV)/.installed
# The tested versions need Python 3.11; on 3.10 the newest that it has are installed.
PINS := $(shell $(PYTHON) -c 'import sys; print("-c constraints.txt" if sys.version_info >= (3, 11) else "")')

.PHONY: train demo compare test test-all test-lowest docs lint monitor install
.DEFAULT_GOAL := train

install: $(STAMP)
$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PINS) -e ".[dev,baselines,docs]"
	@touch $@

train: $(STAMP)  ## Train MT10 by transference on the quick preset: CONFIG=... ARGS="key=value ..."
	@$(BIN)/python scripts/train.py $(CONFIG) $(ARGS)

demo: $(STAMP)  ## A trained agent plays MT10: a table and a clip: ARGS="video=false"
	@$(BIN)/python scripts/demo.py $(ARGS)

compare: $(STAMP)  ## Compare methods on the Point suite: COMPARISON=... ARGS="key=value ..."
	@$(BIN)/python scripts/compare.py $(COMPARISON) $(ARGS)

test: lint  ## The test suite
	@$(BIN)/python -m pytest -n 2 -m "not slow" $(ARGS)

test-lowest: $(STAMP)  ## The suite on the lowest versions that pyproject.toml allows, in an environment apart
	@test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	@$(BIN)/python scripts/lowest_versions.py > $(LOWEST)/constraints.txt
	@$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check -c $(LOWEST)/constraints.txt -e ".[dev,baselines]"
	@$(LOWEST)/bin/python -m pytest -n 2 -m "not slow" $(ARGS)

test-all: lint  ## Also what is too slow for every commit
	@$(BIN)/python -m pytest -n 2 $(ARGS)

docs: $(STAMP)  ## The user guide, in site/
	@$(BIN)/mkdocs build --strict --quiet

lint: $(STAMP)
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

monitor: $(STAMP)  ## TensorBoard on the runs
	@$(BIN)/tensorboard --logdir $(RUNS) --port $(PORT)
