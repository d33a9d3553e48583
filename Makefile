# Each target is one line over the console script `brats-tf`; `make` alone lists them.
.DEFAULT_GOAL := help
SHELL := /bin/sh

PYTHON ?=
GPU ?=
BENCH ?=
VENV ?= .venv
RUNS ?= runs
OUT ?= predictions
RESULTS ?= results
ARCHIVE ?= submission.zip
A ?= results
B ?=
CASE ?=
SLICES ?=
PRESET ?= paper
# Empty means: the program's own default, see `brats-tf <command> --help`.
DATA ?=
EPOCHS ?=
CROP ?=
WEIGHTS ?=
SEED ?=
MOD ?=
NETWORKS ?=
BACKBONE ?=
PLANES ?=
MEASURE ?=
ONLY ?=
STORE ?=
WORKERS ?=
VERIFY ?=
JSON ?=
AUGMENTATION ?=
SPACING ?=
FOLD ?=
HELD_OUT ?=
VALIDATE ?=
VALIDATION ?=
EMPTY ?=
REMOVE_BELOW ?=
FILL_HOLES ?=
DROP_ET_BELOW ?=
UNCERTAINTY ?=
LENGTH ?=
SEEDS ?=
SKIP_BAD ?=
PATCH ?=
STEP ?=
BATCH ?=
BATCHES ?=
ACCUMULATION ?=
SCHEDULE ?=
WARM_UP ?=
PLATEAU_ON ?=
AVERAGE ?=
PRECISION ?=
REMAT ?=
JIT ?=
DEVICES ?=
RESTART ?=
MINUTES ?=
BEST ?=
NAME ?=
WINDOW_WEIGHTS ?=
FOREGROUND ?=

BRATS := $(VENV)/bin/brats-tf
READY := $(VENV)/.ready
option = $(if $($(2)),--$(1) "$($(2))")
DATA_ARGS = $(call option,data,DATA) --runs "$(RUNS)"
PRESET_ARGS = $(if $(filter-out paper,$(PRESET)),--preset "$(PRESET)")
NETWORK_ARGS = $(PRESET_ARGS) $(call option,crop,CROP) $(call option,patch,PATCH) \
	$(call option,backbone,BACKBONE) $(call option,planes,PLANES)
RUN_ARGS = $(call option,weights,WEIGHTS) $(call option,epochs,EPOCHS) $(call option,seed,SEED)
STORE_ARGS = $(call option,store,STORE) $(call option,spacing-mm,SPACING) $(call option,workers,WORKERS)
PREPARE_ARGS = $(PRESET_ARGS) $(call option,crop,CROP) $(call option,modality,MOD)
BAD_ARGS = $(if $(SKIP_BAD),--skip-bad)
SPLIT_ARGS = $(call option,fold,FOLD) $(call option,validation,VALIDATION) $(call option,validate-every,VALIDATE)
PATCH_ARGS = $(call option,step,STEP) $(call option,window-weights,WINDOW_WEIGHTS) $(call option,foreground,FOREGROUND) \
	$(call option,batch-size,BATCH) $(call option,batches,BATCHES) $(call option,accumulation,ACCUMULATION)
STEP_ARGS = $(call option,remove-below-ml,REMOVE_BELOW) $(if $(FILL_HOLES),--fill-holes) \
	$(call option,drop-et-below-ml,DROP_ET_BELOW) $(if $(UNCERTAINTY),--save-uncertainty)
COMPUTE_ARGS = $(call option,schedule,SCHEDULE) $(call option,warm-up,WARM_UP) $(call option,plateau-on,PLATEAU_ON) \
	$(call option,average,AVERAGE) $(call option,precision,PRECISION) $(if $(REMAT),--remat) $(if $(JIT),--jit) \
	$(call option,devices,DEVICES) $(if $(RESTART),--restart) $(call option,checkpoint-minutes,MINUTES)
TABLE1_ARGS = $(call option,data,DATA) $(call option,validation,VALIDATION) $(call option,length,LENGTH) \
	$(call option,seeds,SEEDS) $(call option,accumulation,ACCUMULATION)
TRAIN_ARGS = $(PATCH_ARGS) $(DATA_ARGS) $(NETWORK_ARGS) $(RUN_ARGS) $(STORE_ARGS) $(SPLIT_ARGS) $(call option,augmentation,AUGMENTATION) $(COMPUTE_ARGS) $(BAD_ARGS)
PREDICT_ARGS = $(PRESET_ARGS) $(DATA_ARGS) --out "$(OUT)" $(call option,networks,NETWORKS) $(if $(HELD_OUT),--held-out)

.PHONY: help setup demo prepare train-modality train train-all predict ensemble-predict tune evaluate runs experiment report figures compare submit summary export cases bench backbones \
	overfit traps albunet-table1 lock check test test-slow clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  Variables: DATA RUNS OUT RESULTS PRESET EPOCHS CROP WEIGHTS SEED MOD NETWORKS BACKBONE PLANES"
	@echo "    PATCH STEP BATCH BATCHES ACCUMULATION WINDOW_WEIGHTS FOREGROUND"
	@echo "    SCHEDULE WARM_UP PLATEAU_ON AVERAGE PRECISION REMAT JIT DEVICES RESTART MINUTES BEST NAME"
	@echo "    AUGMENTATION SPACING STORE WORKERS VERIFY FOLD VALIDATION VALIDATE HELD_OUT EMPTY REMOVE_BELOW FILL_HOLES DROP_ET_BELOW UNCERTAINTY ARCHIVE A B CASE SLICES LENGTH SEEDS SKIP_BAD JSON MEASURE ONLY PYTHON GPU BENCH"

setup: $(READY) ## make the virtual environment .venv and install everything (PYTHON=python3.12 chooses one of 3.10-3.13; GPU=1 adds CUDA, BENCH=1 what `make bench` compares with)

# Made anew when what it installs changes, or when PYTHON, GPU or BENCH name something else than it was made with.
EXTRAS := $(strip $(if $(GPU),gpu) $(if $(BENCH),bench))
WANTED := $(strip $(PYTHON) $(EXTRAS))
ifneq ($(WANTED),)
ifneq ($(WANTED),$(shell cat "$(READY)" 2>/dev/null))
.PHONY: $(READY)
endif
endif
$(READY): requirements.lock setup.cfg pyproject.toml tools/setup.sh
	@sh tools/setup.sh "$(VENV)" "$(PYTHON)" "$(EXTRAS)"
	@echo "$(WANTED)" > $@

demo: $(READY) ## the whole job on made-up cases, in minutes
	$(BRATS) demo --runs demo/runs --out demo/predictions --results demo/results $(call option,crop,CROP) $(RUN_ARGS)

prepare: $(READY) ## read and normalise every case of DATA once; training does it by itself (VERIFY=1 checks the store, removes what is damaged)
	$(BRATS) prepare $(DATA_ARGS) $(PREPARE_ARGS) $(STORE_ARGS) $(BAD_ARGS) $(if $(VERIFY),--verify)

train-modality: $(READY) ## train one network, or go on where it stopped: make train-modality MOD=flair DATA=BraTS2020
	$(BRATS) train --modality "$(MOD)" $(TRAIN_ARGS)

train: $(READY) ## train what a preset names: make train PRESET=albunet3d DATA=BraTS2020 (or authors, albunet2d, albunet3d-subsets ...)
	$(BRATS) train $(TRAIN_ARGS)

predict: ensemble-predict ## the same as ensemble-predict

train-all: $(READY) ## train the four networks, side by side where there are several GPUs
	$(BRATS) train --modality all $(TRAIN_ARGS)

ensemble-predict: $(READY) ## average the trained networks and write OUT/<case>.nii.gz
	$(BRATS) predict $(PREDICT_ARGS) $(if $(BEST),--epoch best) $(STEP_ARGS)

tune: $(READY) ## find the ET volume to drop, on predictions in OUT of cases that training has not seen
	$(BRATS) tune $(PREDICT_ARGS)

evaluate: $(READY) ## score OUT against the truth in DATA: RESULTS/cases.csv, RESULTS/summary.json
	$(BRATS) evaluate $(PREDICT_ARGS) --results "$(RESULTS)" $(call option,empty,EMPTY)

runs: $(READY) ## list the runs in RUNS and compare them: how far, how long, how good, what differs (JSON=1)
	$(BRATS) runs --runs "$(RUNS)" $(if $(JSON),--json)

experiment: $(READY) ## run what is missing of a grid, one table: make experiment NAME=folds_and_seeds DATA=... (experiments/grid.py)
	$(VENV)/bin/python experiments/grid.py "$(NAME)" --data "$(DATA)" --runs "$(RUNS)/experiments" --results "$(RESULTS)"

report: $(READY) ## after predict and evaluate: RESULTS/report.html, one file with everything
	$(BRATS) report $(PREDICT_ARGS) --results "$(RESULTS)" $(call option,slices,SLICES)

figures: $(READY) ## the paper's figures from RUNS/MOD into its folder: make figures MOD=flair DATA=... CASE=...
	$(BRATS) figures --run "$(RUNS)/$(or $(MOD),flair)" $(DATA_ARGS) $(call option,case,CASE) $(if $(HELD_OUT),--held-out)

compare: $(READY) ## paired comparison of two folders of evaluate: make compare A=results_b0 B=results_b7
	$(BRATS) compare "$(A)" "$(B)" --results "$(RESULTS)"

submit: $(READY) ## check OUT for what the BraTS platform asks, and zip it to ARCHIVE
	$(BRATS) submit $(call option,data,DATA) --out "$(OUT)" --archive "$(ARCHIVE)"

summary: $(READY) ## print the network, layer by layer
	$(BRATS) summary $(NETWORK_ARGS) $(call option,modality,MOD)

backbones: $(READY) ## list the 2D classifiers that BACKBONE= takes (MEASURE=1: measure them here)
	$(BRATS) backbones $(call option,backbone,BACKBONE) $(if $(MEASURE),--measure --results "$(RESULTS)")

export: $(READY) ## write RUNS/MOD as a SavedModel to exported/MOD: make export MOD=flair
	$(BRATS) export --run "$(RUNS)/$(or $(MOD),flair)" --out "exported/$(or $(MOD),flair)"

cases: $(READY) ## list what is in DATA, and what is skipped and why
	$(BRATS) cases $(call option,data,DATA) $(if $(JSON),--json)

bench: $(READY) ## measure this machine: network, windows, data and training (ONLY= one of them)
	$(BRATS) bench $(DATA_ARGS) --results "$(RESULTS)" $(NETWORK_ARGS) $(call option,only,ONLY)

overfit: $(READY) ## learn one case of DATA by heart at full size (experiments/overfit_one_case.py)
	$(VENV)/bin/python experiments/overfit_one_case.py $(call option,data,DATA) --results "$(RESULTS)" $(call option,weights,WEIGHTS)

traps: $(READY) ## hidden input scaling and batch norm, in numbers (experiments/scaling_and_batch_norm.py)
	$(VENV)/bin/python experiments/scaling_and_batch_norm.py $(call option,data,DATA) --results "$(RESULTS)" $(call option,weights,WEIGHTS)

albunet-table1: $(READY) ## paper B's protocol, as long as the paper's, or LENGTH=short (experiments/albunet_table1.py; SEEDS=5)
	$(VENV)/bin/python experiments/albunet_table1.py $(TABLE1_ARGS) --runs "$(RUNS)/albunet_table1" --results "$(RESULTS)"

test: $(READY) ## the tests, on a CPU, without network, in two processes
	$(VENV)/bin/python -m pytest -m "not slow" -n 2 --dist loadfile

test-slow: $(READY) ## the tests that take minutes or gigabytes
	$(VENV)/bin/python -m pytest -m slow

check: $(READY) ## style
	$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check .

lock: ## write requirements.lock anew from setup.cfg (needs uv)
	uv pip compile setup.cfg --extra test --universal --python-version 3.10 --no-header --output-file requirements.lock

clean: ## remove the virtual environment, caches and the demo; runs, predictions and results stay
	rm -rf "$(VENV)" build dist *.egg-info .pytest_cache .ruff_cache demo
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
