# Everything from a clean clone; needs only Python 3.10 to 3.13, make and git.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast harden lint bench gpu clean
BIN := .venv/bin
FITS := import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info < (3, 14))
PYTHON ?= $(shell for p in python3 python3.12 python3.11 python3.13 python3.10; do \
	$$p -c '$(FITS)' 2>/dev/null && echo $$p && break; done)

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: .venv/.ready  ## virtual environment in .venv (2 to 3 minutes and 6 GB, once)

.venv/.ready: requirements.txt requirements-train.txt
	@test -n "$(PYTHON)" || { echo "error: no Python 3.10 to 3.13 with venv on the PATH; name one: make PYTHON=..."; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

RUNS ?= runs/demo
demo: setup  ## all stages in small on digits, and a report of them (7.5 minutes on one thread of a busy CPU); goes on after a stop
	$(BIN)/python pipeline.py --data digits --budget demo --runs-dir $(RUNS) --resume $(ARGS)

PARALLEL = --numprocesses 2 --no-loadscope-reorder
test: setup lint  ## all tests, the slow ones too
	$(BIN)/python -m pytest $(PARALLEL)

test-fast: setup lint  ## the tests without real experiments and browser
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow and not harden"

harden: setup  ## thousands of damaged files: is each refused, or mended and told? (docs/reliability.md)
	$(BIN)/python -m pytest $(PARALLEL) -m harden

lint: setup  ## style
	$(BIN)/python -m ruff check .

bench: setup  ## measure speed and memory on this machine
	$(BIN)/python -m benchmarks.input_pipeline
	$(BIN)/python -m benchmarks.training_step
	$(BIN)/python -m benchmarks.precision
	$(BIN)/python -m benchmarks.darts_step
	$(BIN)/python -m benchmarks.nas_scores
	$(BIN)/python -m benchmarks.predict
	$(BIN)/python -m benchmarks.startup
	$(BIN)/python -m benchmarks.memory

gpu: setup  ## what this machine's GPU computes, right or wrong, and how fast (9 minutes; docs/gpu.md)
	$(BIN)/python -m benchmarks.gpu $(ARGS)

clean:  ## remove the environment and caches; results in runs/ and data in .data/ stay
	rm -rf .venv .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
