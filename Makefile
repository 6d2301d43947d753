.DEFAULT_GOAL := help
PYTHON ?= python

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

install:  ## install lab3 with everything a developer needs into the current environment
	$(PYTHON) -m pip install -q -e '.[dev]'

format:  ## rewrite the code in the project's format
	$(PYTHON) -m ruff format . && $(PYTHON) -m ruff check --fix .

lint:  ## check format and lint rules
	$(PYTHON) -m ruff format --check . && $(PYTHON) -m ruff check .

types:  ## check types
	$(PYTHON) -m mypy

test:  ## run the default tests
	$(PYTHON) -m pytest -q -n auto

test-shared:  ## run the tests on CIFAR-10 and the trained VGG-16 beside the checkout (minutes)
	$(PYTHON) -m pytest -q -m shared

test-online:  ## run the tests of W&B in trouble, against a stand-in server (minutes)
	$(PYTHON) -m pytest -q -m online

test-chaos:  ## kill, cut, fill and start twice, send every hostile file through the command line (minutes)
	$(PYTHON) -m pytest -q -m chaos

READER ?= yaml or journal or model or data or run_folder
MINUTES ?= 60
fuzz:  ## try to break the readers of files: make fuzz READER=model MINUTES=60
	@end=$$(( $$(date +%s) + 60 * $(MINUTES) )); while [ $$(date +%s) -lt $$end ]; do \
	  LAB3_FUZZ_EXAMPLES=5000 $(PYTHON) -m pytest -q tests/test_fuzz.py -k '$(READER)' --hypothesis-show-statistics \
	  || exit 1; done

docs:  ## write docs/cli.md from the command line's own help
	$(PYTHON) docs/build_cli.py

docs-check:  ## fail if docs/cli.md is stale
	$(PYTHON) docs/build_cli.py --check

check-code: lint types docs-check  ## everything but the tests

check: check-code test  ## everything a commit must pass

.PHONY: help install format lint types test test-shared test-online test-chaos fuzz docs docs-check check-code check
