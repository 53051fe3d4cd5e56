# Norma in two commands. Both set up .venv first (no root, nothing outside this folder); a second call is quick.
#
#   make demo     from this machine's docstrings to a norm-following model and its report
#   make test     the fast tests
#   make lint     style (ruff), types (mypy), floors (import-linter)
#   make docs     bring line numbers and option tables in docs/ up to date
#   make principles   measure the founding text's claims again, plots in docs/principles (an hour)
#   make clean    remove .venv and caches; runs/ stays
#
#   PYTHON=...    the Python to use, 3.11 or newer: by default the first that fits of python3, python3.13, python3.12, python3.11
#   TORCH=...     what pip installs as torch; after a change of mind: make clean
#
# On Linux the usual torch build brings several gigabytes of GPU libraries. For the CPU build, give pip the CPU index that PyTorch's
# installation page names:    PIP_EXTRA_INDEX_URL=<that index> make demo TORCH=torch==2.13.0+cpu

PYTHON ?=
# Pinned, and installed before everything else: else pip may take a newer build for the sake of another package.
TORCH ?= torch==2.13.0

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check
# A Python fits when it is new enough and can make a virtual environment with pip in it.
FITS := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))

.PHONY: demo test lint docs principles clean help
.DEFAULT_GOAL := help

help:
	@sed -n 's/^#   \(make .*\)/\1/p' Makefile

demo: $(VENV)/.demo
	@$(VENV)/bin/norma run recipes/courteous-docs.yaml

# A process for each core, and in each one thread: small tensors gain nothing by more, and the files of tests are independent.
test: $(VENV)/.test
	@OMP_NUM_THREADS=1 $(PY) -m pytest -m "not slow" -n auto --maxprocesses 8 --dist loadfile

lint: $(VENV)/.test
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports

docs: $(VENV)/.demo
	@$(PY) docs/refresh.py

principles: $(VENV)/.demo
	@$(PIP) -e '.[docs]'
	@set -e; for script in docs/principles/[!c]*.py; do echo "$$script"; $(PY) $$script; done

clean:
	@rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find src tests docs -name __pycache__ -type d -exec rm -rf {} +

# One stamp file a step: what is done is not done again, and a step that failed is.
$(VENV)/.made:
	@set -e; for python in $(or $(PYTHON),python3 python3.13 python3.12 python3.11); do \
	  if "$$python" -c '$(FITS)' 2>/dev/null; then \
	    echo "Making $(VENV) with $$("$$python" -V) ($$python)"; "$$python" -m venv $(VENV); touch $@; exit 0; \
	  fi; \
	done; \
	echo "No Python 3.11 or newer with venv was found ($(or $(PYTHON),python3 python3.13 python3.12 python3.11)). Name one: make PYTHON=/path/to/python3" >&2; exit 1

$(VENV)/.torch: $(VENV)/.made
	@echo "Installing $(TORCH) (the first time this takes a while)"
	@$(PIP) "$(TORCH)"
	@touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml
	@echo "Installing Norma and what it needs"
	@$(PIP) -e .
	@touch $@

$(VENV)/.test: $(VENV)/.demo
	@echo "Installing what the tests need"
	@$(PIP) -e '.[test,dev]'
	@touch $@
