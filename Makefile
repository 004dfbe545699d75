# The commands of this repository. `make demo` and `make test` do all their own set-up in .venv.

PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,$(shell command -v $(name))))
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= $(shell expr $$(nproc) + 1)

.PHONY: demo test check format reference bench clean

demo: $(VENV)/demo  ## three instances at three sites, and a Redis between them
	$(BIN)/concord demo

test: check  ## all tests; those that need clients, root or tools you lack are skipped and say so
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

check: $(VENV)/dev  ## lint and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

reference: $(VENV)/dev  ## write docs/reference from the code
	$(BIN)/python -m tests.support.reference

bench: $(VENV)/dev  ## figures beside Debian's docker-registry
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build *.egg-info

$(VENV)/demo: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[demo]"
	touch $@

$(VENV)/dev: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[dev]"
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
