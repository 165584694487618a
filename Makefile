# Everything runs in a private environment under .venv, made on first use.
# `make` alone lists the targets.

PYTHON ?= python3
PIP_FLAGS ?=
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
TORCH := torch==2.13.0
# The three parts; the package ships them ready-made (omnitune/tiny/parts).
PARTS := configs/thinker_tiny.json configs/audio_enc_tiny.json configs/vision_tiny.json
DEMO_DIR := checkpoints/omni_sft_tiny
# What is trained here from nothing has folders of its own, beside the demo's.
SCRATCH := checkpoints/scratch
SHIPPED := checkpoints/shipped

export PYTHONUNBUFFERED := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo scratch parts bench scores test test-fast lint format hooks audit lock clean distclean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo "  PYTHON=python3.12      the interpreter that makes the environment (3.11 or newer)"
	@echo "  PIP_FLAGS='...'        extra options for pip, such as an index with CPU-only torch"

install: $(STAMP) ## make .venv and install omnitune into it

# torch goes first and alone, so that nothing else can choose its version or build.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "omnitune needs Python 3.11 or newer, but '$(PYTHON)' is" \
	    "$$($(PYTHON) --version 2>/dev/null || echo 'not there')." >&2; \
	  echo "Name another interpreter, for example: make PYTHON=python3.12 $(or $(MAKECMDGOALS),install)" >&2; \
	  exit 1; }
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV) || { \
	  echo "No virtual environment could be made with '$(PYTHON)'." >&2; \
	  echo "On Debian and Ubuntu its venv module is a package of its own:" \
	    "sudo apt-get install python3-venv" >&2; \
	  exit 1; }
	$(PY) -m pip install $(PIP_FLAGS) -c constraints.txt $(TORCH)
	$(PY) -m pip install $(PIP_FLAGS) -c constraints.txt -e ".[corpus,dev]"
	@touch $@

# Each command skips itself when its output is complete, so these may be stopped and repeated.
demo: $(STAMP) ## build the corpus, join ready-made parts, fine-tune, score, answer three prompts
	$(VENV)/bin/omnitune corpus
	$(VENV)/bin/omnitune parts
	@$(MAKE) --no-print-directory joined

scratch: $(STAMP) ## as demo, with the three parts trained from nothing, in checkpoints/scratch
	$(VENV)/bin/omnitune corpus
	$(VENV)/bin/omnitune pretrain --config $(PARTS) --checkpoints $(SCRATCH) --resume
	@$(MAKE) --no-print-directory joined DEMO_DIR=$(SCRATCH)/omni_sft_tiny OPTIONS="\
	  --thinker-ckpt $(SCRATCH)/thinker_tiny/thinker_best.pt \
	  --audio-ckpt $(SCRATCH)/audio_enc_tiny/audio_enc.pt \
	  --vision-ckpt $(SCRATCH)/vision_tiny/vision.pt --output-dir $(SCRATCH)/omni_sft_tiny"

.PHONY: joined
joined:
	$(PY) sft_omni.py --config configs/omni_sft_tiny.json --resume $(OPTIONS)
	$(VENV)/bin/omnitune report --ckpt_dir $(DEMO_DIR)
	$(PY) examples/three_prompts.py --ckpt_dir $(DEMO_DIR)

parts: $(STAMP) ## train the three parts anew and put them into the package
	$(VENV)/bin/omnitune corpus
	$(VENV)/bin/omnitune pretrain --config $(PARTS) --checkpoints $(SHIPPED) --resume
	$(VENV)/bin/omnitune parts --ship --checkpoints $(SHIPPED)

bench: $(STAMP) ## measure stage E against the Trainer of transformers
	$(PY) -m pip install $(PIP_FLAGS) -q -c constraints.txt -e ".[corpus,bench]"
	$(PY) -m benchmarks.sft

scores: $(STAMP) ## train everything with three seeds and write docs/results.md
	$(VENV)/bin/omnitune corpus
	$(PY) -m benchmarks.scores

# A file's tests stay together: they share what they made. More processes would want more memory.
test: $(STAMP) ## run all tests
	$(PY) -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

test-fast: $(STAMP) ## run the tests that are not marked slow
	$(PY) -m pytest -m "not slow"

lint: $(STAMP) ## ruff check, ruff format --check, mypy
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: $(STAMP) ## apply ruff's fixes and formatting
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

hooks: $(STAMP) ## run the lint checks before every commit
	$(PY) -m pre_commit install

# In an environment of its own, so that the auditor's packages are not among ours.
AUDIT := build/audit
audit: ## report known vulnerabilities of the pinned versions; needs a network, never fails
	@mkdir -p $(AUDIT); [ -x $(AUDIT)/bin/pip-audit ] \
	  || { $(PYTHON) -m venv $(AUDIT) && $(AUDIT)/bin/python -m pip install $(PIP_FLAGS) -q pip-audit; } \
	  || echo "audit: pip-audit could not be installed; is there a network?"
	@$(AUDIT)/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip --progress-spinner off \
	  >$(AUDIT)/report.txt 2>&1 || echo "audit: there is something to look at, or no network to ask" \
	  >>$(AUDIT)/report.txt
	@cat $(AUDIT)/report.txt; n=$$(grep -c 'could not be audited' $(AUDIT)/report.txt); [ "$$n" = 0 ] \
	  || echo "audit: nothing is known of $$n packages: the index that was asked does not tell of them"

# For an index with another build of torch: make lock LOCK=FILE LOCK_FLAGS='...'
LOCK := requirements.lock
LOCK_FLAGS ?=
LOCKER := build/lock
lock: ## renew requirements.lock, the pinned versions with the hashes of their files
	@[ -x $(LOCKER)/bin/uv ] \
	  || { $(PYTHON) -m venv $(LOCKER) && $(LOCKER)/bin/python -m pip install $(PIP_FLAGS) -q uv; }
	$(LOCKER)/bin/uv pip compile pyproject.toml --extra corpus --extra data --extra media --extra onnx \
	  --extra serve --constraints constraints.txt --generate-hashes --universal --python-version 3.11 \
	  --no-header --no-annotate --no-emit-index-url --no-emit-find-links $(LOCK_FLAGS) \
	  --upgrade --quiet --output-file $(LOCK)

clean: ## remove caches and build leftovers; data, checkpoints and .venv stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -path ./$(VENV) -prune -o -path ./data -prune -o -path ./checkpoints -prune \
	  -o -type d -name __pycache__ -exec rm -rf {} +

distclean: clean ## clean, and remove .venv; data and checkpoints stay
	rm -rf $(VENV)
