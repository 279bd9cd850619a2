# The words a C programmer types. `make help` lists them.
#
# Needs a Rust toolchain (rustup.rs), cc and python3; whatever else the tests use goes into
# .venv, in this tree. Everything built is under target/.

PREFIX ?= /usr/local
CARGO ?= cargo
PYTHON ?= python3
CC ?= cc
CFLAGS ?= -O2

.DEFAULT_GOAL := all
.PHONY: all library examples python demo test bench clean help

all: library examples python  ## Build everything: the C library, the C examples, the Python package

# ---- Building ------------------------------------------------------------------------------

# The library as a program finds it: under its own names, in one folder.
BUILT := $(CURDIR)/target/lib
RELEASE := target/release/libomnipoll_capi

library:  ## Build libomnipoll.so and libomnipoll.a into target/lib
	$(CARGO) build --release --quiet -p omnipoll-capi
	@mkdir -p $(BUILT)
	@cp -u $(RELEASE).so $(BUILT)/libomnipoll.so.0
	@cp -u $(RELEASE).a $(BUILT)/libomnipoll.a
	@ln -sf libomnipoll.so.0 $(BUILT)/libomnipoll.so

EXAMPLES := $(patsubst c-examples/%.c,target/examples/%,$(wildcard c-examples/*.c))

examples: $(EXAMPLES)  ## Build the C examples into target/examples

target/examples/%: c-examples/%.c include/omnipoll.h | library
	@mkdir -p $(@D)
	$(CC) -std=c11 $(CFLAGS) -Wall -Wextra -Iinclude -o $@ $< \
	    -L$(BUILT) -Wl,-rpath,$(BUILT) -lomnipoll -pthread

VENV := .venv/bin/python

python: $(VENV)  ## Build the Python package and install it into .venv
	@$(VENV) -m pip install --quiet ./python

# A virtual environment with the tools of python/requirements-dev.txt.
$(VENV): python/requirements-dev.txt .ci/venv
	@$(PYTHON) .ci/venv .venv -r python/requirements-dev.txt
	@touch $@

# ---- Running -------------------------------------------------------------------------------

demo: all  ## Serve a few hundred real clients on each engine, and print a table
	@$(PYTHON) c-examples/demo.py

test: $(VENV)  ## Run every check and test there is; STEPS="python readme" runs some of them
	@$(PYTHON) .ci/test $(STEPS)

bench: library  ## Measure, side by side with loops written straight on the system calls
	@crates/omnipoll-bench/run.sh

clean:  ## Remove everything built
	rm -rf target .venv

help:  ## Say this
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'

# ---- The C library: install, header, checks ---------------------------------------------------
