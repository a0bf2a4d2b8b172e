PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One stamp for each set of packages: rendering a report needs none of the tests'.
WORKBOOK := $(VENV)/.workbook
DEV := $(VENV)/.dev
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# Tests run in as many processes as there are cores, with one thread each.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help install report test check bench sweep lab lint clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(DEV) ## make .venv and install the project with everything that its tests need

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(WORKBOOK): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[workbook]'
	touch $@

$(DEV): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[dev]'
	touch $@ $(WORKBOOK)

report: $(WORKBOOK) ## render the notebooks of the embedded profile into reports/embedded
	$(BIN)/xai report --profile embedded

test: lint ## lint, then run all tests; those that want the machine for themselves come last
	$(PYTEST) -m "not alone"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m alone

check: lint ## lint, then run the tests that are not slow: for every commit
	$(PYTEST) -m "not slow"

bench: $(DEV) ## measure speed and memory into reports/bench
	$(BIN)/python -m benchmarks

sweep: $(DEV) ## ask every family of timm and transformers, into reports/sweep.csv
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.sweep

lab: $(WORKBOOK) ## open JupyterLab on the notebooks
	$(BIN)/jupyter lab notebooks

lint: $(DEV) ## check style, formatting, the order of imports and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/pyright --pythonpath $(BIN)/python

clean: ## remove rendered pages, runs and caches; .venv and the tables in git stay
	rm -rf reports/embedded/*.html reports/embedded/*.ipynb reports/paper runs build dist .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
