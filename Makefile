# Two commands matter: `make demo` (the whole path, measured) and `make test` (all checks).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CODE := contract tables runtime router compress serve loadtest report sluicegate bench deploy tests

# Two workers: one owns Ray, and tests that measure time have the machine to themselves (tests/conftest.py).
PYTEST := $(BIN)/pytest -n 2 --dist loadgroup --no-loadscope-reorder

.PHONY: help demo demo-quick test simulations check unit chaos cluster-test scaling soak wheel clean

help:  ## Show this list
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade --constraint constraints.txt pip setuptools
	$(BIN)/pip install --quiet --constraint constraints.txt torch --editable '.[demo,dev]'
	@touch $@

# Without a compiler this goes on, and numpy answers in place of what would be compiled.
$(VENV)/.compiled: $(VENV)/.installed setup.py $(wildcard runtime/ngrams/_*.[ch])
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(VENV)/.compiled  ## Build a family from BBC News, certify a policy, serve it, load it, report
	$(BIN)/sluice demo

demo-quick: $(VENV)/.compiled  ## The same joints with fewer steps, within 3 minutes
	$(BIN)/sluice demo --quick

check: $(VENV)/.compiled  ## Lint, format, types, import rules
	$(BIN)/ruff check $(CODE) setup.py
	$(BIN)/ruff format --check $(CODE) setup.py
	$(BIN)/mypy $(CODE)
	$(BIN)/lint-imports

unit: $(VENV)/.compiled  ## Tests that need no gateway on Ray
	$(PYTEST) -m 'not ray and not e2e'

test: check  ## Everything that CI runs
	$(PYTEST)

simulations: $(VENV)/.compiled  ## Every simulated promise with 200 draws instead of 10 (docs/testing.md)
	$(PYTEST) --simulations

cluster-test: $(VENV)/.compiled  ## Three nodes in network namespaces (root): state on S3 and on a folder, a node lost and added
	$(BIN)/pytest tests/cluster --cluster -q

chaos: $(VENV)/.compiled  ## Kill, freeze and starve every part under load; writes docs/benchmarks/chaos.md
	$(BIN)/pytest tests/chaos --chaos -q

scaling: $(VENV)/.compiled  ## Replicas under load and after it; writes docs/benchmarks/scaling.md
	$(BIN)/python -m bench.scaling

soak: $(VENV)/.compiled  ## Ten minutes at 70% of capacity with pushes and kills; writes docs/benchmarks/soak.md
	$(BIN)/python -m tests.chaos.soak

wheel:  ## Build the wheel into dist/, install it alone, and use what it brings
	PYTHON=$(PYTHON) .ci/wheel

clean:  ## Remove the environment and build outputs
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
