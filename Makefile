# One command for each habit; every one sets up .venv first if need be.
PYTHON ?= python3
BIN := .venv/bin

# One more than cores: some tests wait for processes that they start.
WORKERS := $(shell echo $$(( $$(getconf _NPROCESSORS_ONLN) + 1 )))
PYTEST := $(BIN)/pytest --numprocesses $(WORKERS) --maxprocesses 4 --dist worksteal
# What a change of one method, metric or key of a recipe breaks; no training run.
FAST := tests/methods tests/metrics tests/config tests/test_every_method.py tests/test_functional.py \
	tests/test_imports.py tests/test_design.py

# What depends on the versions of torch, Python and the exporters.
BOUND := tests/deployment tests/training tests/vectors tests/methods tests/experiment/student_file \
	tests/bank/test_replay.py tests/bank/test_claims.py tests/test_packaging.py \
	tests/run/test_own_data_run.py tests/run/test_resume.py tests/run/test_workers.py \
	tests/run/test_jobs.py tests/run/test_timm_runs.py tests/run/test_detection_run.py

# Keep bytecode, whatever the environment says: each process would compile every module anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: setup demo test test-fast versions check bench docs site results wheel clean

setup: .venv/ready

.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: setup
	$(BIN)/understudy demo

test: setup
	$(PYTEST)

test-fast: setup
	$(PYTEST) $(FAST)

# With other versions, in an environment that is deleted at the end (8 GB meanwhile):
# make versions PYTHON=python3.12 WITH="torch==2.9.1 torchvision==0.24.1"
versions:
	folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT INT TERM && $(PYTHON) -m venv "$$folder" \
	&& "$$folder/bin/pip" install --quiet --no-cache-dir '.[dev]' $(WITH) \
	&& "$$folder/bin/pip" list && "$$folder/bin/python" -m pytest -q $(BOUND)

check: setup
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	MYPY_NUM_WORKERS=auto $(BIN)/mypy

# Against other projects: make bench PEERS="repdistiller=../RepDistiller mdistiller=../mdistiller"
bench: setup
	$(BIN)/python -m benchmarks $(addprefix --peer ,$(PEERS))

# The modules listed in docs/design.md.
docs: setup
	$(BIN)/python docs/tree.py --write

# The pages of docs/ as a site, in ./site: open site/index.html.
site: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

results: docs
	$(BIN)/python results/tables.py
	$(BIN)/python results/pictures.py

# dist/*.whl and dist/*.tar.gz; tests/test_packaging.py unpacks and runs them.
wheel: setup
	$(BIN)/python -m build --no-isolation --outdir dist .

clean:
	rm -rf .venv runs dist site
