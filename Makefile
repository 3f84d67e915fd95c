# Each target works on a fresh machine that has only Python and make.
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=

.PHONY: study test slow lint bench install clean
study: install  ## train a cohort on the bundled digits, evaluate it, write runs/digits/report.html
	$(BIN)/captum-alignment study --out runs/digits $(ARGS)

test: install
	$(BIN)/python -m pytest -n auto --dist loadfile $(ARGS)

slow: install
	$(BIN)/python -m pytest -m slow --timeout 1800 $(ARGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

bench: install
	@for script in benchmarks/bench_*.py; do $(BIN)/python -m benchmarks.$$(basename $$script .py) || exit 1; done

install: .venv/.installed

.venv/.installed: pyproject.toml
	@echo "Installing into .venv: about 2 minutes and 6 GB on Linux (PyTorch brings its CUDA packages)."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,lint]'
	@touch $@

clean:
	rm -rf .venv runs
