# make demo  environment, build, and the whole method on the embedded data set
# make test  environment, build, and the tests
# make bench     every kernel, loader and step beside its peers; JSON and a table with ratios into benchmarks/results/,
#                and what became of the ratios of the last result that is kept (a report)
# make gpu       everything that needs a GPU, on a machine that has one
# make sanitize  the CPU kernels under AddressSanitizer and UBSan, in a copy of the package, and their tests; and on
#                several threads under ThreadSanitizer, without torch, whose threads it does not know
# make reliability  every promise of hard days put to the test (hours); SAMPLE=1: a few trials of each
# make docs      the documentation as a site in build/site
# make lock      .ci/requirements.lock anew: what `LOCKED=1 make env` installs, with hashes
# make audit     the locked packages looked up among known vulnerabilities, where that data base can be reached
# make sbom      what is installed, as CycloneDX, in build/sbom.json
# make peers     what the CUDA kernels are compared with beside torch, DALI and Triton, into build/peers: for a machine with a
#                GPU and no network (CUB's top-k, RAFT's select_k, kornia)
# make ptxas     registers, spills and shared memory of the CUDA kernels (needs nvcc, no GPU)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMPS := .stamps
DATE := $(shell date +%F)
RESULTS := benchmarks/results

.PHONY: lock audit sbom reliability peers env build demo test test-slow docs bench sanitize ptxas gpu lint clean
env: $(STAMPS)/env
$(STAMPS)/env: pyproject.toml
	@mkdir -p $(STAMPS)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the Python packages into $(VENV) (the first time: about three minutes, 6 GB)"
	@$(if $(LOCKED),$(BIN)/pip install -q --require-hashes -r .ci/requirements.lock,$(BIN)/pip install -q --upgrade pip)
	@$(if $(LOCKED),,$(BIN)/pip install -q "setuptools>=77" wheel ninja "pybind11>=2.13" "cmake>=3.25" "torch>=2.11" "torchvision>=0.26")
	@PYTHONWARNINGS=ignore PATH=$(abspath $(BIN)):$$PATH DLP_FAST_CUDA=$${DLP_FAST_CUDA:-auto} $(BIN)/pip install -q --no-build-isolation $(if $(LOCKED),--no-deps )-e ".[dev,dali]"
	@$(if $(LOCKED),,for extra in "pillow-heif>=1.0" "pyarrow>=15" "seccompy>=0.2"; do $(BIN)/pip install -q --only-binary :all: "$$extra" || echo "$$extra does not install here: its tests are skipped"; done)
	@touch $@

lock: env
	@$(BIN)/python .ci/lock.py

# tools that the package does not need, in an environment of their own
$(STAMPS)/tools:
	@mkdir -p $(STAMPS) build && $(PYTHON) -m venv build/tools && build/tools/bin/pip install -q pip-audit cyclonedx-bom
	@touch $@

audit: $(STAMPS)/tools
	@build/tools/bin/python .ci/audit.py

sbom: env $(STAMPS)/tools
	@build/tools/bin/cyclonedx-py environment --of JSON -o build/sbom.json $(BIN)/python && echo build/sbom.json

# CMake and ninja compile only what changed since the last build.
build: env
	@mkdir -p build
	@PATH=$(abspath $(BIN)):$$PATH DLP_FAST_NATIVE=1 $(BIN)/python setup.py -q build_ext --inplace > build/build.log 2>&1 || { cat build/build.log; exit 1; }

demo: build
	@$(BIN)/python -m dlp_fast.run --out runs/demo

# two workers of one thread each; one that is done takes over tests of the other
test: build
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

test-slow: build
	$(BIN)/python -m pytest -m slow

# on a machine with a GPU, with the packages of pyproject.toml installed; PYTHON=... chooses the interpreter
gpu:
	@PYTHON=$(PYTHON) benchmarks/system/gpu.sh

lint: build
	$(BIN)/ruff check . && $(BIN)/ruff format --check dlp_fast tests benchmarks studies setup.py && $(BIN)/lint-imports

docs: build
	@$(BIN)/pip install -q "mkdocs-material>=9.5" "mkdocstrings[python]>=0.25"
	@rm -rf build/docs && mkdir -p build && cp -r docs build/docs
	@$(BIN)/python -m benchmarks.results_page --out build/docs/results.md
	@DLP_FAST_DOCS=$(abspath build/docs) NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict -q && echo "build/site/index.html"

clean:
	rm -rf build dist *.egg-info .stamps dlp_fast/*.so

# BENCH="-k inject_trigger" measures a part; the name says the device that the kernels ran on
bench: build
	@mkdir -p $(RESULTS)
	@device=$$($(BIN)/python -c "import torch; print('cuda' if torch.cuda.is_available() else 'cpu')") && \
	result=$(RESULTS)/kernels_$${device}_$(DATE).json && \
	$(BIN)/python -m pytest benchmarks/kernels -o addopts=-q --benchmark-only --benchmark-json=$$result \
	  --benchmark-columns=median,min,iqr,rounds --benchmark-sort=name $(BENCH) && \
	$(BIN)/python -m benchmarks.kernels.summarize $$result --write \
	  $(addprefix --against ,$(lastword $(sort $(wildcard $(RESULTS)/kernels_cpu_*.json.gz))))

reliability: build
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.system.reliability $(if $(SAMPLE),--sample) --out $(RESULTS)/reliability_$(DATE).json

# The sanitized package lives in build/sanitize, so the normal build stays. Python itself is not built with ASan, hence
# LD_PRELOAD; what torch and Python leak at exit is theirs. Subprocesses of the tests inherit all of it.
SANITIZED := build/sanitize
sanitize: build
	@rm -rf $(SANITIZED) && mkdir -p $(SANITIZED)
	@cp -r csrc dlp_fast tests CMakeLists.txt setup.py pyproject.toml $(SANITIZED)/
	@find $(SANITIZED) -name '*.so' -delete
	@cd $(SANITIZED) && touch README.md && PATH=$(abspath $(BIN)):$$PATH DLP_FAST_CUDA=0 DLP_FAST_SANITIZE=1 \
	  $(abspath $(BIN))/python setup.py -q build_ext --inplace > build.log 2>&1 || { cat build.log; exit 1; }
	cd $(SANITIZED) && \
	  LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libubsan.so) $$(g++ -print-file-name=libstdc++.so.6)" \
	  ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
	  $(abspath $(BIN))/python -m pytest tests/ops --ignore=tests/ops/test_static_runtime.py -p no:cacheprovider -o addopts="-q -m 'not slow'"
	cd $(SANITIZED) && $(abspath $(BIN))/python -m pytest tests/ops/test_threads.py -p no:cacheprovider -o addopts=-q

# ARCHITECTURE=80, 86, 89, 90, 100 or 120; or several in quotes: a column for each
ARCHITECTURE ?= 90
peers: env
	@$(BIN)/pip install -q --no-deps --upgrade --target build/peers nvidia-cuda-cccl libraft-cu13 librmm-cu13 rapids-logger kornia kornia_rs
	@$(BIN)/python -m benchmarks.kernels.selection_peers --architecture $(ARCHITECTURE)

ptxas: env
	@$(BIN)/python -m benchmarks.kernels.ptxas --architecture $(ARCHITECTURE) --out $(RESULTS)/ptxas_sm$(subst $() ,_,$(ARCHITECTURE))_$(DATE).md
