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

test-wheel:  ## build the wheel, install it in a fresh environment, run the quick start in an empty folder (minutes)
	$(PYTHON) -m pytest -q -m wheel

test-shared:  ## run the tests on CIFAR-10 and the trained VGG-16 beside the checkout (minutes)
	$(PYTHON) -m pytest -q -m shared

test-online:  ## run the tests of W&B in trouble, against a stand-in server (minutes)
	$(PYTHON) -m pytest -q -m online

install-browser:  ## install Debian's Chromium and Firefox with Playwright and Marionette, for test-browser
	(test -x /usr/bin/chromium && test -x /usr/bin/firefox-esr || apt-get install -y -qq chromium firefox-esr) && $(PYTHON) -m pip install -q -e '.[test,browser]'

test-cluster:  ## run grids on a Ray cluster of two nodes on this machine, with kills (pip install -e '.[test,grid]' first; minutes)
	$(PYTHON) -m pytest -q -m cluster

test-browser:  ## open the pages of runs in browsers: keys, pointer, tables, phone, dark, paper, without a script
	$(PYTHON) -m pytest -q -m browser

test-chaos:  ## kill, cut, fill and start twice, send every hostile file through the command line (minutes)
	$(PYTHON) -m pytest -q -m chaos

test-graphs:  ## hold 200 random graphs, and networks of keras.applications, against the slow reference, and compact them (minutes)
	LAB3_GRAPHS=200 $(PYTHON) -m pytest -q -n auto -m 'large or not large' \
	  tests/test_random_models.py tests/test_applications.py tests/test_compact.py tests/test_compact_runs.py

test-all: test test-wheel test-shared test-online test-chaos test-graphs  ## everything on TensorFlow (hours)

NUMERICAL = tests/test_split.py tests/test_class_scores.py tests/test_selfcheck.py tests/test_random_models.py \
  tests/test_criteria.py tests/test_notebook.py tests/test_backends.py tests/test_compact.py \
  tests/test_joint.py
GRAPHS ?= 24
test-jax:  ## run the numerical tests on JAX (pip install -e '.[test,jax]' first); a short form: GRAPHS=3
	KERAS_BACKEND=jax LAB3_GRAPHS=$(GRAPHS) $(PYTHON) -m pytest -q -n auto $(NUMERICAL)

test-torch:  ## run the numerical tests on PyTorch (pip install -e '.[test,torch]' first); a short form: GRAPHS=3
	KERAS_BACKEND=torch LAB3_GRAPHS=$(GRAPHS) $(PYTHON) -m pytest -q -n auto $(NUMERICAL)

test-newest:  ## run the default tests with the newest Keras, TensorFlow and W&B, beyond the bounds of setup.cfg
	$(PYTHON) -m venv .venv-newest && .venv-newest/bin/pip install -q -e '.[test]' \
	  && .venv-newest/bin/pip install -q --upgrade --pre keras tensorflow wandb && .venv-newest/bin/pytest -q -n auto

READER ?= yaml or journal or model or data or run_folder or rank
MINUTES ?= 60
fuzz:  ## try other random inputs than the default tests, above all to break the readers of files: make fuzz READER=model MINUTES=60
	@end=$$(( $$(date +%s) + 60 * $(MINUTES) )); while [ $$(date +%s) -lt $$end ]; do \
	  LAB3_FUZZ_EXAMPLES=5000 $(PYTHON) -m pytest -q tests/test_fuzz.py tests/test_journal.py tests/test_rank.py -k '$(READER)' \
	    --hypothesis-show-statistics \
	  || exit 1; done

gpu-check:  ## pack lab3, its tests and its benchmark for a machine with JAX, a GPU and no network, in gpu-check/
	$(PYTHON) benchmarks/gpu_check.py pack gpu-check

constraints:  ## write the versions that the images of experiments/jobs have, from what pip chooses now
	$(PYTHON) docs/constraints.py

pictures:  ## make the pictures in docs/images of report, dashboard and terminal; make install-browser first
	$(PYTHON) docs/pictures.py

docs:  ## write docs/cli.md and docs/settings.md from the package itself
	$(PYTHON) docs/build.py

docs-check:  ## fail if one of them is stale
	$(PYTHON) docs/build.py --check

site:  ## build docs/ as a site in site/ (pip install -e '.[docs]' first)
	$(PYTHON) -m mkdocs build --strict --quiet

dead-code:  ## find code that nothing uses
	$(PYTHON) -m vulture

spelling:  ## find words that are misspelt
	$(PYTHON) -m codespell_lib

check-code: lint types dead-code spelling docs-check  ## everything but the tests

check: check-code test  ## everything a commit must pass

.PHONY: help install format lint types test test-wheel test-shared test-online test-chaos test-cluster test-graphs test-all test-jax test-torch \
  test-newest fuzz docs docs-check site dead-code spelling check-code check
