# `make help` lists the targets. Everything runs in .venv, made from requirements.lock and kept until the lock changes.
PYTHON  ?= python3
PROFILE ?= mini
TABLES  ?= table1 table2 table3 table4 table5 table6 figure2 lab
# Runs side by side. Tiny runs on a CPU gain nothing from a second thread, and everything from a second core.
PACK    ?= $(if $(filter mini,$(PROFILE)),2,1)
BIN     := .venv/bin
READY   := .venv/ready
ARGS    := --table $(TABLES) --profile $(PROFILE) $(if $(DATA_ROOT),--data-root "$(DATA_ROOT)") \
           $(if $(TEXT_MODEL),--text-model "$(TEXT_MODEL)")
SWEEP   := $(BIN)/mmel sweep $(ARGS) --pack $(PACK) $(if $(BUDGET),--budget-minutes $(BUDGET)) \
           $(if $(filter-out 0,$(RETRY)),--retry-failed)
# Tests train tiny networks: a process on each core, up to four, is faster than threads that wait for each other. Files
# begin in the order of tests/conftest.py, the slow ones first.
PYTEST  := OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile \
           --no-loadscope-reorder
# The oldest that pyproject.toml takes, and what the library's tests need beside them.
OLDEST  := torch==2.4.1 torchvision==0.19.1 transformers==4.46.3 accelerate 'datasets>=3' pytest scipy
# What a profile keeps for itself. The augmented texts are shared between profiles, and cost hours at paper scale.
FOLDERS := runs report executed checkpoints weights predictions teacher

# Where this is set, every start of Python would compile torch's modules anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help study sweep report test test-old bench bench-gpu lab lint lock clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12
	@echo 'study, sweep and report take PROFILE=mini|reduced|paper, TABLES="table1 ...", DATA_ROOT=folder, TEXT_MODEL=name'
	@echo 'study and sweep take PACK=runs side by side, BUDGET=minutes, RETRY=1 (train failed runs again)'

study: $(READY)  ## train what is missing of the tables, then build the book
	$(SWEEP); status=$$?; $(BIN)/mmel report $(ARGS) && exit $$status

sweep: $(READY)  ## only train what is missing
	$(SWEEP)

report: $(READY)  ## only write the tables and build the book from what is recorded
	$(BIN)/mmel report $(ARGS)

test: $(READY)  ## lint, unit tests, and nbval on the notebooks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(PYTEST) --nbval-lax tests notebooks/use_*.ipynb
	$(PYTEST) --nbval notebooks/explore_mmel.ipynb notebooks/plot_*.ipynb

test-old: $(READY)  ## the library's tests, from its sdist, with the oldest torch and transformers that it takes: gigabytes
	folder=$$(mktemp -d) && $(BIN)/uv build --quiet --out-dir $$folder . && tar -xzf $$folder/mmel-*.tar.gz -C $$folder && \
	    $(BIN)/uv venv --quiet --python $(BIN)/python $$folder/venv && \
	    $(BIN)/uv pip install --quiet --python $$folder/venv $$folder/mmel-*.whl $(OLDEST) && \
	    cd $$folder/mmel-*/ && OMP_NUM_THREADS=1 ../venv/bin/pytest tests/library && rm -r $$folder

bench: $(READY)  ## the timings of benchmarks/README.md, on this machine
	$(BIN)/python -m benchmarks

bench-gpu: $(READY)  ## the timings of a GPU beside its own limits, and what the K samples cost there
	$(BIN)/python -m benchmarks gpu cost_of_augmentation

lab: $(READY)  ## open JupyterLab
	$(BIN)/jupyter lab notebooks

lint: $(READY)  ## format and lint
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: $(READY)  ## resolve requirements.lock anew from pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --extra study --extra ray --extra test \
	    --no-emit-index-url --no-annotate --no-header -o requirements.lock pyproject.toml

clean:  ## remove .venv and what mini left in results: its runs, report and work in progress, and the tiny BERT
	rm -rf .venv $(FOLDERS:%=results/%/mini) results/models/tiny-bert

# uv, itself from the lock, puts the hashed packages in place in well under a minute.
$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 14) else "mmel needs Python 3.11 to 3.13, got " + sys.version.split()[0] + "; name one with PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check "$$(grep -oE '^uv==[0-9.]+' requirements.lock)"
	$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	touch $(READY)
