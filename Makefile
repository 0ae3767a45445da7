# make demo | make test | make sanitize | make shim | make bench | make gpu | make versions | make lint | make clean
# (PYTHON=... chooses the interpreter, 3.10 or newer)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(PYTHON) tools/install.py $(VENV) --constraint constraints.txt
SOURCES := pyproject.toml setup.py CMakeLists.txt constraints.txt $(shell find csrc cmake -type f)

.PHONY: demo test sanitize shim bench gpu gpu-test gpu-bench gpu-profile versions lint typecheck format clean

# Installed in place: a change to a Python file needs nothing, a change to a source of the extension builds it again.
# GECO_EXT_CUDA=ON make ... compiles the CUDA kernels also where there is no GPU; GECO_EXT_EXTENSION=OFF compiles nothing.
$(VENV)/train.installed: $(SOURCES)
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or newer is needed, got " + sys.version.split()[0] if sys.version_info < (3, 10) else 0)'
	@echo "Installing geco_ext and what it trains with into $(VENV) (some minutes the first time)"
	@$(INSTALL) --editable ".[train]"
	@touch $@

# The package is installed by now: pip adds what the tests need, and does not build the extension once more.
$(VENV)/test.installed: $(VENV)/train.installed
	@echo "Installing what the tests need"
	@$(INSTALL) "geco-ext[test]"
	@touch $@

$(VENV)/dev.installed: $(VENV)/test.installed
	@echo "Installing what checks style and types"
	@$(INSTALL) ruff mypy clang-format
	@touch $@

demo: $(VENV)/train.installed
	@rm -rf runs/demo
	@$(BIN)/geco train --model nvp --data digits --constraint re=0.1 --steps 700 --out runs/demo

test: $(VENV)/test.installed
	@$(BIN)/python -m pytest -n 2 --dist worksteal -m "not sanitize" tests

# The kernels, built as C++ under the sanitizers of GCC; a worker builds what all tests with one sanitizer run.
sanitize: $(VENV)/test.installed
	@$(BIN)/python -m pytest -n 2 --dist loadgroup -m sanitize tests

# The CUDA kernels as C++, for pytest -p cuda_through_shim (CONTRIBUTING.md).
shim: $(VENV)/test.installed
	@$(BIN)/python tests/hardware/cuda/shim_build.py build/shim

bench: $(VENV)/test.installed
	@$(BIN)/python -m pytest bench --benchmark-group-by=group --benchmark-columns=median,iqr,rounds
	@$(BIN)/python bench/ratios.py

# On an NVIDIA machine that has PyTorch, the build tools, pytest and pytest-xdist, without network: built for its GPU
# into the environment of PYTHON itself, where that is not done yet, then tested, measured, profiled: each within eight
# minutes, and by itself. Results come into the folder GPU_RESULTS (build/gpu-results) as they are found; measurements
# also into bench/results and the README. ONLY=... chooses tests (pytest -k), scenarios or steps (a regular expression).
gpu-test gpu-bench gpu-profile:
	$(eval missing := $(shell $(PYTHON) tests/hardware/gpu/harness/machine.py))$(if $(missing),$(error make $@: $(missing)))
	@$(PYTHON) tests/hardware/gpu/run.py $(@:gpu-%=%)

gpu:
	$(eval missing := $(shell $(PYTHON) tests/hardware/gpu/harness/machine.py))$(if $(missing),$(error make gpu: $(missing)))
	@$(MAKE) --no-print-directory --keep-going --jobs=1 gpu-test gpu-bench gpu-profile

# The core of the tests under several releases of Python and PyTorch (tests/install/versions.md); needs a network, and hours.
versions:
	@$(PYTHON) tests/install/versions.py

lint: $(VENV)/dev.installed typecheck
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/clang-format --dry-run --Werror $$(find csrc tests bench -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' -o -name '*.inl')

# The folders at the top level are one package once installed (setup.py): links show them to mypy that way.
typecheck: $(VENV)/dev.installed
	@rm -rf build/package && mkdir -p build/package/geco_ext
	@ln -s $(CURDIR)/geco_ext/* build/package/geco_ext/
	@ln -s $(CURDIR)/models $(CURDIR)/experiments build/package/geco_ext/
	@MYPYPATH=build/package $(BIN)/mypy -p geco_ext

format: $(VENV)/dev.installed
	@$(BIN)/ruff check --fix-only --quiet . && $(BIN)/ruff format .
	@$(BIN)/clang-format -i $$(find csrc tests bench -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' -o -name '*.inl')

clean:
	@rm -rf build dist $(VENV) *.egg-info geco_ext/_C*.so
