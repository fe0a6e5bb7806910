# Two commands do everything on a fresh machine with Python >= 3.11, a C compiler and make:
#
#     make demo     train real networks with no learning rate given, next to a tuned grid
#     make test     run all tests and checks
#
# and make docs writes the documentation as a site, into build/site.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The version that glyder is tested with. Where pip would take a CUDA build of it, gigabytes of packages, give
# pip the index of CPU builds (PIP_EXTRA_INDEX_URL) and TORCH=torch==2.13.0+cpu.
TORCH ?= torch==2.13.0

.PHONY: demo docs test check-c check-sanitized check-python lint format clean

demo: $(VENV)/demo.stamp
	$(BIN)/python -m glyder demo $(DEMO)

# The site comes last, by itself: two installations at a time would be in each other's way.
test: $(VENV)/test.stamp lint check-c check-sanitized check-python
	$(MAKE) docs

docs: $(VENV)/docs.stamp
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --config-file docs/site/mkdocs.yml

# The stamp comes last: a run that failed half-way is made again from the start.
$(VENV)/base.stamp:
	rm -rf $(VENV)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "glyder needs Python 3.11 or newer: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	@touch $@

SOURCES := setup.py pyproject.toml $(shell find csrc -name '*.[ch]')

# Editable, so that the tests run on the sources as they lie here.
$(VENV)/demo.stamp $(VENV)/docs.stamp $(VENV)/test.stamp: $(VENV)/%.stamp: $(SOURCES) | $(VENV)/base.stamp
	$(BIN)/python -m pip install --quiet --editable ".[$*]"
	@touch $@

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(shell find csrc tests -name '*.[ch]')
	$(BIN)/mypy

check-c:
	$(MAKE) -C tests/c check check-sanitized

check-sanitized: $(VENV)/test.stamp
	PYTHON=$(abspath $(BIN)/python) tests/run_sanitized.sh

check-python: $(VENV)/test.stamp
	$(BIN)/python -m pytest -n auto
	GLYDER_ENTRY=pointer $(BIN)/python -m pytest -n auto tests/test_segments_torch.py tests/schedulers -m "not slow" \
		-k "not test_family"
	GLYDER_DEVICE_PATH=torch $(BIN)/python -m pytest -n auto tests/estimators tests/schedulers -m "not slow"

format: $(VENV)/test.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/clang-format -i $(shell find csrc tests -name '*.[ch]')

clean:
	rm -rf $(VENV) build *.egg-info python/*.egg-info python/glyder/*.so
