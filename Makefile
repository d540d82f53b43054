# Everything a newcomer or CI needs; only Python (>= 3.11) and make must be there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
READY := $(VENV)/.ready
KERNELS := $(VENV)/.kernels

.PHONY: help demo test e2e soak release-test lint format docs bench clean

help:
	@echo "make demo    install into $(VENV) and replay a shipped trace"
	@echo "make test    run the tests"
	@echo "make e2e     emulator, a real Prometheus and the planner, end to end (needs prometheus; 6 minutes)"
	@echo "make soak    30 simulated hours of faults and kills, on a quiet machine, twice (35 minutes)"
	@echo "make release-test  build wheel and sdist, install in an empty environment, try every command"
	@echo "make lint    ruff, mypy, import-linter"
	@echo "make format  let ruff fix and format"
	@echo "make docs    write the reference and what the documented commands print"
	@echo "make bench   print the simulator's speed"
	@echo "make clean   remove $(VENV) and caches"

# The environment is made again whenever the dependencies change.
$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $(INSTALLED)

$(READY): $(INSTALLED)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $(READY)

demo: $(INSTALLED)
	$(BIN)/sagescale simulate ramp --rate-scale 12 --policy slo

# A third of the time tests wait for servers, browsers and clocks: three workers keep two cores busy. Hundreds of
# processes are started: each would compile all Python anew where it may not be kept.
test: export PYTHONDONTWRITEBYTECODE =
test: $(READY) $(KERNELS)
	$(BIN)/python -m pytest -n 3 --dist worksteal

# Compiled once, not by each worker.
$(KERNELS): $(READY) $(wildcard sagescale/sim/kernel/*.py) sagescale/sim/state.py tests/sim/compile_kernels.py
	$(BIN)/python tests/sim/compile_kernels.py
	@touch $(KERNELS)

# They wait for clocks and servers: all files at once, each a world of its own.
e2e: $(READY)
	$(BIN)/python -m pytest -m e2e -n 3 --dist loadfile --no-loadscope-reorder tests/live

SAGESCALE_SOAK ?= hours=30 kills=30 speed=120
soak: $(READY)
	SAGESCALE_SOAK="$(SAGESCALE_SOAK)" $(BIN)/python -m pytest -m soak tests/live/test_live_soak_e2e.py

release-test: $(READY)
	$(BIN)/python -m pytest -m release -n 2 --dist loadfile tests/release

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY)
	$(BIN)/python docs/refresh.py

bench: $(READY)
	$(BIN)/python benchmarks/throughput.py

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
