# make demo      draw and rank pictures with the bundled model, into out/demo/
# make serve     serve a page to draw with, and an images API
# make test      run the tests
# make test-fast run those that take less than about half a second each
# make lint      check format, lint, types, layers, and lines of pages up to 120 characters
# make check     lint, then test
# make wheel     build the wheel, and draw with it from an environment and a folder of its own
# make clean     remove what the others made, pictures and runs excepted
#
# Each sets up what it needs in .venv, and again only when pyproject.toml or constraints.txt changed.

# The interpreter to build .venv from: 3.11 or newer, for instance `make demo PYTHON=python3.12`.
PYTHON ?= python3

# More flags for pip. On Linux, PyPI's torch brings gigabytes of CUDA libraries along. A machine without a GPU gets the CPU
# build instead, unless its pip is told where to look for packages: then that is for its owner to decide.
ifeq ($(shell uname -s):$(shell command -v nvidia-smi),Linux:)
ifeq ($(shell $(PYTHON) -m pip config list 2>/dev/null | grep -E 'index|find-links'),)
PIP_FLAGS ?= --extra-index-url https://download.pytorch.org/whl/cpu
endif
endif
PIP_FLAGS ?=

BIN := .venv/bin
CODE := src tests bench scripts launch
EXTRAS := data,track,plot,eval,serve,native,dev
INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt $(PIP_FLAGS)

.PHONY: help demo serve test test-fast lint check wheel clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

demo: .venv/ready-to-draw
	$(BIN)/cogview generate --out out/demo --num-candidates 16 --keep 2 \
	  "蓝色背景上的一只猫和一个苹果" "一条鱼在一朵花的左边" "an apple above a dog, on a white background" "two umbrellas on a yellow ground"

serve: .venv/ready-to-serve
	$(BIN)/cogview serve

# Each file is run by one process, so that what its tests share is made once. Bytecode is kept, even where it is not
# elsewhere: tests start many processes, and to compile takes longer than to run most of them.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

test: .venv/ready-to-develop
	$(PYTEST)

test-fast: .venv/ready-to-develop
	$(PYTEST) -m "not slow"

lint: .venv/ready-to-develop
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports
	! LC_ALL=C.UTF-8 grep -nE '^[^!].{120}' README.md CONTRIBUTING.md docs/*.md docs/decisions/*.md

check: lint test

# What users install: nothing of the checkout is seen, but for the pins of constraints.txt.
wheel: .venv/ready-to-develop
	rm -rf dist build .venv-wheel
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	$(PYTHON) -m venv .venv-wheel
	.venv-wheel/bin/python -m pip install --quiet --constraint constraints.txt $(PIP_FLAGS) dist/*.whl
	cd dist && ../.venv-wheel/bin/cogview generate "a cat on a blue background" --num-candidates 1 --out drawn
	rm -rf .venv-wheel build

clean:
	rm -rf .venv .venv-wheel build dist src/cogview.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

# setuptools is installed first and used as it is, so that the build, too, runs on the pinned version.
.venv/ready-to-draw: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing cogview and what it runs on into .venv; the first time this takes a few minutes."
	$(INSTALL) setuptools
	$(INSTALL) --no-build-isolation --editable .
	@touch $@

.venv/ready-to-serve: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing cogview and what serving needs into .venv; the first time this takes a few minutes."
	$(INSTALL) setuptools
	$(INSTALL) --no-build-isolation --editable '.[serve]'
	@touch $@ .venv/ready-to-draw

.venv/ready-to-develop: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing cogview and what its checks need into .venv; the first time this takes a few minutes."
	$(INSTALL) setuptools
	$(INSTALL) --no-build-isolation --editable '.[$(EXTRAS)]'
	@touch $@ .venv/ready-to-draw .venv/ready-to-serve

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "cogview needs Python 3.11 or newer, and '$(PYTHON)' is not: try make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }  # a half-made one would be taken for whole
