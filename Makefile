# Everything goes through .venv; uv itself is bootstrapped into it by pip.
VENV := .venv
UV := $(VENV)/bin/uv
PYTHON ?= python3

.PHONY: setup demo test check bench clean

setup: $(VENV)/.stamp

$(VENV)/.stamp: requirements.lock $(wildcard packages/*/pyproject.toml) scripts/bootstrap
	PYTHON=$(PYTHON) scripts/bootstrap
	@touch $@

demo: setup
	$(VENV)/bin/flow demo

check: setup
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/pyright
	$(VENV)/bin/lint-imports

test: setup
	scripts/test-services
	$(MAKE) check
	$(VENV)/bin/pytest

bench: setup
	$(VENV)/bin/flow bench

clean:
	rm -rf $(VENV) .flow
