# The common jobs. Every other option belongs to the program: make train-all DATA=... ARGS="--epochs 50 --seed 7",
# or .venv/bin/brats-tf COMMAND --help. Variables of the shell's environment do not count; misspelt ones are refused.

VENV = .venv
PYTHON =
EXTRAS =
MOD =
DATA =
RUNS =
OUT =
RESULTS =
ARGS =

KNOWN := VENV PYTHON EXTRAS MOD DATA RUNS OUT RESULTS ARGS
GIVEN := $(foreach name,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(name)))),$(name)))
$(foreach name,$(filter-out $(KNOWN) MAKE% -%,$(GIVEN)),\
	$(error $(name) is not a variable of this Makefile; known are $(KNOWN). Options of the program: ARGS="--epochs 5"))

BRATS := $(VENV)/bin/brats-tf
READY := $(VENV)/.ready
PYTEST := $(VENV)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0
ifneq ($(filter command,$(firstword $(origin DATA))),)
ifeq ($(strip $(DATA)),)
$(error DATA is empty: name the folder of your cases, or leave DATA away for synthetic ones)
endif
endif
# Without DATA: synthetic cases, in a place of their own.
CASES = $(if $(DATA),"$(DATA)",--phantoms)
PREDICTIONS = "$(if $(OUT),$(OUT),$(if $(DATA),predictions,phantoms/predictions))"
RUNS_ARG = $(if $(RUNS),--runs "$(RUNS)")
OUT_ARG = $(if $(OUT),--out "$(OUT)")
RESULTS_ARG = $(if $(RESULTS),--results "$(RESULTS)")

.DEFAULT_GOAL := help
.PHONY: help setup demo train-modality train-all train-plus ensemble-predict evaluate report bench docs test test-slow test-large check lock release clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "Variables: $(KNOWN)"

setup: $(READY) ## create the virtual environment and install everything (PYTHON=python3.12, EXTRAS="gpu bench")

# Created again when what it installs changes, or when PYTHON or EXTRAS differ from what it was created with.
WANTED := $(strip $(PYTHON) $(EXTRAS))
ifneq ($(WANTED),)
ifneq ($(WANTED),$(shell cat "$(READY)" 2>/dev/null))
.PHONY: $(READY)
endif
endif
$(READY): requirements.lock setup.cfg pyproject.toml tools/setup.sh
	@sh tools/setup.sh "$(VENV)" "$(PYTHON)" "$(EXTRAS)"
	@echo "$(WANTED)" > $@

demo: $(READY) ## run everything on synthetic cases, in minutes
	$(BRATS) demo $(RUNS_ARG) $(OUT_ARG) $(RESULTS_ARG) $(ARGS)

train-modality: $(READY) ## train or resume one network: make train-modality MOD=flair DATA=BraTS2020
	$(BRATS) train $(CASES) $(if $(MOD),--modality "$(MOD)") $(RUNS_ARG) $(ARGS)

train-all: $(READY) ## train or resume the four networks of the ensemble: make train-all DATA=BraTS2020
	$(BRATS) train $(CASES) --modality all $(RUNS_ARG) $(ARGS)

train-plus: $(READY) ## train embedding-plus, one network of four modalities: make train-plus ARGS="--minutes 90"
	$(BRATS) train $(CASES) --preset embedding-plus $(RUNS_ARG) $(ARGS)

ensemble-predict: $(READY) ## average the networks, write OUT/<case>.nii.gz: make ensemble-predict DATA=BraTS2020_Validation
	$(BRATS) predict $(CASES) $(RUNS_ARG) $(OUT_ARG) $(ARGS)

evaluate: $(READY) ## score OUT (default without DATA: those of synthetic cases), which knows its data; DATA is the truth of others
	$(BRATS) evaluate $(PREDICTIONS) $(if $(DATA),--truth "$(DATA)") $(RUNS_ARG) $(RESULTS_ARG) $(ARGS)

report: $(READY) ## after evaluate, with the same OUT and DATA: write OUT/results/report.html
	$(BRATS) report $(PREDICTIONS) $(if $(DATA),--truth "$(DATA)") $(RUNS_ARG) $(RESULTS_ARG) $(ARGS)

bench: $(READY) ## measure this machine (EXTRAS=bench adds the libraries that it compares with)
	$(VENV)/bin/python -m bench all $(CASES) $(RESULTS_ARG) $(ARGS)

docs: $(READY) ## build the documentation into docs/_build/html; warnings are errors
	$(VENV)/bin/python -m sphinx -q -W --keep-going -b html docs docs/_build/html $(ARGS)
	@echo "Documentation: docs/_build/html/index.html"

test: $(READY) ## run the tests, on a CPU, without an internet connection, in two processes
	$(PYTEST) -m "not slow and not large" $(ARGS)

test-slow: $(READY) ## run the tests that take over six seconds each
	$(PYTEST) -m "slow and not large" $(ARGS)

test-large: $(READY) ## run the tests that take minutes or gigabytes each
	$(VENV)/bin/python -m pytest -m large $(ARGS)

check: $(READY) ## check style and types
	$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/mypy

lock: ## write requirements.lock from setup.cfg (needs uv)
	uv pip compile setup.cfg --extra test --extra docs --extra clinical --extra ray --extra runtimes --extra serve --universal \
		--python-version 3.10 --no-header --output-file requirements.lock

release: $(READY) ## build dist/ from the tag of this commit: wheel, source archive, notes
	$(VENV)/bin/python tools/release.py

clean: ## remove the virtual environment, caches and the demo; runs, predictions and results stay
	[ ! -f "$(VENV)/pyvenv.cfg" ] || rm -rf "$(VENV)"
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache demo docs/_build docs/reference/generated
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
