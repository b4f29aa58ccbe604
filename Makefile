# Every target sets up what it needs, on any machine with Python >= 3.10 and pip, and is quick the
# second time: packages are installed again only when TORCH, pyproject.toml or the version changes.
#
#   make demo          distil a GAT on few labelled protein graphs and many without; writes runs/
#   make test          the test suite, without a compiler and without torch-scatter / torch-sparse
#   make test-sparse   the same suite with torch-scatter and torch-sparse (built, or from
#                      PIP_FIND_LINKS) in an environment of its own
#   make test-all      the suite with every other optional package (the extra
#                      "all") and PyTorch Geometric Temporal, in an environment of its own
#   make test-full     the long tests, with every other optional package
#   make test-oldest   the suite on the oldest versions declared (OLDEST_TORCH, OLDEST_PYG), and
#   make test-newest   on the newest (NEWEST_TORCH), each in an environment of its own; not in CI
#   make test-gpu      the tests that run on a GPU, on one
#   make lint          ruff (rules and format) and mypy
#   make docs          the HTML documentation, warnings as errors, in docs/_build/html
#   make look          the built pages in headless Chromium, at two widths, light and dark
#   make package       the wheel and the source archive in dist/, checked, and the wheel installed
#                      alone in an environment of its own
#   make bench         the benchmarks of benchmarks/
#   make bench-gpu     those that run on a GPU, on one: benchmarks/results/*_cuda.*
#   make fuzz          damaged files for every reader and odd values for every function, by coverage
#                      (atheris) for FUZZ_SECONDS and at random FUZZ_INPUTS times
#   make clean         remove the environments, caches and built pages (runs/ stays)
#
# Variables: PYTHON (interpreter of new environments), TORCH (torch version), VENV, VENV_SPARSE,
# VENV_ALL, VENV_WHEEL (folders of the environments), WORKERS (processes that share the tests),
# PYTEST_ARGS, DEMO_ARGS, BENCH (benchmarks to run), FUZZ (modules of tests/fuzz to run).
# pip's own variables (PIP_FIND_LINKS, PIP_INDEX_URL, ...) are honoured.

PYTHON ?= python3
TORCH ?= 2.13.0
VENV ?= .venv
VENV_SPARSE ?= .venv-sparse
VENV_ALL ?= .venv-all
VENV_WHEEL ?= .venv-wheel
VENV_OLDEST ?= .venv-oldest
VENV_NEWEST ?= .venv-newest
OLDEST_TORCH ?= 2.6.0
OLDEST_PYG ?= 2.7.0
NEWEST_TORCH ?= 2.14.1
WORKERS ?= 2
PYTEST_ARGS ?=
DEMO_ARGS ?=
BENCH ?= $(foreach name,primitives gat edge_conv correlation st_conv pruning pruner distiller teacher_cache \
	large_graph compiled precision zoo/zoo zoo/zoo_taps,benchmarks/$(name).py)
BENCH_GPU ?= $(foreach name,primitives gat edge_conv correlation,benchmarks/$(name).py)
# A torch with CUDA is the machine's own, or that of an index (PIP_INDEX_URL).
HAS_GPU = import sys, torch; sys.exit(not torch.cuda.is_available() and \
	"a GPU and a torch with CUDA are needed: set PYTHON, or PIP_EXTRA_INDEX_URL and TORCH")
FUZZ ?= $(basename $(notdir $(wildcard tests/fuzz/readers.py tests/fuzz/series.py tests/fuzz/functions.py)))
FUZZ_SECONDS ?= 600
FUZZ_INPUTS ?= 100000

ENVS = $(VENV) $(VENV_SPARSE) $(VENV_ALL) $(VENV_WHEEL)
# A test that hangs fails after ten minutes, and says where it was.
PYTEST = -m pytest -q --numprocesses $(WORKERS) --timeout 600
# Beside its requirements, which are older than what it runs with.
TEMPORAL = torch-geometric-temporal==0.56.2
# Quiet but for errors.
PIP = -m pip --disable-pip-version-check install -qq
# The version asked for, repeated, keeps pip from ever replacing it with another one.
KEEP = torch==$(TORCH)
# From the metadata: importing them would take seconds.
VERSIONS = import sys; from importlib.metadata import version as v; \
	print(f"Python {sys.version.split()[0]},", *(f"{n} {v(n)}" for n in sys.argv[1:]))

# A reader's own functions and PyG have no types; all else is held to the letter.
PAGES_MYPY = --python-executable "$(abspath $(VENV_WHEEL))/bin/python" --strict \
	--allow-untyped-defs --allow-untyped-calls --ignore-missing-imports --disable-error-code override

.DELETE_ON_ERROR:
.SUFFIXES:
.NOTPARALLEL:
PHONY_TESTS = test test-sparse test-all test-full
.PHONY: demo $(PHONY_TESTS) test-oldest test-newest test-gpu lint docs look package bench bench-gpu fuzz clean help

help:
	@sed -n 's/^#   //p' Makefile

demo: $(VENV)/.package
	@echo "==> Running examples/proteins.py: few labelled protein graphs, many without labels"
	@$(VENV)/bin/python examples/proteins.py $(DEMO_ARGS)

test: $(VENV)/.package
	@echo "==> Testing without torch-scatter and torch-sparse in $(VENV)"
	@$(VENV)/bin/python -c '$(VERSIONS)' torch torch-geometric
	@$(VENV)/bin/python $(PYTEST) $(PYTEST_ARGS)

test-sparse: $(VENV_SPARSE)/.sparse
	@echo "==> Testing with torch-scatter and torch-sparse in $(VENV_SPARSE)"
	@$(VENV_SPARSE)/bin/python -c '$(VERSIONS)' torch torch-geometric torch-scatter torch-sparse
	@$(VENV_SPARSE)/bin/python -c 'import torch_scatter, torch_sparse'  # or PyG ignores them
	@$(VENV_SPARSE)/bin/python $(PYTEST) $(PYTEST_ARGS)

test-all: $(VENV_ALL)/.all
	@echo "==> Testing with all optional packages in $(VENV_ALL)"
	@$(VENV_ALL)/bin/python -c '$(VERSIONS)' torch torch-geometric lightning onnxruntime h5py
	@$(VENV_ALL)/bin/python $(PYTEST) $(PYTEST_ARGS)

test-full: $(VENV_ALL)/.all
	@echo "==> Running the long tests in $(VENV_ALL)"
	@FULL_TEST=1 $(VENV_ALL)/bin/python $(PYTEST) --timeout 1800 -m full $(PYTEST_ARGS)

test-oldest:
	@$(MAKE) --no-print-directory test VENV=$(VENV_OLDEST) TORCH=$(OLDEST_TORCH) PYG=$(OLDEST_PYG)

test-newest:
	@$(MAKE) --no-print-directory test VENV=$(VENV_NEWEST) TORCH=$(NEWEST_TORCH)

test-gpu: $(VENV)/.package
	@$(VENV)/bin/python -c '$(HAS_GPU)'
	@$(VENV)/bin/python -m pytest -q --timeout 600 -k cuda $(PYTEST_ARGS)

lint: $(VENV)/.dev
	@echo "==> Checking rules (ruff check), format (ruff format) and types (mypy)"
	@$(VENV)/bin/python -m ruff check .
	@$(VENV)/bin/python -m ruff format --check .
	@$(VENV)/bin/python -m mypy

docs: $(VENV)/.docs
	@echo "==> Building the documentation"
	@$(VENV)/bin/python -m sphinx -W --keep-going -q docs docs/_build/html
	@echo "==> Built docs/_build/html/index.html"

look: docs
	@$(VENV)/bin/python $(PIP) "selenium>=4.20"
	@$(VENV)/bin/python docs/browser.py

package: $(VENV)/.build $(VENV)/.dev $(VENV_WHEEL)/.torch-$(TORCH)
	@echo "==> Building dist/"
	@rm -rf dist build
	@$(VENV)/bin/python -m build --no-isolation >/dev/null
	@$(VENV)/bin/python -m twine check --strict dist/*
	@echo "==> Installing the wheel alone in $(VENV_WHEEL)"
	@$(VENV_WHEEL)/bin/python $(PIP) --force-reinstall --no-deps dist/*.whl
	@$(VENV_WHEEL)/bin/python $(PIP) dist/*.whl "$(KEEP)"
	@cd dist && "$(abspath $(VENV_WHEEL))/bin/python" -m pyg_stkd
	@echo "==> Checking the types of the pages' code against the wheel"
	@$(VENV)/bin/python docs/scripts.py build/pages
	@cd build/pages && "$(abspath $(VENV))/bin/python" -m mypy $(PAGES_MYPY) *.py

bench: $(VENV)/.package
	@for file in $(BENCH); do \
	  echo "==> Running $$file"; $(VENV)/bin/python "$$file" || exit 1; \
	done

bench-gpu: $(VENV)/.package
	@$(VENV)/bin/python -c '$(HAS_GPU)'
	@for file in $(BENCH_GPU); do \
	  echo "==> Running $$file"; $(VENV)/bin/python "$$file" --device cuda || exit 1; \
	done

fuzz: $(VENV)/.fuzz
	@echo "==> Fuzzing $(FUZZ), by coverage"
	@$(VENV)/bin/python tests/fuzz/drive.py --guided --seconds $(FUZZ_SECONDS) $(FUZZ)
	@echo "==> Fuzzing $(FUZZ), at random"
	@$(VENV)/bin/python tests/fuzz/drive.py --inputs $(FUZZ_INPUTS) $(FUZZ)

clean:
	rm -rf $(ENVS) $(VENV_OLDEST) $(VENV_NEWEST) build dist *.egg-info docs/_build docs/_results docs/api
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage htmlcov
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps. Each environment is made by: python -> torch -> this package -> extras.
# (Static pattern rules: with plain ones a missing stamp would be an intermediate file, ignored.)
# Where Python comes without ensurepip (Debian), the pip of the machine fills the environment.
$(ENVS:%=%/.python): %/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and \
	  f"Python >= 3.10 is needed (got {sys.version.split()[0]}): set PYTHON=")'
	@echo "==> Making the virtual environment $* ($$($(PYTHON) --version))"
	@$(PYTHON) -m venv --clear $* >/dev/null 2>&1 \
	  || { $(PYTHON) -m venv --clear --without-pip $* \
	       && $(PYTHON) -m pip --python $*/bin/python install -qq pip; }
	@touch $@

# One stamp a version: another TORCH= installs that one and outdates everything after it.
$(ENVS:%=%/.torch-$(TORCH)): %/.torch-$(TORCH): %/.python
	@echo "==> Installing torch $(TORCH) in $* (a large download, the first time)"
	@rm -f $*/.torch-*
	@$*/bin/python -m pip uninstall -qq --yes torch-scatter torch-sparse  # of another torch
	@$*/bin/python $(PIP) "$(KEEP)" numpy
	@touch $@

$(ENVS:%=%/.package): %/.package: %/.torch-$(TORCH) pyproject.toml pyg_stkd/__init__.py
	@echo "==> Installing pyg_stkd (editable) with what tests and examples need in $*"
	@$*/bin/python $(PIP) --editable ".[test,examples]" "$(KEEP)" $(addprefix torch-geometric==,$(PYG))
	@touch $@

$(VENV_SPARSE)/.sparse: %/.sparse: %/.package
	@echo "==> Installing torch-scatter and torch-sparse in $* (minutes, if they must be built)"
	@$*/bin/python $(PIP) "setuptools>=77" wheel
	@# No cache: it would offer extensions that were built for another torch.
	@$*/bin/python $(PIP) --no-cache-dir --no-build-isolation --editable ".[sparse]" "$(KEEP)"
	@touch $@

$(VENV_ALL)/.all: %/.all: %/.package
	@echo "==> Installing all optional packages in $*"
	@$*/bin/python $(PIP) --editable ".[test,all]" "$(KEEP)"
	@$*/bin/python $(PIP) --no-deps "$(TEMPORAL)"
	@touch $@

$(VENV)/.dev: %/.dev: %/.package
	@echo "==> Installing ruff and mypy in $*"
	@$*/bin/python $(PIP) --editable ".[dev]" "$(KEEP)"
	@touch $@

$(VENV)/.fuzz: %/.fuzz: %/.package
	@echo "==> Installing atheris in $*"
	@$*/bin/python $(PIP) atheris
	@touch $@

$(VENV)/.build: %/.build: %/.package
	@echo "==> Installing build and twine in $*"
	@$*/bin/python $(PIP) "setuptools>=77" build twine
	@touch $@

$(VENV)/.docs: %/.docs: %/.package
	@echo "==> Installing Sphinx in $*"
	@$*/bin/python $(PIP) --editable ".[docs]" "$(KEEP)"
	@touch $@
