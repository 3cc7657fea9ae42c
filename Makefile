# Everything a person or CI does here is a target; `make help` lists them.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ARGS   ?=
JOBS   ?= 2
export FLWR_TELEMETRY_ENABLED := 0
export RAY_USAGE_STATS_ENABLED := 0

.DEFAULT_GOAL := help
.PHONY: help train test test-slow attack chaos check format bench bench-full bench-flower proto constraints clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-13s %s\n", $$1, $$2}'

train: $(VENV)/.installed ## set up .venv and run the main job; ARGS="seed=3 peers=trio" changes it
	$(BIN)/dogo-fed train $(ARGS)

test: $(VENV)/.installed-dev ## the tests, under 12 minutes on 2 cores, JOBS=2 files at a time; ARGS goes to pytest
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

test-slow: $(VENV)/.installed-dev ## the longer proofs: kill and resume, a real Ray cluster
	$(BIN)/python -m pytest -m slow --timeout=600 $(ARGS)

attack: $(VENV)/.installed-dev ## attacks live runs here: strangers, insiders, 100,000 mutated messages; prints a table
	$(BIN)/python -m tests.attack $(ARGS)

chaos: $(VENV)/.installed-dev ## disturbs real runs here: kills, freezes, full disk, torn files; hours; ARGS="--times 2"
	$(BIN)/python -m tests.chaos $(ARGS)

check: $(VENV)/.installed-dev ## format, lint, types, import contracts, spelling
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

format: $(VENV)/.installed-dev ## format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.installed-dev ## steps, exchange, far link, coordinator, views, memory; half an hour on 2 cores; writes benchmarks/results/
	$(BIN)/python -m benchmarks.several step epoch round_trip exchange_tax far_link coordinator \
		data_path cold_folder loss_memory

bench-full: $(VENV)/.installed-dev ## exchange and far link over 2 to 64 peers, batches to 4096, all distances; hours
	$(BIN)/python -m benchmarks.several "round_trip --full $(ARGS)" "far_link --full"

bench-flower: $(VENV)/.installed-dev ## time per step under Flower, by exchange mode and steps per round; 20 minutes
	$(BIN)/python -m benchmarks.flower_steps $(ARGS)

proto: ## regenerate the code of dogo_fed/wire/dogo.proto (see docs/design/wire.md for the version)
	$(PYTHON) -m venv $(VENV)-proto
	$(VENV)-proto/bin/pip install --quiet 'grpcio-tools==1.70.0' setuptools
	$(VENV)-proto/bin/python -m grpc_tools.protoc -I . --python_out=. --pyi_out=. --grpc_python_out=. \
		dogo_fed/wire/dogo.proto

constraints: $(VENV)/.installed-dev ## write the exact versions of .venv to constraints.txt
	{ sed -n '/^#/p' constraints.txt; $(BIN)/python -m pip freeze --exclude-editable \
		| grep '==' | grep -vE '^(nvidia|cuda)-'; } > constraints.new && mv constraints.new constraints.txt

clean: ## remove environments and caches; runs/ stays
	rm -rf $(VENV) $(VENV)-proto .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("dogo-fed needs Python 3.11 or newer") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@
