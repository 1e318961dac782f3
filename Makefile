# One stamp stands for the whole set-up, so that only a change of what is installed installs again.
VENV := .venv
STAMP := $(VENV)/.installed
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check install -q -c constraints.txt

USABLE := -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11; do \
	$$name $(USABLE) && { echo $$name; exit; }; done; echo python3)

.PHONY: help train test check docs soak bench clean

help: ## print this list (the default)
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' Makefile

train: $(STAMP) ## set up, then train the quickstart on this machine; ARGS=--resume continues
	@$(VENV)/bin/python -m scripts.train --config configs/quickstart.py $(ARGS)

# Two processes share out whole files, in their order: the long ones with few tests do not come last together.
# Half of the suite's time was compiling: level 0 without fused emitters takes most of it off. jax 0.12 has fused ones alone,
# and ends a process that names an unknown flag. `make soak` compiles as users do.
test: $(STAMP) ## set up, then run the tests, two files at a time; ARGS goes to pytest (-n 0: one)
	@flags="$(XLA_FLAGS) --xla_backend_optimization_level=0"; unfused=--xla_cpu_use_fusion_emitters=false; \
	JAX_PLATFORMS=cpu XLA_FLAGS=$$unfused $(VENV)/bin/python -c "import jax; jax.devices()" 2>/dev/null && flags="$$flags $$unfused"; \
	XLA_FLAGS="$$flags" $(VENV)/bin/python -m pytest -m "not slow" -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(STAMP) ## set up, then look for mistakes of form: ruff's rules and layout, mypy's types
	@$(VENV)/bin/ruff check --quiet . && $(VENV)/bin/ruff format --quiet --check . && $(VENV)/bin/mypy --no-error-summary

# Sphinx, because it is maintained: MkDocs and its Material theme are not any more (docs/why/design.md).
docs: $(STAMP) ## set up, then build the site of the documentation into .cache/site; a broken link is an error
	@$(VENV)/bin/python -c "import furo, myst_parser" 2>/dev/null || $(PIP) --no-warn-conflicts --no-build-isolation -e ".[docs]"
	@$(VENV)/bin/python -m sphinx -W --keep-going -q -d .cache/site-trees docs .cache/site && echo "open .cache/site/index.html"

soak: $(STAMP) ## set up, then run the long tests
	@$(VENV)/bin/python -m pytest -m slow $(ARGS)

bench: $(STAMP) ## set up, then measure every performance row and draw one chart; ARGS="--tunix-python ... --torch-python ..."
	@$(VENV)/bin/python -m scripts.benchmark $(ARGS)

clean: ## remove the environment, the caches and the build output, but no run
	rm -rf $(VENV) .cache .pytest_cache .hypothesis build dist *.egg-info
	find rods_jax models configs scripts tests -name __pycache__ -prune -exec rm -rf {} +

# bfcl-eval comes without its dependencies: their pins exclude numpy 2, and its simulators need only mpmath.
# No isolated builds: those would fetch a second setuptools, of any version.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) $(USABLE) || { echo "rods_jax needs Python 3.11 or newer with its venv module, which $(PYTHON)" \
		"is not: install it (Debian, Ubuntu: python3-venv) or name one, as in make PYTHON=/path/to/python." >&2; exit 1; }
	@echo "Installing into $(VENV) (the first time: 230 MB to download, 1.1 GB on disk)."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) setuptools
	@$(PIP) --no-warn-conflicts --no-build-isolation -e ".[bfcl,test]"
	@$(PIP) --no-deps bfcl-eval
	@touch $@
