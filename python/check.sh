#!/bin/sh
# Every check of the Python package: lint, types, stubs, and the tests on each interpreter that
# this machine has. Its tools are those of requirements-dev.txt, in .venv or on PATH.
set -eu

cd "$(dirname "$0")"
PATH="$PWD/../.venv/bin:$PATH"
unset PYTHONPATH

ruff check .
ruff format --check .
mypy omnipoll tests benchmarks examples

# One wheel for every version.
wheels=$PWD/../target/wheels/python
rm -rf "$wheels"
python -m pip wheel --quiet --no-build-isolation --no-deps --wheel-dir "$wheels" .
python -m pip install --quiet --force-reinstall --no-deps --no-index "$wheels"/*.whl

# From a folder without the sources, so that it is the installed package that is checked.
cd tests
python -m mypy.stubtest omnipoll --mypy-config-file ../pyproject.toml --allowlist ../stubtest.txt
python all_versions.py "$wheels"/*.whl
