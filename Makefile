# make demo · make test · make test-slow · make lint · make docs · make bench · make clean        (GNU make, Python 3.11 or newer)
# Another interpreter: make PYTHON=python3.12 test

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: demo test test-slow lint docs bench clean

demo: $(INSTALLED)
	$(BIN)/recloss sweep tune_spaces/sweeps/demo.yaml

test: $(INSTALLED)
	$(BIN)/python -m pytest -m "not slow"

test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -m slow

lint: $(INSTALLED)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

docs: $(INSTALLED)
	$(BIN)/python docs/make_catalogue.py

# On a quiet machine; real data if RECLOSS_DATA is set. Writes benchmarks/RESULTS.md.
bench: $(INSTALLED)
	$(BIN)/python benchmarks/run_all.py --quick

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# A .venv that is there already is kept and brought up to date, so a torch put into it beforehand stays.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "recloss needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.11" >&2; exit 1; }
	@echo "recloss: making .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv .venv || { echo "'$(PYTHON) -m venv' failed; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "recloss: installing about 100 packages into .venv; a few minutes, about 2 GB (see constraints.txt for torch without CUDA)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[pipelines,dev]'
	@touch $@
	@echo "recloss: installed; the command is $(BIN)/recloss"
