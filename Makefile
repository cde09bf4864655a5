# make lab      the lessons in JupyterLab, on your own copies   (make lab ARGS="--no-browser --port 8890")
# make test     every check but the browser's
# make help     the rest
#
# The first of them makes .venv. PYTHON=/path/to/python chooses the interpreter.

BIN := .venv/bin
STAMP := .venv/.stamp
ARGS ?=

.PHONY: help lab test test-browser lessons site bench test-wheel lint types format clean
.DEFAULT_GOAL := help

help:
	@echo 'make lab           open the lessons in JupyterLab, on copies in my-lessons/'
	@echo '                   (ARGS="--no-browser --port 8890" and the like are passed on)'
	@echo 'make test          lint, types, unit tests, doctests, every lesson run and compared'
	@echo 'make test-browser  the views and JupyterLab in a real Chromium'
	@echo 'make lessons       build notebooks/*.ipynb from notebooks/source (ARGS="01" for one)'
	@echo 'make site          the web site, in site/: lessons, gallery, reference, search'
	@echo 'make bench         the project against its peers, into benchmarks/README.md (ARGS="block")'
	@echo 'make test-wheel    the wheel in an empty environment, with the lowest versions'
	@echo 'make lint          ruff: lint and format, checked'
	@echo 'make types         mypy'
	@echo 'make format        ruff: mend what it can'
	@echo 'make clean         remove .venv, site/ and caches (never my-lessons/)'

$(STAMP): pyproject.toml constraints.txt tools/make_venv.sh
	@sh tools/make_venv.sh

lab: $(STAMP)
	@$(BIN)/zeta-edu lab --dir my-lessons $(ARGS)

test: lint types
	@$(BIN)/python -m pytest -n 2 --dist loadscope --ignore=tests/browser -q $(ARGS)

test-browser: $(STAMP)
	@$(BIN)/python -m pytest -n 2 tests/browser -q $(ARGS)

lessons: $(STAMP)
	@$(BIN)/python notebooks/build.py $(ARGS)

site: $(STAMP)
	@$(BIN)/python docs/site/build.py $(ARGS)

# litgpt asks for an older huggingface-hub than transformers takes: it comes without its wishes.
bench: $(STAMP)
	@$(BIN)/python -m pip install -q -c constraints.txt -e '.[bench]'
	@$(BIN)/python -m pip install -q -c constraints.txt --no-deps litgpt lightning lightning-utilities torchmetrics
	@$(BIN)/python -m benchmarks $(or $(ARGS),all)

test-wheel: $(STAMP)
	@$(BIN)/python tools/check_wheel.py

lint: $(STAMP)
	@$(BIN)/ruff check --quiet . && $(BIN)/ruff format --check --quiet . && echo 'lint: passed'

types: $(STAMP)
	@$(BIN)/mypy --no-error-summary && echo 'types: passed'

format: $(STAMP)
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format --quiet .

clean:
	rm -rf .venv setup.log site .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find zeta_edu tests notebooks -name __pycache__ -type d -prune -exec rm -rf {} +
