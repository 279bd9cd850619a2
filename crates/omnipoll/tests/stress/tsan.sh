#!/bin/sh
# Runs the stress test under ThreadSanitizer, which needs a nightly toolchain and cc.
#
#   tsan.sh [NAME...]     the cases whose names contain one of these; all without
#
# The standard library comes compiled without the sanitizer. Nearly all that matters of it is
# generic or inlined, and thereby compiled here, with it. One function is not: the slow path of
# Mutex::lock, so that two threads who meet at a lock would seem to race for what it guards. The
# linker puts a function around it that tells the sanitizer what it does: acquire the lock.
# No report is suppressed.
set -eu
cd "$(dirname "$0")/../../../.."
if ! rustup run nightly rustc --version > /dev/null 2>&1; then
    echo "tsan: skipped: there is no nightly toolchain (rustup toolchain install nightly)"
    exit 0
fi
target=$(rustup run nightly rustc -vV | sed -n 's/^host: //p')
library=$(rustup run nightly rustc --print sysroot)/lib/rustlib/$target/lib
out=${CARGO_TARGET_DIR:-target}/tsan
mkdir -p "$out"
out=$(cd "$out" && pwd)

slow_path=$(grep -aoh '_RNvMNtNtNtNtCs[A-Za-z0-9]*_3std3sys4sync5mutex5futexNtB2_5Mutex14lock_contended' \
    "$library"/libstd-*.rlib | head -n 1)
if [ -z "$slow_path" ]; then
    echo "tsan: this nightly's Mutex is not the one this script knows: see the comment in it" >&2
    exit 1
fi
cat > "$out/mutex.c" << EOF
void __tsan_acquire(void *address);
void __real_$slow_path(void *mutex);
void __wrap_$slow_path(void *mutex) {
    __real_$slow_path(mutex);
    __tsan_acquire(mutex);
}
EOF
"${CC:-cc}" -O1 -c "$out/mutex.c" -o "$out/mutex.o"

export CARGO_TARGET_DIR="$out"
export RUSTFLAGS="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer \
-Clink-arg=$out/mutex.o -Clink-arg=-Wl,--wrap=$slow_path"
program=$(cargo +nightly test --target "$target" -p omnipoll --test stress --no-run 2>&1 | tee /dev/stderr |
    sed -n 's/^ *Executable .*(\(.*\))$/\1/p')
# Each case by itself, without the harness around it.
"$program" --list "$@" | sed 's/: test$//' > "$out/cases"
failed=0
while read -r name; do
    if timeout --kill-after=10 120 "$program" --inside "$name" < /dev/null; then
        echo "tsan: $name: no race"
    else
        echo "tsan: $name: FAILED with status $?"
        failed=$((failed + 1))
    fi
done < "$out/cases"
passed=$(($(wc -l < "$out/cases") - failed))
echo "test result: under ThreadSanitizer $passed passed; $failed failed; no report was suppressed"
exit $((failed > 0))
