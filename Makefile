# Two commands do everything: `make demo` and `make test`. Both install what they need, say so, and cache it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The lab needs root: network and mount namespaces, libvirtd. Nothing else here does.
AS_ROOT := $(shell [ "$$(id -u)" = 0 ] || echo sudo -E env PATH="$$PATH")

# Tests at a time, each with a lab of its own (some 2 GiB of memory): half of their time they wait for others.
WORKERS ?= 2

.PHONY: help setup demo test test-quick lint format generate pictures bench clean

help: ## Show the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do printf '  make %-12s %s\n' "$$name" "$$text"; done

setup: $(VENV)/.complete ## Install Debian packages and the Python environment

$(VENV)/.complete: requirements-dev.txt pyproject.toml lab/install.py
	@echo "== Debian packages =="
	$(PYTHON) lab/install.py
	@echo "== Python environment in $(VENV) =="
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@

demo: setup ## Watch it work, on real libvirt, QEMU and a real kube-apiserver (KEEP=1 leaves it running)
	@$(BIN)/python -m lab.demo

test: export VARVE_COST_CASES ?= 200000
test: export VARVE_FORGERIES ?= 10000
test: lint ## Everything: checks, unit tests, and tests on real parts
	$(AS_ROOT) $(BIN)/python -m lab prepare
	$(AS_ROOT) $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile

test-quick: setup ## Only what needs no lab
	$(BIN)/python -m pytest -q -m "not real and not cluster"

lint: setup ## ruff, mypy --strict, import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

generate: setup ## CRDs and the tables of docs/api.md from the models
	$(BIN)/python -m crds.generate

pictures: setup ## What the command line shows, into docs/pictures, README.md and docs/cli.md
	$(AS_ROOT) $(BIN)/python -m lab.pictures

bench: setup ## Through the whole stack, next to the bare libvirt call
	$(AS_ROOT) $(BIN)/python -m bench

clean: ## Remove the environment and caches of this checkout
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
