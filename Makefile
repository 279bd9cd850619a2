# The targets; `make help` lists them.
#
# Needs a Rust toolchain (rustup.rs), cc and python3; whatever else the tests use goes into
# .venv, in this tree. Everything built is under target/.

CARGO ?= cargo
PYTHON ?= python3
CLIENTS ?= 300

.DEFAULT_GOAL := all
.PHONY: all library examples python wheels demo test test-all programs asan tsan miri fuzz bench bench-asyncio clean help

all: library examples python  ## Build everything: the C library, the C examples, the Python package

# ---- Building ------------------------------------------------------------------------------

library:  ## Build the C library: target/release/libomnipoll_capi.a, target/capi/libomnipoll.so.VERSION
	@echo "building the C library"
	@$(CARGO) build --release --quiet -p omnipoll-capi
	@$(MAKE) --silent target/capi/libomnipoll.so.$(VERSION)

examples: library  ## Build the C examples into target/examples
	@echo "building the C examples"
	@$(MAKE) --silent -C c-examples BUILD=../target/examples

VENV := .venv/bin/python

python: $(VENV)  ## Build the Python package and install it into .venv
	@echo "building the Python package"
	@PATH="$(CURDIR)/.venv/bin:$$PATH" python -m pip install --quiet --no-build-isolation ./python

# A virtual environment with the tools of python/requirements-dev.txt.
$(VENV): python/requirements-dev.txt .ci/environment.py
	@echo "making .venv"
	@$(PYTHON) .ci/environment.py .venv -r python/requirements-dev.txt
	@touch $@

# ---- Running -------------------------------------------------------------------------------

# For every Linux of a processor and a C library, by zig's linker, which knows each glibc since 2.17 and musl.
WHEELS ?= $(foreach machine,x86_64 aarch64,$(foreach library,gnu musl,$(machine)-unknown-linux-$(library)))
WHEELS_IN := target/wheels/release

wheels: $(VENV)  ## Build the Python wheels that are published, and the sdist, into target/wheels/release
	@rm -rf $(WHEELS_IN)
	@rustup target add $(WHEELS)
	@$(VENV) -m pip install --quiet -r python/requirements-wheels.txt
	@for target in $(WHEELS); do \
	    PATH="$(CURDIR)/.venv/bin:$$PATH" maturin build --quiet --release --zig --manifest-path crates/omnipoll-python/Cargo.toml \
	        --target $$target --out $(WHEELS_IN) || exit 1; done
	@cd python && PATH="$(CURDIR)/.venv/bin:$$PATH" maturin sdist --quiet --out ../$(WHEELS_IN)

demo: all  ## Serve a few hundred real clients on each engine, and print a table
	@$(PYTHON) c-examples/demo.py --clients $(CLIENTS)

test: $(VENV)  ## Run the checks and tests; STEPS="c python" runs some of them
	@$(PYTHON) .ci/test.py $(STEPS)

test-all: $(VENV)  ## Run them all: with sanitizers, Miri, fuzzing, other packages' suites, every Python
	@$(PYTHON) .ci/test.py --all

PROGRAMS := target/programs/bin/python

programs: $(PROGRAMS) $(VENV)  ## Run other projects' programs on the asyncio loop; OPTIONS="--loop uvloop -k redis"
	@rm -rf target/wheels/programs
	@PATH="$(CURDIR)/.venv/bin:$$PATH" python -m pip wheel --quiet --no-build-isolation --no-deps \
	    --wheel-dir target/wheels/programs ./python
	@$(PROGRAMS) -m pip install --quiet --force-reinstall --no-deps --no-index target/wheels/programs/*.whl
	@$(PROGRAMS) -m pytest -q -p no:cacheprovider -p no:asyncio python/programs $(OPTIONS)

$(PROGRAMS): python/requirements-programs.txt .ci/environment.py
	@echo "making target/programs"
	@$(PYTHON) .ci/environment.py target/programs -r python/requirements-programs.txt
	@touch $@

asan:  ## Run the suites and the C tests under AddressSanitizer (needs a nightly toolchain)
	@crates/omnipoll/tests/sanitize.sh address

tsan:  ## Run the stress test and the servers under ThreadSanitizer (nightly, rust-src)
	@crates/omnipoll/tests/sanitize.sh thread

miri:  ## Run handles, registry, timers and keys under Miri (nightly, miri)
	@MIRIFLAGS=-Zmiri-disable-isolation $(CARGO) +nightly miri test -p omnipoll --lib -- fuzzing key
	@MIRIFLAGS=-Zmiri-ignore-leaks $(CARGO) +nightly miri test -p omnipoll-capi --lib handle

fuzz:  ## Run each fuzz target for SECONDS=20 (nightly, cargo-fuzz)
	@crates/omnipoll-fuzz/run.sh $(or $(SECONDS),20)

bench: library python  ## Compare with other libraries and write docs/race.md (20 minutes; OPTIONS=--quick 4)
	@$(PYTHON) crates/omnipoll-bench/race $(OPTIONS)
	@$(MAKE) --silent bench-asyncio OPTIONS=

bench-asyncio: $(VENV)  ## Compare event loops of asyncio and write docs/asyncio.md (6 minutes; OPTIONS="--pythons ...")
	@$(PYTHON) crates/omnipoll-bench/race/loops.py $(OPTIONS)

clean:  ## Remove everything built
	rm -rf target .venv

help:  ## Say this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# ---- The C library: install, header, checks ---------------------------------------------------

.PHONY: header check

include crates/omnipoll-capi/package/install.mk

header:  ## Generate include/omnipoll.h from the sources
	@UPDATE_HEADER=1 $(CARGO) test --quiet -p omnipoll-capi --test capi header::the_committed

# Tests whose tool is not here are passed over, but never with CI=true.
ifneq ($(CI),true)
PASSED_OVER := $(if $(shell command -v pkg-config),,a_program_links) \
               $(if $(shell command -v $(CXX)),,the_header_compiles_alone) \
               $(if $(shell command -v valgrind),,valgrind_finds_nothing) \
               $(if $(shell command -v cmake),,cmake_finds) \
               $(if $(shell command -v mandoc),,the_manual)
endif

check:  ## Check the C library: header, binary interface, contract, installation
	@$(CARGO) test --quiet -p omnipoll-capi $(if $(strip $(PASSED_OVER)),-- $(PASSED_OVER:%=--skip %))
