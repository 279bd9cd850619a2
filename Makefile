# The words a C programmer types. `make help` lists them.
#
# Needs a Rust toolchain (rustup.rs), cc and python3; whatever else the tests use goes into
# .venv, in this tree. Everything built is under target/.

CARGO ?= cargo
PYTHON ?= python3
CLIENTS ?= 300

.DEFAULT_GOAL := all
.PHONY: all library examples python demo test bench clean help

all: library examples python  ## Build everything: the C library, the C examples, the Python package

# ---- Building ------------------------------------------------------------------------------

library:  ## Build the C library into target/release, as libomnipoll_capi.so and .a
	@$(CARGO) build --release --quiet -p omnipoll-capi

examples: library  ## Build the C examples into target/examples
	@$(MAKE) --silent -C c-examples BUILD=../target/examples

VENV := .venv/bin/python

python: $(VENV)  ## Build the Python package and install it into .venv
	@$(VENV) -m pip install --quiet --no-build-isolation ./python

# A virtual environment with the tools of python/requirements-dev.txt.
$(VENV): python/requirements-dev.txt .ci/venv.py
	@$(PYTHON) .ci/venv.py .venv -r python/requirements-dev.txt
	@touch $@

# ---- Running -------------------------------------------------------------------------------

demo: all  ## Serve a few hundred real clients on each engine, and print a table
	@$(PYTHON) c-examples/demo.py --clients $(CLIENTS)

test: $(VENV)  ## Run every check and test there is; STEPS="c python" runs some of them
	@$(PYTHON) .ci/test.py $(STEPS)

bench: library  ## Measure, side by side with loops written straight on the system calls
	@crates/omnipoll-bench/run.sh

clean:  ## Remove everything built
	rm -rf target .venv

help:  ## Say this
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# ---- The C library: install, header, checks ---------------------------------------------------
