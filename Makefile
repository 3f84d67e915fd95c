# Each target works on a fresh machine that has only Python and make.
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=

.PHONY: study test slow lint docs dist check lowest ecosystem links bench bench-gpu install clean
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

docs: install .venv/.docs  ## build the site into docs/_build/html; every cell runs, every warning is an error
	$(BIN)/python -m sphinx -b html -W --keep-going docs docs/_build/html $(ARGS)

dist: install  ## build the wheel and the sources into dist/
	rm -rf dist
	$(BIN)/python -c 'from hatchling.build import build_sdist, build_wheel; print(build_sdist("dist"), build_wheel("dist"))'

check: lint docs dist test  ## what a contribution must pass

lowest:  ## the tests with the oldest versions that pyproject.toml allows
	$(PYTHON) -m venv .venv/lowest
	.venv/lowest/bin/python -m pip install --quiet --disable-pip-version-check uv
	.venv/lowest/bin/uv pip install --quiet --python .venv/lowest --resolution lowest-direct --editable '.[test]'
	.venv/lowest/bin/python -m pytest -n auto --dist loadfile $(ARGS)

ecosystem: install  ## the recipes, with their libraries
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,ecosystem]'
	$(BIN)/python -m pytest tests/test_ecosystem.py $(ARGS)

links: install .venv/.docs  ## ask the network whether the site's external links are there
	$(BIN)/python -m sphinx -b linkcheck -D nb_execution_mode=off docs docs/_build/links

# One thread: processor time says the same whatever else runs.
# What costs more than a minute or two of its own is not among them: bench_certify, bench_methods_*, bench_peers, ...
BENCH := import alignment rivals deepfool penalties training_step memory resnet50 throughput evaluate
bench: install  ## the costs of what users call, side by side with their peers; a script alone: python -m benchmarks.bench_rivals
	@for name in $(BENCH); do OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.bench_$$name || exit 1; done

bench-gpu: install  ## the same on the GPU, without what measures processes of the CPU
	@$(BIN)/python -c 'import sys, torch; torch.cuda.is_available() or sys.exit("bench-gpu: torch sees no GPU here; make bench measures on the CPU")'
	@for name in $(filter-out import evaluate,$(BENCH)); do $(BIN)/python -m benchmarks.bench_$$name || exit 1; done

install: .venv/.installed

.venv/.installed: pyproject.toml
	@echo "Installing into .venv: about 2 minutes and 6 GB on Linux (PyTorch brings its CUDA packages)."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,lint]'
	@touch $@

.venv/.docs: pyproject.toml .venv/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@

clean:
	rm -rf .venv runs dist docs/_build
