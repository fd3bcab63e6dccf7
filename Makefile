# varve: the short way in. CMake does the building, tools/setup.py fetches what is needed.

PYTHON ?= python3
BUILD ?= build
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
PREFIX ?= /usr/local
DESTDIR ?=
# your own llama.cpp source tree: make VARVE_GGML_SOURCE=/path/to/llama.cpp
VARVE_GGML_SOURCE ?=
# pieces of llama.cpp that `make build` prepares (tools/setup.py --help lists them)
PIECES ?= all

# What the tests compile is kept beside the downloads, for the next clone (ccache, where it is there).
CCACHE_DIR ?= $(or $(VARVE_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/varve)/ccache
KEEP_OBJECTS = if command -v ccache >/dev/null; then export CMAKE_C_COMPILER_LAUNCHER=ccache \
	CCACHE_DIR="$(CCACHE_DIR)" CCACHE_BASEDIR="$(CURDIR)" CCACHE_NOHASHDIR=1 CCACHE_MAXSIZE=500M; fi;

SETUP = $(PYTHON) tools/setup.py --link $(BUILD)/llama \
	$(if $(VARVE_GGML_SOURCE),--ggml-source "$(VARVE_GGML_SOURCE)")
GENERATOR = $(if $(wildcard $(BUILD)/CMakeCache.txt),,$(if $(shell command -v ninja),-G Ninja))
# build/llama leads to the right source already, so CMake is not told about it
COMPILE = $(KEEP_OBJECTS) cmake -B $(BUILD) --preset release $(GENERATOR) -DVARVE_GGML_SOURCE= \
	>$(BUILD)/configure.log 2>&1 || { cat $(BUILD)/configure.log; exit 1; }; cmake --build $(BUILD) --parallel $(JOBS)
CTEST = ctest --test-dir $(BUILD) --output-on-failure --no-label-summary -j $(JOBS)

.PHONY: all help build test check demo bench asan tsan lint install clean

all: build

help:
	@echo 'make build    set up (once) and compile: build/bin, build/lib, build/llama'
	@echo 'make test     everything that must hold; up to 40 min the first time, 15 min later'
	@echo 'make check    the quick part of the tests: units, kernels, lints'
	@echo 'make demo     a question about a long text: varve beside stock llama.cpp'
	@echo 'make bench    kernels, one attention and llama-bench beside stock (BENCH=--quick: minutes)'
	@echo 'make asan     unit and kernel tests under AddressSanitizer and UBSan (build-asan/)'
	@echo 'make tsan     the same under ThreadSanitizer, with clang (build-tsan/)'
	@echo 'make lint     format and structure of the source'
	@echo 'make install  into PREFIX (default /usr/local)'
	@echo 'make clean    remove build folders; the cache of downloads stays'
	@echo
	@echo 'VARVE_CACHE sets the folder for downloads and builds of llama.cpp (~/.cache/varve).'
	@echo 'VARVE_GGML_SOURCE=/path/to/llama.cpp uses your own llama.cpp source.'

build:
	@$(SETUP) $(PIECES)
	@$(COMPILE)

test:
	@$(SETUP) --test all gguf
	@$(COMPILE)
	@$(KEEP_OBJECTS) exec $(CTEST)

check:
	@$(SETUP) --test ggml
	@$(COMPILE)
	@exec $(CTEST) -L 'unit|check|lint'

demo:
	@$(SETUP) demo
	@$(COMPILE) --target varve-cli varve-run ggml-varve
	@exec $(PYTHON) tools/demo.py --build $(BUILD)

bench: build
	@$(BUILD)/bin/varve verify --quick --bench
	@$(BUILD)/bin/varve bench --case all --kv 8192 --type-k f16,q8_0,q4_0 --seconds 5
	@exec $(PYTHON) bench/llama_bench.py --build $(BUILD) $(BENCH)

asan tsan:
	@$(SETUP) --test ggml
	@$(KEEP_OBJECTS) exec cmake -DPRESET=$@ -DSOURCE="$(CURDIR)" -DLLAMA="$(abspath $(BUILD)/llama)" -DJOBS=$(JOBS) -P cmake/sanitize.cmake

lint:
	@$(SETUP) --test ggml
	@$(COMPILE)
	@exec $(CTEST) -L lint

install: build
	@DESTDIR="$(DESTDIR)" cmake --install $(BUILD) --prefix "$(PREFIX)"

clean:
	rm -rf $(BUILD) build-asan build-tsan build-aarch64
