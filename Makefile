# On a fresh machine `make demo` and `make test` need Python >= 3.11 (with venv) and nothing else: they set themselves up.
BIN := .venv/bin
DEMO := demo
STORE ?= $(if $(wildcard $(DEMO)/store),$(DEMO)/store,outputs/store)
JUNIT ?= build/junit.xml

# No program that is started from here reports home.
export DO_NOT_TRACK := 1
export GX_ANALYTICS_ENABLED := false
export MLFLOW_DISABLE_TELEMETRY := true
export PREFECT_SERVER_ANALYTICS_ENABLED := false

.DEFAULT_GOAL := help
.PHONY: help setup demo test ui deploy check bench clean

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## /make \1|/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-14s%s\n", $$1, $$2}'

setup: .venv/.ok  ## creates .venv with the locked versions

.venv/.ok: pyproject.toml requirements.lock infra/setup.sh
	@bash infra/setup.sh

demo: .venv/.ok $(DEMO)/data  ## simulates a small data set, runs the whole pipeline on it and prints the score
	$(BIN)/spectramind run data.root=$(DEMO)/data data.truth=$(DEMO)/data_truth/test.csv \
		outputs.dir=$(DEMO)/run outputs.store=$(DEMO)/store
	@echo
	@echo "submission            $(DEMO)/run/submission/submission.csv"
	@echo "data-quality report   $(DEMO)/run/calibration/data_quality.html"
	@echo "calibrated cubes      $(DEMO)/store/cubes/"
	@echo "this run              $(DEMO)/run/"
	@echo "the UIs               make ui"

# `simulate` renames the finished data set into place, so that a directory that is there is complete.
$(DEMO)/data: | .venv/.ok
	$(BIN)/spectramind simulate $@ simulation=demo

test: .venv/.ok  ## runs the tests
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --junitxml $(JUNIT)

ui: .venv/.ok  ## opens the Prefect and MLflow UIs on localhost, with a worker, for the runs made so far (STORE=directory)
	$(BIN)/spectramind ui outputs.store=$(STORE)

deploy: .venv/.ok  ## registers deployments, pools and automations with the server of PREFECT_API_URL (NOTIFY=block)
	$(BIN)/spectramind deploy $(if $(NOTIFY),--notify $(NOTIFY))

check: .venv/.ok  ## lint, format, types and import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/.ok  ## prints measured ratios as a table
	OMP_NUM_THREADS=1 POLARS_MAX_THREADS=1 $(BIN)/python benchmarks/cost.py
	$(BIN)/python benchmarks/scaling.py
	$(BIN)/python benchmarks/sequence_layers.py

clean:  ## removes build products and caches; keeps .venv, data and outputs
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
