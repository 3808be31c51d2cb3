# The house's commands. `make run` and `make test` need nothing but Python 3.10 or newer.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip -qq --disable-pip-version-check
CLIP   := centermask_edge/_clips/people.mp4
OUT    ?= out
GPU_PYTHON ?= $(PYTHON)

MADE   := $(VENV)/.made
HAS_RUN  := $(VENV)/.has-run
HAS_TEST := $(VENV)/.has-test
# TensorRT's bindings without their libraries: what we call of them is checked in each version.
CONTRACT := 10.3.0 10.16.1.11 11.4.0.106

.PHONY: run test check gpu gpu-train docs results golden wheel clean help
.DEFAULT_GOAL := help

help:
	@echo "make run      segment people in the bundled clip; prints where the annotated video is"
	@echo "make test     run the tests"
	@echo "make check    ruff and mypy --strict"
	@echo "make gpu      build, test and time the CUDA kernels on this GPU (nvcc, torch, numpy)"
	@echo "make gpu-train  train the V19-slim and V39 person models (DATA=folder); call again to go on"
	@echo "make docs     refill the generated sections of README.md and docs/ from docs/results/"
	@echo "make results  measure the bundled clip again, then make docs"
	@echo "make golden   copy reference outputs into tests/golden (REFERENCE=folder)"
	@echo "make wheel    build the wheel into dist/"
	@echo "make clean    remove the virtual environment, outputs and caches"

run: $(HAS_RUN)
	@mkdir -p $(OUT)
	$(BIN)/centermask-edge run $(CLIP) --out $(OUT)/people.mp4 --json $(OUT)/people.jsonl \
		--stages-json $(OUT)/stages.json
	@echo "annotated video: $(abspath $(OUT)/people.mp4)"

test: $(HAS_TEST) $(addprefix $(VENV)/contract/,$(CONTRACT))
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: $(HAS_TEST)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict

# No virtual environment: the machine's own torch is the one that fits its GPU.
gpu:
	@$(GPU_PYTHON) -c 'import torch, numpy' 2>/dev/null || { echo "$(GPU_PYTHON) has no torch or numpy; name \
	another: make gpu GPU_PYTHON=/path/to/python3" >&2; exit 2; }
	PYTHONPATH=. $(GPU_PYTHON) bench/gpu.py

# Stops with a checkpoint before LIMIT seconds are over; the same call goes on from there.
LIMIT ?= 560
gpu-train:
	@test -n "$(DATA)" || { echo "make gpu-train DATA=folder with train.json, val.json and images/" >&2; \
	exit 2; }
	PYTHONPATH=. $(GPU_PYTHON) bench/gpu_train.py --data "$(DATA)" --output $(OUT)/gpu-train \
		--seconds $(LIMIT)

docs: $(HAS_RUN)
	$(BIN)/python docs/generate.py

results: run
	cp $(OUT)/stages.json docs/results/stages.json
	$(BIN)/python docs/generate.py --picture $(OUT)/people.mp4

golden:
	@test -n "$(REFERENCE)" || { echo "make golden REFERENCE=folder with golden/ and keys/" >&2; \
	exit 1; }
	@$(MAKE) --no-print-directory $(HAS_TEST)
	$(BIN)/python tests/golden/make_golden.py "$(REFERENCE)"
	$(BIN)/python tests/golden/make_instances.py "$(REFERENCE)/golden"

wheel: $(HAS_TEST)
	$(BIN)/python -m hatchling build -t wheel

clean:
	rm -rf .venv out dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The virtual environment, and a file in it for each set of packages, so that a second call
# installs nothing. An interrupted install leaves no such file and is simply done again.
$(MADE):
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found: install Python 3.10 or newer, \
	or name one: make PYTHON=/path/to/python3 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "$$($(PYTHON) \
	--version) found, Python 3.10 or newer wanted; name one: make PYTHON=/path/to/python3 \
	$(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) has no venv or ensurepip \
	module: install it (Debian, Ubuntu: apt install python3-venv) and try again" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(HAS_RUN): $(MADE) pyproject.toml
	@echo "installing centermask-edge[cpu] into $(VENV) (first call only; a few minutes at most)"
	@$(PIP) install --editable '.[cpu]'
	@touch $@

$(HAS_TEST): $(MADE) pyproject.toml constraints.txt
	@echo "installing centermask-edge[cpu,train,dev] into $(VENV) (first call only; torch is large)"
	@$(PIP) install "$$(grep '^torch==' constraints.txt)"
	@$(PIP) install --constraint constraints.txt --editable '.[cpu,train,dev]'
	@touch $(HAS_RUN) $@

# Not on every platform; the tests that need them then skip and say so.
$(VENV)/contract/%: | $(HAS_TEST)
	@$(PIP) install --no-deps --target $@ tensorrt-cu12-bindings==$* 2>/dev/null || { rm -rf $@; \
	echo "no bindings of TensorRT $* for this platform: their contract tests will be skipped"; }
