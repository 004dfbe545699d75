# The commands of this repository; `make help` lists them. `make demo` and `make test` do all their own set-up in .venv.

PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,$(shell command -v $(name))))
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= $(shell expr $$(nproc) + 1)

# What `make test` runs, by default all: files, directories, or one test (tests/http/test_tags.py::test_…).
T ?=

# What `make test-fast` runs: no servers, clusters and simulations, nor what is marked as slow.
# Files are in memory where the machine has /dev/shm, and property tests draw a fifth of the examples of `make test`.
FAST := $(addprefix tests/,crdt oci settings telemetry event_loop catalog storage cluster) $(wildcard tests/test_*.py)

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast check format reference hooks bench lock clean

help:  ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/demo  ## run three instances at three sites, with a Redis between them; AUTH=1 adds TLS and access control
	$(BIN)/concord demo $(if $(AUTH),--auth)

test: $(if $(T),$(VENV)/dev,check)  ## run checks and all tests, or only T=PATH; what this machine lacks is skipped by name
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(T)

test-fast: $(VENV)/dev  ## run the tests of single modules, in under a minute
	$(if $(wildcard /dev/shm/.),TMPDIR=/dev/shm) $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal \
		-m "not slow" --hypothesis-profile=fast -o tmp_path_retention_policy=failed $(FAST)

check: $(VENV)/dev  ## check style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/dev  ## format, and repair what the linter can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

reference: $(VENV)/dev  ## write docs/reference from the code
	$(BIN)/python -m tests.support.reference

hooks: $(VENV)/dev  ## run the checks before each commit, by pre-commit
	$(BIN)/pip install --quiet --disable-pip-version-check "pre-commit>=4"
	$(BIN)/pre-commit install

bench: $(VENV)/dev  ## measure, beside Debian's docker-registry
	$(BIN)/python -m benchmarks

lock: | $(BIN)/python  ## update requirements/ from pyproject.toml; OPTIONS=--upgrade takes the newest versions
	requirements/compile $(OPTIONS)

clean:  ## remove the environment and what was built
	rm -rf $(VENV) build *.egg-info

# What is installed is what requirements/ locks, by version and hash; then the project itself, built with what is there.
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check
LOCKED := requirements/runtime.txt requirements/demo.txt

$(VENV)/demo: pyproject.toml $(LOCKED) | $(BIN)/python
	$(INSTALL) --require-hashes $(LOCKED:%=--requirement %)
	$(INSTALL) --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/dev: pyproject.toml $(LOCKED) requirements/dev.txt | $(BIN)/python
	$(INSTALL) --require-hashes $(LOCKED:%=--requirement %) --requirement requirements/dev.txt
	$(INSTALL) --no-deps --no-build-isolation --editable .
	touch $@

# Debian keeps the module that fills a virtual environment in a package of its own.
$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed: apt install python3 python3-venv"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is older than 3.11; set PYTHON=… to a later one"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
		echo "installing python3-venv"; \
		$$([ "$$(id -u)" -eq 0 ] || echo sudo) apt-get install -qq -y python3-venv; }
	$(PYTHON) -m venv $(VENV)
