# Two commands on a fresh machine: `make demo` and `make test`. Each makes its own .venv from the lock and skips what is done.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --require-hashes --only-binary :all:
FOR ?=
DATA ?=
SCRATCH ?=
TRUNK ?=
BASE ?=
VARIANT ?=

# where the environment forbids it, each of the hundreds of processes would compile all the source anew
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test check lint types floors docs screenshots looks soak bench image lock train-pcb train-parcel train-grocery clean

help: ## show this
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

$(VENV)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Eyeline needs Python 3.11 or newer, and $$($(PYTHON) --version 2>&1 || echo no $(PYTHON)) was found: install one, or name it with 'make PYTHON=/path/to/python3.11 ...'." >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { echo "python3's venv module is missing: on Debian or Ubuntu, apt install python3-venv." >&2; rm -rf $(VENV); exit 2; }
	@touch $@

$(VENV)/runtime: $(VENV)/python requirements/runtime.txt pyproject.toml
	@test -e $(VENV)/test || { echo "Installing what Eyeline runs on (about 150 MB, once) ..."; $(PIP) -r requirements/runtime.txt | grep -vE '^(Requirement already|  Using cached)' || exit 1; }
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/test: $(VENV)/python requirements/test.txt pyproject.toml
	@echo "Installing Eyeline and what its tests need ..."
	@$(PIP) --quiet -r requirements/test.txt
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable . --editable clients/python
	@touch $@ $(VENV)/runtime

$(VENV)/soak: $(VENV)/test requirements/soak.txt
	@$(PIP) --quiet -r requirements/soak.txt
	@touch $@

setup: $(VENV)/runtime ## install Eyeline into .venv
	@echo "Ready. Type '. $(VENV)/bin/activate', then 'eyeline --help'."

demo: $(VENV)/runtime ## all of it, live, with two belts and a line (FOR=30: 30 s of it)
	@$(BIN)/eyeline demo $(if $(FOR),--for $(FOR))

test: $(VENV)/test ## all tests, in at most 12 minutes on two cores
	@failed=0; \
	$(BIN)/pytest -q -n 4 --dist loadscope --no-loadscope-reorder tests/chaos tests/benchmark tests/e2e tests/contract tests/unit || failed=1; \
	$(BIN)/pytest -q -n 3 --dist loadscope --no-loadscope-reorder tests/web || failed=1; \
	exit $$failed

check: lint types floors docs ## lint, types, floors, docs

lint: $(VENV)/test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/test
	$(BIN)/mypy

floors: $(VENV)/test
	$(BIN)/lint-imports

docs: $(VENV)/test
	$(BIN)/pytest -q tests/unit/test_docs.py tests/unit/test_house.py

screenshots: $(VENV)/test ## pictures of every page into docs/images, from a running demo (needs Chromium)
	$(BIN)/python docs/screenshots.py

looks: $(VENV)/test ## the pictures that tests compare pages with, made anew (needs Chromium); look at what changed
	$(BIN)/python -m tests.web.look

soak: $(VENV)/soak ## the long forms: kills, servers away, whole belts, a million audit records, real tiles
	$(BIN)/pytest -q -m soak --timeout 7200 tests/chaos tests/unit/ops/audit tests/e2e/test_items_on_belts.py tests/e2e/test_stores_of_a_cluster.py tests/benchmark \
	  tests/e2e/test_anomaly_real.py tests/contract
	$(BIN)/pytest -q -m soak --timeout 7200 tests/web

bench: $(VENV)/test ## this machine's limit, Eyeline and the naive service, in one run
	$(BIN)/eyeline bench $(if $(DATA),--images $(DATA))

.venv-training/installed: training/requirements.txt
	@$(PYTHON) -m venv .venv-training
	@echo "Installing what training needs (PyTorch; large) ..."
	@.venv-training/bin/python -m pip install --disable-pip-version-check --quiet --require-hashes -r training/requirements.txt
	@touch $@

train-pcb: .venv-training/installed ## train pcb-defects (DATA=folder: on your labelled boards; SCRATCH=1: anew)
	.venv-training/bin/python -m training.pcb --work .training/pcb $(if $(DATA),--data $(DATA)) $(if $(SCRATCH),--scratch)

train-parcel: .venv-training/installed ## finish parcel-damage on DATA=folder with damaged/ and intact/
	.venv-training/bin/python -m training.parcels --data $(DATA)

train-grocery: .venv-training/installed ## train grocery on DATA=folder with labels.csv (TRUNK=efficientnet_lite0.onnx)
	.venv-training/bin/python -m training.grocery --data $(DATA) --trunk $(TRUNK) --work .training/grocery --on learn
	.venv-training/bin/python -m training.grocery --data $(DATA) --trunk $(TRUNK) --work .training/grocery --on all

image: ## build the container image with buildah, run it, say its size and start time (BASE=, VARIANT=cuda)
	@BASE="$(BASE)" VARIANT="$(VARIANT)" deploy/image.sh

lock: ## make the locks anew (needs uv)
	requirements/compile.sh

clean: ## remove what make made
	rm -rf $(VENV) .demo .looks .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
