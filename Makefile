# One command for each habit; every one sets up .venv first if need be.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test check bench results clean

setup: .venv/ready

.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: setup
	$(BIN)/understudy demo

test: setup
	$(BIN)/pytest

check: setup
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

bench: setup
	$(BIN)/python benchmarks/steps.py

results: setup
	$(BIN)/python results/tables.py

clean:
	rm -rf .venv runs
