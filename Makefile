# make demo   the whole job on synthetic pictures: train, evaluate, predict
# make test   the tests, as many at once as there are cores; the slow ones are left out
# make test-all   all tests
# Both create .venv and install into it when needed, with uv where it is and with pip elsewhere.

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
READY := $(VENV)/.installed

PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: help demo test test-all test-slow shuffle lint audit coverage mutate format clean

help:
	@sed -n 's/^# //p' Makefile

demo: $(READY)
	@$(BIN)/catordog demo

test: $(READY)
	$(PYTEST) -m "not slow"

test-all: $(READY)
	$(PYTEST)

test-slow: $(READY)
	$(PYTEST) -m slow

# Tests must not depend on each other: run them RUNS times, each time in another random order.
RUNS ?= 20
shuffle: $(READY)
	for seed in $$(seq $(RUNS)); do $(PYTEST) --quiet -p randomly --randomly-seed $$seed || exit 1; done

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache
	@if [ -x $(BIN)/hadolint ]; then echo $(BIN)/hadolint Dockerfile; $(BIN)/hadolint Dockerfile; fi

# pip-audit asks PyPI for known vulnerabilities; packages that PyPI doesn't answer for are counted.
audit: $(READY)
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml src
	@$(BIN)/pip-audit --local --skip-editable --progress-spinner off > $(VENV)/audit.txt 2>&1; code=$$?; \
	  if grep -A 99 '^Found [1-9]' $(VENV)/audit.txt; then exit 1; fi; \
	  if [ $$code -ne 0 ]; then echo "pip-audit could not check: $$(tail -n 1 $(VENV)/audit.txt)" >&2; exit 0; fi; \
	  echo "pip-audit: no known vulnerability; $$(grep -c 'could not be audited' $(VENV)/audit.txt) packages" \
	    "could not be checked"

coverage: $(READY)
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

# One thread: mutants are forks, and threads do not survive a fork.
mutate: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/mutmut run --max-children 2
	$(BIN)/mutmut results

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build dist demo .pytest_cache .mypy_cache .ruff_cache .hypothesis mutants .coverage .coverage.*

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "catordog needs Python 3.11 or newer; try: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@if command -v uv >/dev/null; then \
	  uv venv --quiet --allow-existing --python $(PYTHON) $(VENV) && \
	  uv pip install --quiet --compile-bytecode --python $(BIN)/python -e '.[dev]'; \
	else \
	  $(PYTHON) -m venv $(VENV) && \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'; \
	fi
	@touch $@
