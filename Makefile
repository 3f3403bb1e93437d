# Every target makes its own environment in .venv first. Choose its interpreter with: make PYTHON=python3.12
# (Remove .venv to change the interpreter later.)
.DEFAULT_GOAL := help
.NOTPARALLEL:
.SUFFIXES:

PYTHON ?= python3
SCALE ?= quick
WORKERS ?= 2
ARGS ?=

# Relative paths only: the folder's own path may contain spaces.
VENV := .venv
RUN := $(VENV)/bin/python -m
BROWSER := tests/explorer/browser
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

# One stamp per extra rather than one big install: `make reproduce` then needs no test, lint or docs tools, and adding
# an extra to an environment that has the others takes seconds.
STAMP := $(VENV)/.installed-

# An environment that was moved or copied still imports the checkout it was made for; install again in that case.
ifneq ($(wildcard $(VENV)/.location),)
ifneq ($(shell cat $(VENV)/.location),$(CURDIR))
$(shell rm -f $(STAMP)* $(VENV)/.created)
endif
endif

.PHONY: help install reproduce test test-browser check format docs clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "  PYTHON=python3.12 picks the interpreter, ARGS='-k euler' is passed on to pytest."

install: $(STAMP)dev ## Install odestop, editable, with everything for developing it

reproduce: $(STAMP)experiments ## Recompute the paper's figures and claims into results/ (SCALE=quick or SCALE=paper)
	@case "$(SCALE)" in quick|paper) ;; *) echo "SCALE must be quick or paper, got '$(SCALE)'" >&2; exit 1 ;; esac
	$(VENV)/bin/odestop reproduce all --scale "$(SCALE)"

test: $(STAMP)test ## Run the tests, and the examples in docstrings, README and docs
	$(ONE_THREAD) $(RUN) pytest -n $(WORKERS) --dist worksteal --doctest-modules odestop tests --ignore $(BROWSER) $(ARGS)

test-browser: $(STAMP)test ## Run the tests that drive the explorer in Chromium; without Chromium they are skipped
	$(ONE_THREAD) $(RUN) pytest $(BROWSER) $(ARGS)

check: $(STAMP)dev ## Check formatting, lint and types
	$(RUN) ruff format --check .
	$(RUN) ruff check .
	$(RUN) mypy

format: $(STAMP)dev ## Format the code and apply the lint fixes that are safe
	$(RUN) ruff format .
	$(RUN) ruff check --fix .

docs: $(STAMP)docs ## Build the documentation into site/; any warning fails
	NO_MKDOCS_2_WARNING=1 $(RUN) mkdocs build --strict

clean: ## Remove caches and build outputs; .venv/ and results/ stay
	rm -rf build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name .venv -prune -o -type d -name __pycache__ -exec rm -rf {} +

$(VENV)/.created:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	    echo "odestop needs Python 3.11 or newer, and '$(PYTHON)' is not: $$("$(PYTHON)" --version 2>&1 || true)" >&2; \
	    echo "Name one that is, for example: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)
	@pwd -P > $(VENV)/.location
	@touch $@

$(STAMP)%: pyproject.toml constraints.txt | $(VENV)/.created
	$(RUN) pip install --disable-pip-version-check --constraint constraints.txt --editable ".[$*]"
	@touch $@
