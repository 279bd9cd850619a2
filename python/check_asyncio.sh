#!/bin/sh
# CPython's own tests of asyncio on our event loop, on each interpreter that this machine has.
set -eu

cd "$(dirname "$0")"
PATH="$PWD/../.venv/bin:$PATH"
unset PYTHONPATH

wheels=$PWD/../target/wheels/asyncio
rm -rf "$wheels"
python -m pip wheel --quiet --no-build-isolation --no-deps --wheel-dir "$wheels" .

cd tests
python all_versions.py "$wheels"/*.whl asyncio_conformance
