# make demo: environment, then the main job on built-in data.  make test: environment, then the tests.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# Spinning OpenMP threads cost twenty times their gain where a neighbour is busy.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo test lint bench docs lock env clean

env: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("saccade needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; run: make PYTHON=python3.11") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

demo: $(STAMP)
	$(BIN)/saccade demo --out runs/demo

test: $(STAMP)
	$(BIN)/python -m pytest -q -n 2 --dist worksteal tests

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)
	$(BIN)/python -m benchmarks.all

# papers.md and cli.md from the code, then the site in site/; nothing in it is loaded from elsewhere.
docs: $(STAMP)
	$(BIN)/python docs/generate.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Needs uv (any version that knows --no-emit-index-url); the lock names no registry, and what it pins stays unless it must change.
lock:
	uv pip compile pyproject.toml --extra dev --extra docs --extra parquet --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-emit-find-links --no-header -q -o requirements.lock

clean:
	rm -rf $(VENV) runs site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
