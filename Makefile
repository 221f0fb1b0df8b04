# `make` lists the commands.
SHELL := /bin/sh
VENV := .venv
BENCH := .venv-bench
# `compat` adds a path, not an import hook, so that Python also finds leaf from the parent folder of a clone named leaf.
EDITABLE := --no-deps --config-settings editable_mode=compat --editable .
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

# Recreate the virtual environment if its Python is missing or not supported.
FITS := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
ifneq ($(wildcard $(VENV)/installed),)
ifneq ($(shell $(VENV)/bin/python -c "import pip; $(FITS)" 2> /dev/null && echo works),works)
$(shell rm -f $(VENV)/installed)
endif
endif

# tests/conftest.py groups and orders the tests.
WORKERS := -n auto --dist loadscope --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help run test test-full quick verify docs lint bench bench-full

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/installed ## install into .venv, run the whole pipeline, print the results
	@echo '== leaf check: parameters and data, before any stage starts'
	@leaf check
	@echo '== dvc repro: the pipeline; finished stages are skipped'
	@dvc repro
	@echo '== leaf results'
	@leaf results

test: $(VENV)/installed-dev ## run all checks and all tests except those marked full, about 15 minutes on two cores
	@$(MAKE) --no-print-directory lint
	@echo '== pytest: all tests except those marked full'
	@python -m pytest $(WORKERS) -m 'not full'

test-full: $(VENV)/installed-dev ## run all checks and all tests
	@$(MAKE) --no-print-directory lint
	@echo '== pytest: all tests'
	@python -m pytest $(WORKERS)

quick: $(VENV)/installed-dev ## run the checks and the quick tests, under two minutes
	@$(MAKE) --no-print-directory lint
	@echo '== pytest: the quick tests'
	@python -m pytest $(WORKERS) -m 'not slow'

lint: $(VENV)/installed-dev ## run ruff, mypy and import-linter
	@echo '== ruff, mypy, import-linter'
	@ruff check --quiet .
	@ruff format --check --quiet .
	@mypy --no-error-summary
	@lint-imports --no-cache > $(VENV)/imports.log 2>&1 || { cat $(VENV)/imports.log; exit 1; }

verify: $(VENV)/installed ## rerun the pipeline and compare the results with the committed dvc.lock and metrics
	@leaf verify

docs: $(VENV)/installed ## write the generated pages of docs/
	@python docs/generate.py

bench: $(BENCH)/installed ## compare leaf with similar libraries, about 15 minutes; writes docs/performance.md
	@$(BENCH)/bin/python benchmarks/every.py
	@$(BENCH)/bin/python docs/generate.py

bench-full: $(BENCH)/installed ## run the same benchmarks at full size, several hours
	@$(BENCH)/bin/python benchmarks/every.py --size full
	@$(BENCH)/bin/python docs/generate.py

# A separate environment with leaf and the libraries that the benchmarks compare it with.
$(BENCH)/installed: $(VENV)/installed benchmarks/requirements.txt
	@echo '== pip install leaf and the libraries to compare with into $(BENCH) (a few minutes, once)'
	@python -m venv $(BENCH)
	@$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check \
	  -r requirements.txt -r benchmarks/requirements.txt
	@$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check $(EDITABLE)
	@touch $@

# Use the first Python found among 3.11–3.13. TensorFlow has no wheels for later versions.
$(VENV)/installed: $(wildcard requirements*.txt) pyproject.toml
	@command -v git > /dev/null || { echo 'error: git: not found; install git first' >&2; exit 2; }
	@if $(VENV)/bin/python -c "import pip; $(FITS)" 2> /dev/null; then \
	  echo '== pip install -r requirements.txt into $(VENV)'; exit 0; fi; \
	python=; for name in python3 python3.13 python3.12 python3.11; do \
	  if command -v $$name > /dev/null && $$name -c "$(FITS)" 2> /dev/null; then python=$$name; break; fi; done; \
	if [ -z "$$python" ]; then \
	  echo 'error: python3: 3.11–3.13 with venv not found. Install one (Debian: apt install python3-venv)' >&2; \
	  exit 2; fi; \
	echo "== $$python -m venv $(VENV), pip install -r requirements.txt (a few minutes, once)"; \
	rm -rf $(VENV) && $$python -m venv $(VENV)
	@python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@python -m pip install --quiet --disable-pip-version-check $(EDITABLE)
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed requirements-dev.txt
	@echo '== pip install -r requirements-dev.txt into $(VENV), for tests and checks'
	@python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@
