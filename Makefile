# Everything a newcomer types. Each target makes the virtual environment it needs in .venv.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

# The demonstration's and the tests' matrices are small: threads would only wait for each other.
export OPENBLAS_NUM_THREADS ?= 1
export OMP_NUM_THREADS ?= 1

# Processes that share the tests, file by file.
WORKERS ?= 2

.PHONY: demo test test-oldest slow fuzz mutants lint docs notebooks exercises slides students clean

demo: $(VENV)/.installed
	$(BIN)/refsnn demo --out runs/demo

test: $(VENV)/.installed-test
	$(BIN)/ruff check refsnn reference_tests docs
	$(BIN)/ruff format --check refsnn reference_tests docs/figures
	$(BIN)/mypy
	$(BIN)/python -m pytest -m "not slow" -n $(WORKERS) --dist loadfile

slow: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m slow

# Some four thousand damaged files and nearly right options; reference_tests/test_fuzz.py tries a few of them.
fuzz: $(VENV)/.installed-test
	$(BIN)/python reference_tests/fuzz.py $(FUZZ)

# Small faults in core modules, and whether their tests find them; before a release: MUTANTS='--count 300'.
mutants: $(VENV)/.installed-test
	$(BIN)/python reference_tests/mutants.py $(MUTANTS)

# The oldest NumPy and SciPy that setup.cfg promises, in an environment of its own; backends are left out.
test-oldest:
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check numpy==2.0.* scipy==1.13.* '.[test-alone]'
	.venv-oldest/bin/python -m pytest -m "not slow" -p no:cacheprovider reference_tests

lint: $(VENV)/.installed-test
	$(BIN)/ruff check refsnn reference_tests docs
	$(BIN)/ruff format --check refsnn reference_tests docs/figures
	$(BIN)/mypy

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "refsnn needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Name one: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python setup.cfg pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[all]'
	touch $@

$(VENV)/.installed-test: $(VENV)/bin/python setup.cfg pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,backends]'
	touch $@ $(VENV)/.installed

docs: $(VENV)/.installed-docs
	$(BIN)/python -m sphinx -W --keep-going -q docs docs/_build/html
	@echo Now open docs/_build/html/index.html in a browser.

$(VENV)/.installed-docs: $(VENV)/bin/python setup.cfg pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	touch $@

notebooks: $(VENV)/.installed-test
	$(BIN)/python reference_tests/test_notebooks.py $(NOTEBOOKS)

# A student to start from: BERT-tiny on SST-2, converted, evaluated, packed with its card. Without a network:
# make students STUDENTS='--data glue --teacher bert-tiny'
students: $(VENV)/.installed
	$(BIN)/refsnn reproduce --config converted --tasks sst2 --out runs/students $(STUDENTS)
	$(BIN)/refsnn pack runs/students/sst2/seed-0 runs/students/packed --licence apache-2.0

# The notebooks for a class, without solutions; and as slides.
exercises: $(VENV)/bin/python
	$(BIN)/python docs/_ext/site_notebooks.py exercises

slides: $(VENV)/.installed-docs
	$(BIN)/python -m pip install --quiet --disable-pip-version-check nbconvert
	$(BIN)/python docs/_ext/site_notebooks.py slides docs/_build/slides

clean:
	rm -rf $(VENV) build dist docs/_build docs/api/generated docs/notebooks *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
