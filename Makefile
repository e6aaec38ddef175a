# `make run` and `make test` are all a newcomer needs; both make .venv by themselves.
# Variables: PYTHON (which interpreter), CONFIG, OUT and ARGS (for `run`), PYTEST_ARGS (for `test`),
# TORCH_CPU_INDEX (an extra index for torch's small CPU build; empty: never ask it); for `image`:
# BUILDER (docker, podman or buildah), IMAGE, ACCELERATOR (cpu or cuda), BASE, IMAGE_ARGS.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install run study study-full study-record pipeline image test lint format clean

PYTHON ?= python3.11 python3.12 python3.13 python3
CONFIG ?= $(STUDY)
OUT ?= runs/$(basename $(notdir $(CONFIG)))
ARGS ?=
PYTEST_ARGS ?=
WORKERS ?= 2
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
IMAGE ?= hierrouter:dev
ACCELERATOR ?= cpu
BASE ?= docker.io/library/python:3.11-slim-bookworm
IMAGE_ARGS ?=
BUILDER ?= $(firstword $(foreach each,docker podman buildah,$(if $(shell command -v $(each)),$(each))))

STUDY := configs/small_pool.yaml
RECORDED := studies/small_pool
# Empty where CONFIG, however it is written, is the study's.
OTHER = $(subst |$(abspath $(STUDY))|,,|$(abspath $(CONFIG))|)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALLED := .venv/.installed
INSTALLED_FOR_TESTS := .venv/.installed-for-tests
# Linux weighs sessions first and their processes by nice only then: a session of its own, of the
# least weight.
IN_THE_BACKGROUND := $(if $(shell command -v setsid),setsid sh -c '{ echo 19 >/proc/self/autogroup; } 2>/dev/null; exec nice -n 19 "$$0" "$$@"',nice -n 19)

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(INSTALLED) ## make .venv with hierrouter in it

run: $(INSTALLED) ## train on the recorded study, register, answer live; or all stages of CONFIG=… (OUT=…, ARGS='--set …')
	@$(BIN)/hierrouter run --config $(CONFIG) --out $(OUT) $(if $(OTHER),,--tree $(RECORDED) --live 12) $(ARGS)

study: $(INSTALLED) ## train and evaluate on the recorded study, and print its table (ARGS='--set …')
	@$(BIN)/hierrouter run --config $(STUDY) --out runs/small_pool --tree $(RECORDED) $(ARGS)

study-full: $(INSTALLED) ## the same with five seeds, cross-fitted, and each task left out once: ten minutes or more
	@$(BIN)/hierrouter run --config $(STUDY) --out runs/small_pool --tree $(RECORDED) \
	  --set evaluation.seeds=5 --set evaluation.cross_fit=true \
	  --set evaluation.leave_one_task_out=true $(ARGS)

study-record: $(INSTALLED) ## record what is missing of the study, in the background at low priority
	@mkdir -p runs/record
	@$(BIN)/hierrouter sample --config $(STUDY) --out runs/record/queries --tree $(RECORDED)
	@touch runs/record/log; from=$$(wc -c <runs/record/log); \
	  nohup $(IN_THE_BACKGROUND) $(BIN)/hierrouter collect --config $(STUDY) --queries runs/record/queries \
	    --out $(RECORDED) --part-size 10 $(ARGS) >>runs/record/log 2>&1 & pid=$$!; \
	  $(call until_recording,runs/record/log)

# Until the process $$pid says in the log, after its first $$from bytes, that it records, or it ends.
# Models may have to be downloaded first: what still runs after two minutes is taken to go on.
define until_recording
looks=0; \
while kill -0 "$$pid" 2>/dev/null && [ "$$looks" -lt 600 ] \
  && ! tail -c "+$$((from + 1))" $(1) | grep -q '^record'; do looks=$$((looks + 1)); sleep 0.2; done; \
if kill -0 "$$pid" 2>/dev/null; then \
  printf 'recording into $(RECORDED); look: tail -f $(1); stop: kill %s\n' "$$pid"; \
elif wait "$$pid"; then \
  printf 'nothing is missing in $(RECORDED); see $(1)\n'; \
else \
  printf 'make: recording into $(RECORDED) failed: %s; see $(1)\n' "$$(tail -n 1 $(1))" >&2; \
  exit 1; \
fi
endef

pipeline: $(INSTALLED) ## compile the Kubeflow pipeline of CONFIG=… into pipeline.yaml (ARGS='--image …')
	@$(BIN)/python pipelines/train_eval.py compile --config $(CONFIG) --out pipeline.yaml $(ARGS)

image: ## build the image of all components with docker, podman or buildah (ACCELERATOR=cuda, IMAGE=…)
	@test -n '$(BUILDER)' || { echo 'make: none of docker, podman and buildah is here; install one, or name it: make image BUILDER=/path' >&2; exit 1; }
	$(BUILDER) build -f components/Dockerfile -t '$(IMAGE)' \
	  $(if $(filter docker,$(notdir $(BUILDER))),,--format docker) \
	  --build-arg 'BASE=$(BASE)' --build-arg 'ACCELERATOR=$(ACCELERATOR)' \
	  --build-arg 'TORCH_CPU_INDEX=$(TORCH_CPU_INDEX)' \
	  --build-arg "VERSION=$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)" \
	  --build-arg "GIT_COMMIT=$$(git describe --always --abbrev=40 --dirty --exclude '*' 2>/dev/null || echo unknown)" \
	  $(IMAGE_ARGS) .

test: lint ## lint, types and all tests (PYTEST_ARGS='tests/unit -x')
	@printf '\n== tests (pytest)\n'
	@for each in chromium chromium-browser google-chrome google-chrome-stable; do \
	  command -v "$$each" >/dev/null && exit 0; done; \
	  echo 'Chromium is not here: the tests of the playground and of the report are left out (apt install chromium)'
	@$(BIN)/python -m pytest --durations=10 --numprocesses=$(WORKERS) --dist=loadfile --no-loadscope-reorder $(PYTEST_ARGS)

lint: $(INSTALLED_FOR_TESTS) ## style and types only
	@printf '== style (ruff check)\n'
	@$(BIN)/ruff check
	@printf '\n== format (ruff format --check)\n'
	@$(BIN)/ruff format --check
	@printf '\n== types (mypy --strict)\n'
	@$(BIN)/mypy

format: $(INSTALLED_FOR_TESTS) ## mend what can be mended by itself
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

clean: ## remove .venv, caches and build output; runs/ and mlflow.db stay
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist src/*.egg-info
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
	@echo 'Installing hierrouter and what it needs into .venv; with an empty pip cache some minutes.'
	@$(call pip_install,.[openvino$(comma)kubeflow$(comma)serving])
	@touch $@

$(INSTALLED_FOR_TESTS): pyproject.toml constraints.txt | $(INSTALLED)
	@echo 'Installing what the tests need into .venv.'
	@$(call pip_install,.[dev$(comma)openvino$(comma)kubeflow$(comma)serving$(comma)s3])
	@touch $@

$(BIN)/python:
	@for candidate in $(PYTHON); do \
	  if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    if ! "$$candidate" -c 'import venv, ensurepip' 2>/dev/null; then \
	      echo "make: $$candidate has no venv module; on Debian and Ubuntu: apt install python3-venv" >&2; \
	      exit 1; \
	    fi; \
	    exec "$$candidate" -m venv .venv; \
	  fi; \
	done; \
	echo 'make: no Python 3.11 or newer among: $(PYTHON); install one, or name it: make install PYTHON=/path/to/python3.11' >&2; \
	exit 1

comma := ,

# On Linux without an NVIDIA GPU, torch's own index has a build without gigabytes of CUDA. It is
# asked only if it answers within seconds, so that a closed network loses nothing.
define pip_install
$(PIP) --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null; \
index=''; \
if [ -n '$(TORCH_CPU_INDEX)' ] && [ "$$(uname -s)" = Linux ] && [ ! -e /proc/driver/nvidia ] \
  && ! command -v nvidia-smi >/dev/null && ! $(BIN)/python -c 'import importlib.util as u; u.find_spec("torch") or exit(1)' \
  && $(BIN)/python -c 'import sys, urllib.request as r; r.urlopen(sys.argv[1], timeout=3)' \
    '$(TORCH_CPU_INDEX)/torch/' 2>/dev/null; \
then index='--extra-index-url $(TORCH_CPU_INDEX)'; fi; \
$(PIP) install $$index -c constraints.txt -e '$(1)'
endef
