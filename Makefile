# Each command sets up all it needs, in a virtual environment of its own.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# That share the painting and the training: no more than there are cores.
PROCESSES ?= 2
RUNS ?= 20000
# On a CPU, processes share work better than threads. What the libraries say while loading is of
# no use to who only looks.
TOGETHER := OMP_NUM_THREADS=1 TRANSFORMERS_VERBOSITY=error DIFFUSERS_VERBOSITY=error \
	$(BIN)/python -m torch.distributed.run --standalone --nproc-per-node $(PROCESSES)

.PHONY: demo play test coverage bench fuzz lint docs model clean

demo: $(VENV)/.installed
	@$(TOGETHER) -m lazyneg sweep --output demo --steps 30 --guidance-scale 5 --seeds 0-15 \
		--prompt "girl eating pizza" --prompt "girl eating pizza wearing glasses" \
		--negative glasses --negative monochrome --critical-steps 0,3 \
		--areas 100,10 --adaptive both
	@echo "Open $(CURDIR)/demo/index.html"

play: $(VENV)/.playable
	$(BIN)/lazyneg play

test: $(VENV)/.ready lint
	$(BIN)/python -m pytest

coverage: $(VENV)/.ready
	$(BIN)/python -m pytest --cov --cov-report=term --cov-report=html

# Figures are ratios to a plain call beside; two files are compared by
# .venv/bin/python -m benchmarks.table ONE.json TWO.json
bench: $(VENV)/.benchmarks
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest benchmarks --benchmark-json=bench.json

# RUNS is the number of inputs for each target: make fuzz RUNS=1000000
fuzz: $(VENV)/.fuzzing
	$(BIN)/python -m fuzz --runs $(RUNS)

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.docs
	$(BIN)/mkdocs build --strict
	@echo "Open $(CURDIR)/site/index.html"

# Trains the embedded model anew and measures it, in about an hour on two cores.
model: $(VENV)/.installed
	$(TOGETHER) -m lazyneg.demo.training
	$(TOGETHER) -m lazyneg.demo.evaluation

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		"Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.installed: pyproject.toml requirements-dev.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -c requirements-dev.txt -e '.[sweep]'
	touch $@

$(VENV)/.playable: pyproject.toml requirements-dev.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -c requirements-dev.txt -e '.[play]'
	touch $@

$(VENV)/.ready: pyproject.toml requirements-dev.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -c requirements-dev.txt -e '.[test]'
	touch $@

$(VENV)/.benchmarks: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet -c requirements-dev.txt -e '.[bench]'
	touch $@

$(VENV)/.fuzzing: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet -c requirements-dev.txt -e '.[fuzz]'
	touch $@

$(VENV)/.docs: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet -c requirements-dev.txt -e '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) .coverage .nox demo htmlcov site bench.json .pytest_cache .mypy_cache .ruff_cache .hypothesis .fuzz
