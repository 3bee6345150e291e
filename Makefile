# The two commands: `make quickstart` and `make test`. Both install what is missing, build, and run; both are idempotent.

PYTHON = $(shell scripts/bootstrap.sh --python)
RUN = PYTHONPATH=$(CURDIR)/build/python $(PYTHON)

CLANGXX = $(or $(shell command -v clang++),$(lastword $(sort $(wildcard /usr/bin/clang++-*))))
AFM_FUZZ_SECONDS ?= 600

.PHONY: help quickstart test build bootstrap format lint asan tsan fuzz kills stubs clean

help:
	@echo "make quickstart   build, then prepare, train, compress, fine-tune and report on MovieLens-100k"
	@echo "make test         build everything and run every test"
	@echo "make build        build everything"
	@echo "make format       clang-format and ruff on every source"
	@echo "make lint         what ruff and clang-format would change"
	@echo "make asan         C++ tests under AddressSanitizer and UndefinedBehaviorSanitizer"
	@echo "make tsan         C++ tests under ThreadSanitizer"
	@echo "make fuzz         every fuzzer for AFM_FUZZ_SECONDS (600), one after the other; needs clang"
	@echo "make kills        training, compress and prepare killed 60 times each at random moments; other moments each time"
	@echo "make stubs        regenerate python/afm/_core.pyi"

bootstrap:
	@scripts/bootstrap.sh

build/build.ninja: | bootstrap
	@echo "[libafm] configuring"
	@cmake --preset release -DAFM_PYTHON_EXECUTABLE=$(PYTHON) > build-configure.log 2>&1 || (cat build-configure.log; exit 1)
	@mv build-configure.log build/configure.log

quickstart: bootstrap build/build.ninja
	@echo "[libafm] building the library and the Python package (first time: some minutes)"
	@cmake --build build --target afm_core_python
	@$(RUN) -m afm quickstart --out out/quickstart

build: bootstrap build/build.ninja
	@echo "[libafm] building (first time: some minutes)"
	@cmake --build build

# Two tests at a time on two cores: threads that wait actively would each take the core that the other test needs.
test: build
	@OMP_WAIT_POLICY=passive ctest --test-dir build --output-on-failure --no-tests=error --parallel 2

asan tsan: bootstrap
	cmake --preset $@ -DAFM_PYTHON_EXECUTABLE=$(PYTHON)
	cmake --build --preset $@
	ctest --preset $@

fuzz: bootstrap build/build.ninja
	@test -n "$(CLANGXX)" || { echo "[libafm] make fuzz needs clang++ (Debian: clang), and finds none" >&2; exit 1; }
	cmake --preset fuzz -DCMAKE_CXX_COMPILER=$(CLANGXX) -DAFM_PYTHON_EXECUTABLE=$(PYTHON)
	cmake --build --preset fuzz
	cmake --build build --target afm_core_python
	tests/fuzz/run.sh build-fuzz $(AFM_FUZZ_SECONDS)
	$(RUN) tests/fuzz/fuzz_tables.py --seconds $(AFM_FUZZ_SECONDS) --keep build-fuzz/crashes

kills: build
	AFM_KILLS=60 AFM_KILL_SEED=$$(date +%s) $(RUN) -m pytest -q -rP -p no:cacheprovider tests/python/test_crashes.py

stubs: build
	cmake --build build --target afm_stubs

format:
	git ls-files '*.h' '*.cpp' '*.inl' '*.cu' '*.cuh' | xargs clang-format -i
	$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --fix .

lint:
	git ls-files '*.h' '*.cpp' '*.inl' '*.cu' '*.cuh' | xargs clang-format --dry-run -Werror
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .

clean:
	rm -rf build build-* out
