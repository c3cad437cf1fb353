# Each target sets up a fresh machine by itself: a virtual environment in .venv, with the pinned
# requirements. It is made again when requirements.txt or pyproject.toml change.

PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
ENVIRONMENTS := $(VENV)/.environments

export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# On two idle cores two threads train 1.6 times faster than one; beside other work, such as a second test process, they wait
# for each other and are 2 to 8 times slower. Results depend on the number by rounding.
repro demo: export OMP_NUM_THREADS ?= 2
quick test: export OMP_NUM_THREADS ?= 1
# glibc hands the memory of large tensors back, and it is mapped anew for the next ones: a tenth of an evaluation's time.
repro demo: export MALLOC_MMAP_THRESHOLD_ ?= 4294967296
repro demo: export MALLOC_TRIM_THRESHOLD_ ?= 4294967296
repro demo: export MALLOC_TOP_PAD_ ?= 67108864

.DEFAULT_GOAL := help
.PHONY: help setup demo repro quick test check clean

help:
	@echo "make demo    run the pipeline in small, from raw data to the open report (two to three minutes)"
	@echo "make repro   run the pipeline (dvc repro) and show what came of it"
	@echo "make quick   lint, and run the tests that start no process (four minutes)"
	@echo "make test    lint, type check and run the tests"
	@echo "make check   lint and type check only"
	@echo "make clean   remove the virtual environment and tool caches"

setup: $(READY)

$(READY): requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "posttrain needs Python 3.11 or newer; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet -r requirements.txt
	$(VENV)/bin/python -m pip install --quiet --no-deps -e .
	touch $@

demo: setup
	python -m posttrain.demo

# What some environments need, and their tests; without it those tests are skipped.
$(ENVIRONMENTS): $(READY) requirements-environments.txt
	$(VENV)/bin/python -m pip install --quiet -r requirements-environments.txt
	touch $@

repro: setup
	@python -m posttrain.core.params
	@start=$$(date +%s); dvc repro && python -m posttrain.report.summary $$(($$(date +%s) - start))

check: setup
	ruff format --check .
	ruff check .
	mypy

quick: setup
	ruff format --check .
	ruff check .
	pytest --numprocesses 2 --dist loadfile -m "not slow"

test: check $(ENVIRONMENTS)
	pytest --numprocesses 2 --dist loadfile

clean:
	rm -rf $(VENV) demo .mypy_cache .pytest_cache .ruff_cache .hypothesis
