# Two commands: `make demo` and `make test`. Both make the same virtual environment first; nothing else is needed than
# Python 3.11 or newer with pip, git and make. `make test-cpp`, for the C++ runtime, needs cmake and g++ as well.
PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= cpu,dev
BIN = $(VENV)/bin
READY = $(VENV)/.ready
DEMO = demo
SIZE = 512x1024
# The papers' protocol: half the resolution in, labels at the picture's own resolution out.
HALF = 256x512
# The whole protocol takes each network 64 runs and a second: minutes for these on two cores.
BENCH_FLAGS = --quick
# The networks of the table in README; all that `searchkit networks` lists take more than twice as long.
BENCH_NETWORKS = ssr ssr-baseline1 ssr-baseline2 fasterseg fasterseg-teacher bisenetv2 erfnet fast-scnn
# Such as --results DIR --logs DIR, or --device cpu --quick to try the steps without a GPU.
GPU_FLAGS =
# For pip: another package index, say.
PIP_FLAGS ?=
# Two test processes, as many as the smallest machine has cores; each leaves the threads of its own to the other. One that
# dies is not replaced: its replacement does not take the tests that were left, and all would wait for them.
TEST_FLAGS ?= -n 2 --dist loadfile --max-worker-restart 0
CPP_BUILD = build/cpp
# The folder of onnxruntime_c_api.h; fetched from Debian if empty.
ONNXRUNTIME_INCLUDE_DIR =

.PHONY: demo test test-cpp check gpu format clean

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("searchkit needs Python 3.11 or newer, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt -e '.[$(EXTRAS)]'
	touch $@

demo: $(READY)
	mkdir -p $(DEMO)
	$(BIN)/searchkit data sample streets --split val --index 7 --resolution $(SIZE) -o $(DEMO)/street.png --labels $(DEMO)/street-true.png
	$(BIN)/searchkit export ssr --weights streets --resolution $(HALF) --io labels -o $(DEMO)/ssr
	$(BIN)/searchkit segment $(DEMO)/ssr $(DEMO)/street.png -o $(DEMO)/street-labels.png
	$(BIN)/bench fps $(BENCH_NETWORKS) --resolution $(SIZE) $(BENCH_FLAGS) --json $(DEMO)/fps.json --markdown $(DEMO)/fps.md
	@echo "demo: see $(DEMO)/street.png, $(DEMO)/street-labels.png, $(DEMO)/fps.md and the bundle $(DEMO)/ssr"

test: $(READY)
	$(BIN)/python -m pytest -m "not gpu" $(TEST_FLAGS)

test-cpp: $(READY)
	tests/cpp/build.sh $(CPP_BUILD) $(BIN)/python $(ONNXRUNTIME_INCLUDE_DIR)
	SEARCHKIT_CPP_BUILD=$(CPP_BUILD) $(BIN)/python -m pytest tests/cpp $(TEST_FLAGS)

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -m "not gpu and not slow" $(TEST_FLAGS)

# All that is measured on an NVIDIA GPU, with what is installed here and nothing else, in under nine minutes.
gpu:
	PYTHONPATH=. $(PYTHON) -m bench.gpu_run $(GPU_FLAGS)

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) $(DEMO) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
