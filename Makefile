# make demo | make test | make sanitize | make bench | make gpu | make lint | make clean
# (PYTHON=... chooses the interpreter, 3.10 or newer)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
SOURCES := pyproject.toml setup.py CMakeLists.txt constraints.txt $(shell find csrc -type f)

.PHONY: demo test sanitize bench gpu lint typecheck format clean

# Installed in place: a change to a Python file needs nothing, a change to a source of the extension builds it again.
$(VENV)/train.installed: $(SOURCES)
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or newer is needed, got " + sys.version.split()[0] if sys.version_info < (3, 10) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing geco_ext and what it trains with into $(VENV) (some minutes the first time)"
	@$(PIP) install --quiet --constraint constraints.txt --editable ".[train]"
	@touch $@

$(VENV)/test.installed: $(VENV)/train.installed
	@$(PIP) install --quiet --constraint constraints.txt --editable ".[test]"
	@touch $@

$(VENV)/dev.installed: $(VENV)/test.installed
	@$(PIP) install --quiet --constraint constraints.txt ruff mypy clang-format
	@touch $@

demo: $(VENV)/train.installed
	@rm -rf runs/demo
	@$(BIN)/geco train --model nvp --data digits --constraint re=0.1 --out runs/demo

test: $(VENV)/test.installed
	@$(BIN)/python -m pytest -n 2 -m "not sanitize" tests

# The kernels, built as C++ under the sanitizers of GCC; a worker builds what all tests of a file run.
sanitize: $(VENV)/test.installed
	@$(BIN)/python -m pytest -n 2 --dist loadscope -m sanitize tests

bench: $(VENV)/test.installed
	@$(BIN)/python -m pytest bench --benchmark-group-by=group --benchmark-columns=median,iqr,rounds
	@$(BIN)/python bench/ratios.py

# On an NVIDIA machine that has PyTorch, the build tools and pytest, without network: built into the environment of
# PYTHON itself, tested there, measured, results/gpu.json and the README's table written.
gpu:
	$(eval missing := $(shell $(PYTHON) tests/gpu/machine.py))$(if $(missing),$(error make gpu: $(missing)))
	@echo "Building geco_ext with its CUDA kernels (some minutes)"
	@CUDACXX="$${CUDACXX:-$$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)}" CMAKE_ARGS="-DGECO_EXT_CUDA=ON $$CMAKE_ARGS" \
	  CMAKE_BUILD_PARALLEL_LEVEL="$${CMAKE_BUILD_PARALLEL_LEVEL:-$$(nproc)}" PIP_BREAK_SYSTEM_PACKAGES=1 $(PYTHON) -m pip \
	  --disable-pip-version-check install --quiet --no-build-isolation --no-deps --no-index --editable .
	@$(PYTHON) -c "from geco_ext.commands.info import info; info()"
	@status=0; $(PYTHON) tests/gpu/run.py || status=1; $(PYTHON) bench/ratios.py --device cuda --write || status=1; exit $$status

lint: $(VENV)/dev.installed typecheck
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/clang-format --dry-run --Werror $$(find csrc tests -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' -o -name '*.inl')

# The folders at the top level are one package once installed (setup.py): links show them to mypy that way.
typecheck: $(VENV)/dev.installed
	@rm -rf build/package && mkdir -p build/package/geco_ext
	@ln -s $(CURDIR)/geco_ext/* build/package/geco_ext/
	@ln -s $(CURDIR)/models $(CURDIR)/experiments build/package/geco_ext/
	@MYPYPATH=build/package $(BIN)/mypy -p geco_ext

format: $(VENV)/dev.installed
	@$(BIN)/ruff check --fix-only --quiet . && $(BIN)/ruff format .
	@$(BIN)/clang-format -i $$(find csrc tests -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' -o -name '*.inl')

clean:
	@rm -rf build dist $(VENV) *.egg-info geco_ext/_C*.so
