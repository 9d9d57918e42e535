# The only commands: make demo | serve | gateway | test-all | test | test-fast | check | bench | soak | fuzz | mutate | pages | images | e2e | bundle | lock | clean
#
#   make demo  [SERIES=folder or zip of DICOM files] [REFERENCE=rtstruct.dcm] [OUT=folder]
#   make images [BUILD_OPTIONS=options of docker build] [PROFILES=gpu]
#   make bundle [PROFILES="monitoring gpu"]
#   make soak   (200 jobs over 20 minutes while components are killed; writes its tables into docs/reliability.md)
#   make fuzz  [FUZZ_MINUTES=60]   (every way in is fuzzed, on one core; keeps what it finds in tests/fuzz/corpus and docs/reliability.md)
#   make mutate [MODULES=oarlock/ct/slice_spacing.py] [SAMPLE=40] [SEED=0]   (one change at a time where a wrong sign hurts a patient; minutes a module)
#   make bench  SERIES=folder of a real series [CONTOURS=folder of expert contours]

PYTHON  ?= python3
OUT     ?= out
VENV    := .venv
BIN     := $(VENV)/bin
export UV_PYTHON_DOWNLOADS := never
# A process that finds no bytecode compiles everything it imports, each time: 5 s instead of 2 s to its first line.
unexport PYTHONDONTWRITEBYTECODE
UV      := VIRTUAL_ENV=$(VENV) $(BIN)/uv pip

.PHONY: demo serve gateway test-all test test-fast check format bench soak fuzz mutate pages images e2e bundle lock clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^#   *//p; s/^# The/The/p' Makefile

# ── the environment ──────────────────────────────────────────────────────────────────────────────────────────────────

$(BIN)/uv: requirements/uv.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Oarlock needs Python 3.11 or newer; this is $$($(PYTHON) --version). Name another one: make PYTHON=python3.11 …"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null \
		|| { echo "Python's venv module is missing. Install it: apt-get install python3-venv"; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.lock
	@touch $@

define install
	@echo "Installing requirements/$(1) …"
	@$(UV) install --quiet --compile-bytecode --require-hashes -r requirements/$(1)
	@$(UV) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@
endef

$(VENV)/run: $(BIN)/uv requirements/run.lock pyproject.toml
	$(call install,run.lock)

$(VENV)/dev: $(BIN)/uv requirements/dev.lock requirements/torch.txt pyproject.toml
	$(call install,dev.lock)
	@echo "Installing requirements/torch.txt …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/torch.txt
	@touch $(VENV)/run $@

# ── running ──────────────────────────────────────────────────────────────────────────────────────────────────────────

demo: $(VENV)/run
	@$(BIN)/python -m service.demo --out "$(OUT)" $(if $(SERIES),--series "$(SERIES)") $(if $(REFERENCE),--reference "$(REFERENCE)")

serve: $(VENV)/run
	@$(BIN)/python -m service

gateway: $(VENV)/run
	@$(BIN)/python -m gateway

# ── keeping it right ─────────────────────────────────────────────────────────────────────────────────────────────────

# The files of tests are shared out, the longest first (tests/conftest.py), to one process more than there are cores.
TESTED := $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# All but `make e2e`; that without what is long; that without what is slow.
test-all: $(VENV)/dev
	@$(TESTED) -m "not delivered"

test: $(VENV)/dev
	@$(TESTED) -m "not long and not delivered"

test-fast: $(VENV)/dev
	@$(TESTED) -m "not long and not slow and not delivered"

check: $(VENV)/dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache --no-logo
	@$(BIN)/deptry . --no-ansi 2>&1
	@$(BIN)/python -m tools.dead_names
	@$(BIN)/python -m tools.docstrings
	@$(BIN)/python -m tools.licences

# The parts of the handbook that are made from the code.
pages: $(VENV)/dev
	@$(BIN)/python -m tools.licences --write
	@$(BIN)/python -m tools.map
	@$(BIN)/python -m tools.associations
	@$(BIN)/python -m tools.quality
	@$(BIN)/python -m tools.conformance

format: $(VENV)/dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

soak: $(VENV)/dev
	@$(BIN)/python -m tests.system.soak

FUZZ_MINUTES ?= 60

fuzz: $(VENV)/dev
	@$(BIN)/python -m tests.fuzz --minutes $(FUZZ_MINUTES)

mutate: $(VENV)/dev
	@nice -n 10 $(BIN)/python -m tools.mutate $(MODULES) $(if $(SAMPLE),--sample $(SAMPLE)) $(if $(SEED),--seed $(SEED))

bench: $(VENV)/dev
	@test -n "$(SERIES)" || { echo "Which series? make bench SERIES=folder of a CT series [CONTOURS=folder of expert contours]"; exit 1; }
	@$(BIN)/python -m benchmarks "$(SERIES)" $(if $(CONTOURS),--contours "$(CONTOURS)")

# ── containers ───────────────────────────────────────────────────────────────────────────────────────────────────────

VERSION       := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' oarlock/__init__.py)
REVISION      := $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
BUILD_OPTIONS ?=

PROFILES      ?=
PINNED        := $(shell sed -n 's/^PYTHON_IMAGE=//p' .env)
BUILD         := docker build $(BUILD_OPTIONS) --build-arg REVISION=$(REVISION) $(if $(PINNED),--build-arg PYTHON_IMAGE=$(PINNED))

images:
	@$(BUILD) -f docker/service.Dockerfile -t oarlock-service:$(VERSION) .
	@$(BUILD) -f docker/worker.Dockerfile -t oarlock-worker:$(VERSION) .
	@$(BUILD) -f docker/gateway.Dockerfile -t oarlock-gateway:$(VERSION) .
	$(if $(filter gpu,$(PROFILES)),@$(BUILD) --build-arg LOCK=worker-cuda.lock -f docker/worker.Dockerfile -t oarlock-worker-cuda:$(VERSION) .)

e2e: $(VENV)/dev
	@$(BIN)/python -m pytest -m delivered -v

bundle: $(VENV)/dev
	@if docker info >/dev/null 2>&1; then $(MAKE) --no-print-directory images; fi
	@$(BIN)/python -m tools.bundle $(addprefix --profile ,$(PROFILES))

# ── what is installed ────────────────────────────────────────────────────────────────────────────────────────────────

# Pinned and hashed, with no index address in them (docs/adr/0006-hashed-locks.md).
COMPILE := $(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--custom-compile-command "make lock" --quiet
RUN     := --extra service --extra worker --extra gateway --extra report --extra embedded --extra postgres --extra build
DEV     := $(RUN) --extra model-export --extra import-check --extra test --extra check --extra bundle

lock: $(BIN)/uv
	@$(COMPILE) $(DEV) -o requirements/dev.lock
	@$(COMPILE) $(RUN) -c requirements/dev.lock -o requirements/run.lock
	@$(COMPILE) --extra service --extra report --extra postgres -c requirements/dev.lock -o requirements/service.lock
	@$(COMPILE) --extra gateway -c requirements/dev.lock -o requirements/gateway.lock
	@$(COMPILE) --extra worker --extra report --extra postgres -c requirements/dev.lock -o requirements/worker.lock
	@$(COMPILE) --extra worker --extra report --extra cuda --extra postgres -c requirements/dev.lock -o requirements/worker-cuda.lock

clean:
	rm -rf $(VENV) out build var .pytest_cache .mypy_cache .ruff_cache .hypothesis
