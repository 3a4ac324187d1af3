# Each command sets up all it needs, in a virtual environment of its own.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# That share the painting, the training and the tests: no more than there are cores.
PROCESSES ?= 2
# Length of the soak; SEED=1 makes the requests of an earlier one again.
REQUESTS ?= 2000
# Inputs for each target of the fuzzer.
RUNS ?= 20000
# On a CPU, processes share work better than threads. What the libraries say while loading is of
# no use to who only looks.
TOGETHER := OMP_NUM_THREADS=1 TRANSFORMERS_VERBOSITY=error DIFFUSERS_VERBOSITY=error \
	$(BIN)/python -m torch.distributed.run --standalone --nproc-per-node $(PROCESSES)

# Two hosts at once are too much for one machine, so tests on them run one by one.
WORKERS := -n $(if $(WEBUI_DIR),0,$(PROCESSES)) --dist loadfile

.PHONY: demo play test coverage bench soak fuzz lint docs model clean

demo: $(VENV)/.installed
	@$(TOGETHER) -m lazyneg sweep --output demo --steps 30 --guidance-scale 5 --seeds 0-15 \
		--prompt "girl eating pizza" --prompt "girl eating pizza wearing glasses" \
		--negative glasses --negative monochrome --critical-steps 0,3 \
		--areas 100,10 --adaptive both
	@echo "Open $(CURDIR)/demo/index.html"

play: $(VENV)/.playable
	$(BIN)/lazyneg play

test: $(VENV)/.ready lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(WORKERS)

coverage: $(VENV)/.ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(WORKERS) --cov --cov-report=term --cov-report=html

# Figures are ratios to a plain call beside; two files are compared by
# .venv/bin/python -m benchmarks.table ONE.json TWO.json
bench: $(VENV)/.benchmarks
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest benchmarks --benchmark-json=bench.json

# On the WebUI in WEBUI_DIR, with WEBUI_PYTHON (see CONTRIBUTING.md).
soak: $(VENV)/.ready
	$(BIN)/python -m pytest tests/host/test_soak.py --soak-requests $(REQUESTS) \
		$(if $(SEED),--soak-seed $(SEED))

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
