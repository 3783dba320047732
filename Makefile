# Every target does its own set-up; `make demo` and `make test` are all a newcomer needs.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.ready

help: ## list the targets
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

setup: $(STAMP) ## make .venv with the locked versions and trainrun in it

$(STAMP): requirements.lock pyproject.toml
	@echo "setup: making .venv (about 2 minutes the first time)"
	$(PYTHON) -c 'import sys; assert (3,11) <= sys.version_info < (3,14), f"python {sys.version.split()[0]}: 3.11 to 3.13 is needed; set PYTHON=..."'
	@# anew: what a set-up with another python left, broken off half way, would be half of it
	$(PYTHON) -m venv --clear .venv
	$(BIN)/pip install --quiet --disable-pip-version-check uv==0.13.9
	@# bytecode now: where PYTHONDONTWRITEBYTECODE is set, each process of a run would compile torch and transformers anew
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

demo: setup ## two runs on real text, one with three faults; proves them equal bit for bit
	$(BIN)/python examples/01-local/demo.py

test: setup ## all layers, with the time of each
	$(BIN)/python tests/run_layers.py

test-%: setup ## one layer: lint unit sim chart trainer local demo story control-plane nodes
	$(BIN)/python tests/run_layers.py $*

lint: setup ## ruff, import contracts, spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH=$(CURDIR)/$(BIN):$$PATH $(BIN)/lint-imports
	$(BIN)/codespell README.md CONTRIBUTING.md CHANGELOG.md docs api operator trainer tests examples bench

fmt: setup ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: setup ## mypy --strict, the harnesses of control plane and nodes included
	$(BIN)/mypy
	$(BIN)/mypy tests/controlplane/*.py tests/nodes/*.py

generate: setup ## write crds/, the generated pages of docs/, and the roles of charts/ and deploy/
	$(BIN)/python -m trainrun_api.generate
	$(BIN)/python -m trainrun_operator.generate

verify: generate ## fail if a generated file is not current
	git diff --exit-code -- crds docs charts deploy

bench: setup ## recovery, control loop, and training against its peers in short; JSON under build/bench
	$(BIN)/python bench/recovery.py
	$(BIN)/python bench/control_loop.py
	$(BIN)/python bench/trainer_speed.py --quick --sizes 7M
	$(BIN)/python bench/lora_speed.py --quick --sizes 7M
	$(BIN)/python bench/sft_packing.py --quick
	$(BIN)/python bench/prepare_speed.py --quick
	$(BIN)/python bench/merge_speed.py --quick
	$(BIN)/python bench/resume_start.py --quick

bench-training: setup ## training, text, merges and resume against their peers at full size (an hour)
	$(BIN)/python bench/trainer_speed.py
	$(BIN)/python bench/lora_speed.py
	$(BIN)/python bench/sft_packing.py
	$(BIN)/python bench/prepare_speed.py
	$(BIN)/python bench/merge_speed.py
	$(BIN)/python bench/merge_memory.py
	$(BIN)/python bench/resume_start.py

RUNS ?= 1000
bench-scale: setup ## the operator among RUNS=1000 runs (not in `bench`: far over 10 minutes; pods are played)
	$(BIN)/python bench/operator_scale.py --runs $(RUNS) --played-jobs

dev-cluster: setup ## a real control plane with fake nodes and the operator, to try things by hand; Ctrl-C ends it
	@$(BIN)/python -m tests.controlplane.dev_cluster

demo-cluster: setup ## real nodes, one of which vanishes under a run, told live (root; its first time takes 20 minutes)
	@$(BIN)/python -m tests.nodes.demo

soak: setup ## real nodes: every scenario three times in a row, the main faults ten times (two hours)
	@$(BIN)/python -m tests.nodes.soak

agent: setup ## build/agent.pyz: the agent for images that are not ours, one file for any Python from 3.9
	$(BIN)/python -m trainrun_trainer.agent.bundle build/agent.pyz

LOCK := $(BIN)/uv pip compile --quiet --no-annotate --no-header --python-version 3.11

lock: ## resolve requirements.in again, and the images' parts of it
	$(LOCK) --upgrade requirements.in -o requirements.lock
	@# the images get the same versions, and no more than they import; torch comes with the base or by itself
	$(LOCK) --constraints requirements.lock <(grep '^torch==' requirements.in) -o requirements-torch.txt
	$(LOCK) --constraints requirements.lock requirements-operator.in -o requirements-operator.txt
	$(LOCK) --constraints requirements.lock --extra trainer --excludes <(echo torch) pyproject.toml -o requirements-trainer.txt

clean: ## remove what the targets made in this checkout
	rm -rf .venv build demo runs .mypy_cache .ruff_cache .hypothesis examples/*/text

clean-cache: ## remove what is shared between checkouts
	rm -rf "$${XDG_CACHE_HOME:-$$HOME/.cache}/trainrun"

.PHONY: help setup demo test lint fmt types generate verify bench bench-training bench-scale dev-cluster demo-cluster soak agent lock clean clean-cache
