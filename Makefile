# `make demo`, `make test` and `make docs` work from a fresh clone; they need Python 3.11 or newer and nothing else.
#
# On Linux the default package index serves the CUDA build of torch (several GB). For the CPU build, name the index of
# CPU wheels that PyTorch's install page gives: make test TORCH_INDEX=URL

PYTHON ?= python3
TORCH_INDEX ?=
VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install --quiet -c constraints.txt
JOBS ?= 2

.PHONY: demo test browser docs format clean

# Each stamp is touched last, so an interrupted installation is repeated.
$(VENV)/.torch: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed, $(PYTHON) is older; pass another: make test PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@# torch first, by its pin: no later package may choose the build.
	$(INSTALL) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch
	@touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml
	$(INSTALL) -e '.[scores]'
	@# PESQ comes as source only; without a C compiler everything but that one score works.
	$(INSTALL) pesq || echo "pesq could not be built (is there a C compiler?); its score will be left out"
	@touch $@

$(VENV)/.test: $(VENV)/.demo
	$(INSTALL) -e '.[train,scores,formats,export,text,web,scale,docs,dev]'
	@touch $@

$(VENV)/.docs: $(VENV)/.torch pyproject.toml
	$(INSTALL) -e '.[docs]'
	@touch $@

demo: $(VENV)/.demo
	$(VENV)/bin/python examples/demo.py

test: $(VENV)/.test
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(VENV)/bin/pyright --pythonpath $(VENV)/bin/python
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n $(JOBS) -q

# A Chromium for the browser tests, where the machine has none.
browser: $(VENV)/.test
	$(VENV)/bin/python -m playwright install --only-shell chromium

# A warning of the build, such as a link that leads nowhere, is an error. The result: build/site/index.html
docs: $(VENV)/.docs
	$(VENV)/bin/python -m docs.site
	$(VENV)/bin/zensical build --strict --clean

format: $(VENV)/.test
	$(VENV)/bin/ruff check --fix
	$(VENV)/bin/ruff format

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis build .cache
