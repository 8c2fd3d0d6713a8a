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
	$(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist worksteal

check: setup
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

# Against other projects: make bench PEERS="repdistiller=../RepDistiller mdistiller=../mdistiller"
bench: setup
	$(BIN)/python -m benchmarks $(addprefix --peer ,$(PEERS))

results: setup
	$(BIN)/python results/tables.py
	$(BIN)/python results/pictures.py

clean:
	rm -rf .venv runs
