# The verbs of this project; CI calls the same ones. `make up` needs Python 3.11+ and nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
# uv from the PATH, else a copy in a folder of its own: among the packages, `uv pip sync` would remove it.
UV = $$(command -v uv || echo $(VENV)/.uv/bin/uv)
ARGS ?=
PACKAGES ?=
USER_PACKAGES := requirements-user.txt
MINUTES ?= 10
SEED ?= 1

.PHONY: up install wheel add down test check bench chaos dashboards help
.DEFAULT_GOAL := help

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST)

up: $(STAMPS)/run ## install what is missing, say when forecasts are served, start the rest, train the first models
	@$(BIN)/btc up $(ARGS)

install: $(STAMPS)/run ## install what running needs, start nothing

wheel: $(STAMPS)/run ## build the wheel of this project into dist
	@rm -rf build/lib build/bdist.* # files of an earlier build would get into the wheel
	@$(UV) build --quiet --wheel --python $(BIN)/python --out-dir dist .

# A package that cannot be installed does not enter the file. The constraints keep the versions of the lock.
add: $(STAMPS)/run ## install packages of your own, also after upgrades: make add PACKAGES="lightgbm arch"
	@[ -n "$(PACKAGES)" ] || { echo 'make: say which packages: make add PACKAGES="lightgbm arch"' >&2; exit 1; }
	@{ cat $(USER_PACKAGES) 2>/dev/null; echo "$(PACKAGES)" | tr ' ' '\n'; } | sort -u > $(STAMPS)/user-packages
	@$(call install_packages_of,$(STAMPS)/user-packages)
	@mv $(STAMPS)/user-packages $(USER_PACKAGES)

down: ## stop everything; the data stays
	@if [ -x $(BIN)/btc ]; then $(BIN)/btc down $(ARGS); fi

# Three processes, each with a part of the tests and servers of its own (tests/conftest.py). They start hundreds of programs, each of
# which would compile our modules where the variable forbids to store bytecode. The numerical functions are compiled before: each of
# the three would compile them otherwise.
test: export PYTHONDONTWRITEBYTECODE=
test: $(STAMPS)/dev ## all tests
	$(BIN)/python -m btc_core.models.precompile
	$(BIN)/python -m btc_core.days.precompile
	$(BIN)/python -m stack.java_caches
	$(BIN)/python -m pytest -q -n 3 --dist loadscope $(ARGS)

check: $(STAMPS)/dev ## style, types, import contracts, Dagster definitions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/dg check defs

bench: $(STAMPS)/dev .venv-peers/.stamp ## measure; prints a table, writes JSON
	$(BIN)/python -m benchmarks $(ARGS)

chaos: $(STAMPS)/dev ## kill and mislead a running system for MINUTES=10 from SEED=1; fails if anything is lost
	$(BIN)/python -m tests.faults --minutes $(MINUTES) --seed $(SEED) $(ARGS)

dashboards: $(STAMPS)/dev ## write Grafana's dashboards and the alerts from deploy/grafana
	$(BIN)/python -m deploy.grafana.generate

.PHONY: pretrained
pretrained: $(STAMPS)/dev ## fit the volatility model that ships with the package: BARS="btcusdt.parquet alts.parquet=FIL/USDT"
	$(BIN)/btc pretrain $(foreach file,$(BARS),--bars $(file)) $(ARGS)

.PHONY: docs
docs: $(STAMPS)/docs ## build the documentation site into build/site; fails on a link that leads nowhere
	$(BIN)/python -m docs.generate
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

.PHONY: pictures
pictures: $(STAMPS)/dev ## take the pictures of the documentation again, from the running stack, with Chromium
	$(BIN)/btc run $(ARGS) python -m docs.generate.pictures

.PHONY: notebooks
notebooks: $(STAMPS)/dev ## run the notebooks of the documentation against the running stack, and store their outputs
	$(BIN)/python -m docs.generate.notebooks $(ARGS)

# The lock for development contains the lock for running at the same versions, so an environment with the first is never
# reduced to the second. Packages are compiled when they are installed: a process that may not write to them would compile
# its imports at every start.
$(STAMPS)/dev: requirements-dev.lock pyproject.toml | $(STAMPS)
	@echo "installing what development needs (requirements-dev.lock)"
	@$(UV) pip sync --compile-bytecode --python $(BIN)/python --require-hashes requirements-dev.lock
	@$(call install_ourselves)
	@touch $@ $(STAMPS)/run

$(STAMPS)/run: requirements.lock pyproject.toml | $(STAMPS)
	@if [ -e $(STAMPS)/dev ]; then \
		$(MAKE) --no-print-directory $(STAMPS)/dev; \
	else \
		echo "installing what running needs (requirements.lock)" && \
		$(UV) pip sync --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock && \
		$(call install_ourselves); \
	fi
	@touch $@

# The environment for running and what the documentation needs beside it, or the one for development, which contains both.
$(STAMPS)/docs: requirements-docs.lock $(STAMPS)/run
	@if [ ! -e $(STAMPS)/dev ]; then \
		echo "installing what the documentation needs (requirements-docs.lock)" && \
		$(UV) pip install --compile-bytecode --python $(BIN)/python --require-hashes --requirements requirements-docs.lock; \
	fi
	@touch $@

.venv-peers/.stamp: requirements-peers.lock | $(STAMPS)
	@echo "installing what the benchmarks compare with (requirements-peers.lock)"
	@$(UV) venv --quiet --allow-existing --python $(BIN)/python .venv-peers
	@$(UV) pip sync --quiet --python .venv-peers/bin/python --require-hashes requirements-peers.lock
	@touch $@

# This project, for which the lock has the build tool, and then the packages of the user.
define install_ourselves
$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable . && \
	{ [ ! -e $(USER_PACKAGES) ] || $(call install_packages_of,$(USER_PACKAGES)); }
endef

define install_packages_of
$(UV) pip install --quiet --compile-bytecode --python $(BIN)/python --constraints requirements.lock --requirement $(1)
endef

$(STAMPS): | $(BIN)/python
	@command -v uv >/dev/null || [ -x $(VENV)/.uv/bin/uv ] || \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --target $(VENV)/.uv uv
	@mkdir -p $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "make: $$($(PYTHON) --version 2>&1 || echo no $(PYTHON)) is too old or missing; 3.11 or newer is needed: make up PYTHON=python3.12" >&2; exit 1; }
	@if command -v uv >/dev/null; then \
		uv venv --quiet --python "$$(command -v $(PYTHON))" $(VENV); \
	else \
		$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
			{ echo "make: $(PYTHON) has no venv module; on Debian: apt-get install python3-venv (or install uv)" >&2; exit 1; }; \
		echo "making $(VENV)" && $(PYTHON) -m venv $(VENV); \
	fi

.PHONY: sbom audit

sbom: $(STAMPS)/dev ## the bill of materials of what runs, as CycloneDX: build/sbom.json
	@mkdir -p build
	$(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible --output-file build/sbom.json requirements.lock

audit: $(STAMPS)/dev ## look for known vulnerabilities in what is locked; needs the network
	$(BIN)/pip-audit --strict --disable-pip --require-hashes --requirement requirements.lock $(ARGS)
