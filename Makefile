# make quickstart    set up .venv and tune on real data: VPT and SPT side by side
# make test          set up .venv and run the linters and the test suite
# make test-slow     the long tests: kills, faults, fuzzing, several processes
# make docs          build the site into docs/_build/html (Python 3.11.5 or later; its tutorials run: 12 minutes on two cores)
# make test-docs     the same, and look at it, with Chromium if there is one
# make gpu           measure a GPU in ten minutes (without .venv, where the packages are at hand: make gpu BIN=/path/to/bin)
# make test-forks    part of the suite on the maintained forks of the OpenMMLab packages (FORKS_TESTS=tests: all of it)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
FORKS := $(VENV)/forks
DOCS := $(VENV)/docs
ENCODER := checkpoints/dinov2_vits14_focus.safetensors
GPU_FLAGS ?=
FORKS_TESTS ?= tests/engine tests/models tests/reliability tests/test_host.py tests/test_checkpoint_files.py tests/test_foreign_files.py
PIP_VERSION := 26.3

# pip reads these: the constraints hold for builds (mmcv-lite comes as source) as for what is installed
export PIP_CONSTRAINT := $(CURDIR)/requirements/constraints.txt
export PIP_BUILD_CONSTRAINT := $(PIP_CONSTRAINT)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# the tests start Python a hundred times: without cached bytecode each start compiles torch anew, for some 8 s
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup quickstart test test-slow test-forks test-docs docs gpu lint clean

setup: $(READY)

$(READY): setup.py mmspt/version.py requirements/runtime.txt requirements/mminstall.txt requirements/optional.txt requirements/search.txt requirements/postgres.txt requirements/onnx.txt requirements/hub.txt requirements/tests.txt requirements/constraints.txt
	@$(PYTHON) -c "import sys; exec(open('mmspt/version.py').read()); this = sys.version_info[:2]; sys.exit(0 if OLDEST_PYTHON <= this <= NEWEST_PYTHON else 'mmspt needs Python %d.%d to %d.%d, $(PYTHON) is %d.%d: make PYTHON=python%d.%d ...' % (OLDEST_PYTHON + NEWEST_PYTHON + this + NEWEST_PYTHON))"
	@echo 'Setting up $(VENV) (about 5 GB, mostly PyTorch; one to two minutes) ...'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet pip==$(PIP_VERSION)
	$(BIN)/python -m pip install --no-compile -e '.[lite,dev]'
	@touch $(READY)

quickstart: $(READY)
	$(BIN)/python tools/quickstart.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/mypy

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m 'not slow and not docs' --durations 20

test-slow: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m slow --durations 20

gpu: $(if $(filter $(VENV)/bin,$(BIN)),$(READY))
	PYTHONPATH=$(CURDIR)$${PYTHONPATH:+:$$PYTHONPATH} $(BIN)/python benchmarks/gpu.py $(GPU_FLAGS)

$(FORKS): $(READY) requirements/forks.txt
	rm -rf $@ $@.tmp
	$(BIN)/python -m pip install --quiet --no-deps --no-compile --target $@.tmp -r requirements/forks.txt
	mv $@.tmp $@

test-forks: $(FORKS)
	OMP_NUM_THREADS=1 PYTHONPATH=$(CURDIR)/$(FORKS) $(BIN)/python -m pytest -n 2 -m 'not slow and not docs' $(FORKS_TESTS)

$(DOCS): $(READY) requirements/docs.txt
	@$(BIN)/python -c "import sys; sys.exit(None if sys.version_info >= (3, 11, 5) else 'The documentation needs Python 3.11.5 or later: make PYTHON=python3.11 docs, in a checkout without .venv')"
	rm -rf $@ $@.tmp
	$(BIN)/python -m pip install --quiet --no-deps --no-compile --target $@.tmp -r requirements/docs.txt
	mv $@.tmp $@

$(ENCODER): | $(READY)
	mkdir -p $(@D)
	$(BIN)/python -c "from mmspt.quickstart.encoder import fetch_encoder; fetch_encoder('$@')"

docs: $(DOCS) $(ENCODER)
	PATH=$(CURDIR)/$(BIN):$$PATH PYTHONPATH=$(CURDIR)/$(DOCS) IPYTHONDIR=$(CURDIR)/docs/_ext/ipython \
		JUPYTER_PATH= JUPYTER_DATA_DIR=$(CURDIR)/$(DOCS)/share/jupyter \
		$(BIN)/python -m sphinx -b html -W --keep-going $(DOCS_FLAGS) docs docs/_build/html

test-docs: DOCS_FLAGS = -E -D nb_execution_mode=force
test-docs: docs
	$(BIN)/python -m pytest -m docs tests/test_site.py

clean:
	rm -rf $(VENV) work_dirs build *.egg-info mmspt/.mim docs/_build docs/reference
