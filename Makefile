# Two commands do everything: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
PORT := 3000
export PYTHONUNBUFFERED = 1
# Certificates of the system, not uv's own: companies and mirrors often have theirs.
export UV_SYSTEM_CERTS = 1
export UV_NATIVE_TLS = 1

# Where it is set, each of the many processes that tests and the demo start would compile the package again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo dev test check quick docs expected bench-setup bench lint format lock dist try-wheel clean

help:  ## show this
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: .venv/.demo  ## make .venv, with all that running the pipeline needs

# `.demo` is what users need, `.dev` what tests and lint need besides.
.venv/.demo .venv/.dev: .venv/.%: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "clay_assets needs Python 3.11 or newer")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing clay_assets[$*] into .venv"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt $(if $(filter dev,$*),--compile-bytecode) -e '.[$*]'
	@touch $@

demo: setup  ## make the miniature planet and run the whole pipeline on it
	@$(BIN)/python -m clay_assets.demo

dev: setup  ## open the Dagster UI, on the demo's result if there is one
	@# A storage of your own goes before the demo's.
	@if [ -f demo/demo.env ] && { [ -z "$$CLAY_STORAGE" ] || grep -qF "$$CLAY_STORAGE" demo/demo.env; }; then set -a; . ./demo/demo.env; set +a; fi; \
	VIRTUAL_ENV="$(CURDIR)/.venv" $(BIN)/dg dev --port $(PORT)

test: .venv/.dev  ## run every test; installs the servers that tests talk to, where it may
	sh scripts/install_test_servers.sh
	$(BIN)/python -m pytest -n 3 --dist loadgroup --no-loadscope-reorder

check: .venv/.dev  ## lint, types and the quick tests that need no server, browser or Dagster chain
	@$(MAKE) --no-print-directory -j 2 lint quick

# Beside lint, so that no core waits for the one process of the type checker. No test of the folders left out is quick.
quick: .venv/.dev
	$(BIN)/python -m pytest -q -n 2 -m "not server and not browser and not chain and not slow" \
		--ignore clay_assets_tests/browser --ignore clay_assets_tests/operating

docs: .venv/.dev  ## build the documentation site into build/site; a warning is an error
	@$(BIN)/python scripts/make_tables.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench-setup: .venv/.dev  ## make the environments of the libraries that benchmarks compare with
	$(BIN)/python -c "from clay_assets_tests.oracle.environment import Stacchip, Torch; Stacchip(), Torch()"

bench: .venv/.dev  ## time every stage beside its peer and its floor; run it on an idle machine
	$(BIN)/python benchmarks/run.py --json artifacts/bench.json

expected: .venv/.dev  ## record the values that assets have on the miniature planet, once versions were raised
	$(BIN)/python -m pytest -q clay_assets_tests/versions --record-values

lint: .venv/.dev  ## ruff (lint and format) and the type checker
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.dev  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# `dev` has every extra but torch, whose CUDA libraries nobody needs to develop this.
lock: .venv/.dev  ## renew constraints.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra dev --no-emit-index-url \
		--no-header --no-annotate -o constraints.txt pyproject.toml

dist: setup  ## build wheel and sdist into dist/
	rm -rf dist
	$(BIN)/uv build --quiet --out-dir dist

try-wheel: dist  ## run the demo from the wheel, in an empty environment outside the checkout
	$(BIN)/python scripts/try_wheel.py dist/*.whl

clean:  ## remove the demo and what tools have left
	rm -rf demo dist .pytest_cache .ruff_cache .mypy_cache
