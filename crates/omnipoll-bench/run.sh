#!/bin/sh
# Builds everything in release mode and prints every table of measurements.
#
#   run.sh [--quick]     three to four minutes; with --quick about one
#
# For figures worth writing down: an idle machine, and a user who may raise the descriptor limit
# (for 50,000 watched) and take a real-time priority. Python is measured where its package is
# installed: in .venv, or else in python3.
set -eu
cd "$(dirname "$0")/../.."
case "$*" in
'') rounds=41 ;;
--quick) rounds=11 ;;
*) echo "usage: run.sh [--quick]" >&2; exit 2 ;;
esac
programs=${CARGO_TARGET_DIR:-target}/release
bench=$programs/bench

cargo build --release --quiet -p omnipoll-bench -p omnipoll-capi
# Programs find the library by its soname, which the build gave it.
mkdir -p "$bench"
soname=$(readelf -d "$programs/libomnipoll_capi.so" | sed -n 's/.*soname: \[\(.*\)\]/\1/p')
cp "$programs/libomnipoll_capi.so" "$bench/$soname"
"${CC:-cc}" -O2 -std=gnu11 -Wall -Wextra -Iinclude crates/omnipoll-bench/c/readiness.c \
    -o "$bench/readiness" "$bench/$soname" -Wl,-rpath,'$ORIGIN'

others=
if pkg-config --exists libuv 2> /dev/null; then
    others="-DHAVE_LIBUV $(pkg-config --cflags --libs libuv)"
fi
if pkg-config --exists libevent_core 2> /dev/null; then
    others="$others -DHAVE_LIBEVENT $(pkg-config --cflags --libs libevent_core)"
fi
# shellcheck disable=SC2086
"${CC:-cc}" -O2 -std=gnu11 -Wall -Wextra -Iinclude crates/omnipoll-bench/c/timers.c \
    -o "$bench/timers" "$bench/$soname" -Wl,-rpath,'$ORIGIN' $others

uname -srm
"$bench/readiness" "$@"
echo
"$bench/timers" "$@"
for program in readiness registration timers wake memory; do
    echo
    "$programs/$program" "$@"
done
echo
crates/omnipoll-bench/count.sh

python=.venv/bin/python
[ -x $python ] || python=python3
for benchmark in python/benchmarks/*.py; do
    [ -e "$benchmark" ] || continue
    echo
    if $python -c 'import omnipoll' 2> /dev/null; then
        $python "$benchmark" --rounds $rounds
    else
        echo "$benchmark: not measured: there is no Python package omnipoll in $python (make python)"
    fi
done
