#!/bin/sh
# Runs suites of the core under a sanitizer, which needs a nightly toolchain.
#
#   sanitize.sh address     conformance, servers, processes, sources, strict mode, stress; the C tests
#   sanitize.sh thread      stress, and the servers whose workers are threads
#
# No report is suppressed. What the sanitizers can't see:
#
# - ThreadSanitizer does not follow a process that forks while it has threads: FORK, PREFORK and the
#   handlers that fork are left out. It sees no order in what io_uring's two sides write to the rings that they share, since
#   the kernel's side is not instrumented; the core's accesses to them are atomic. It has to see the
#   inside of the standard library's locks: the library is built with it (rust-src).
# - LeakSanitizer takes for leaked what belongs to threads that a forked child does not have, so
#   leaks are looked for by the fuzz targets and under valgrind instead.
set -eu
cd "$(dirname "$0")/../../.."
sanitizer=$1
skip() {
    echo "sanitize: skipped: $1"
    exit 0
}
rustup run nightly rustc --version > /dev/null 2>&1 || skip "rustup toolchain install nightly"
target=$(rustup run nightly rustc -vV | sed -n 's/^host: //p')
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/$sanitizer-sanitizer"
# A panic that a test is about would take longer to describe than the test may last.
export RUST_BACKTRACE=0
export RUSTFLAGS="-Zsanitizer=$sanitizer"
run() {
    cargo +nightly test --target "$target" -p omnipoll --no-fail-fast "$@"
}
case $sanitizer in
address)
    export ASAN_OPTIONS=detect_leaks=0
    run --test processes --test strict --test stress --test one_wait
    # Without memory the sanitizer itself ends.
    run --test conformance --test serve -- --skip without_memory
    # The C library as C programs use it. Its calls into the sanitizer are answered by the compiler's
    # own run-time library, which has the same interface.
    cargo +nightly build -p omnipoll-capi --target "$target"
    for source in crates/omnipoll-capi/tests/c/*.c; do
        name=$(basename "$source" .c)
        case $name in installed) continue ;; esac # it wants an installed library
        program="$CARGO_TARGET_DIR/$name"
        "${CC:-cc}" -fsanitize=address,undefined -fno-sanitize-recover=all -std=c11 -g -pthread -Iinclude \
            "$source" "$CARGO_TARGET_DIR/$target/debug/libomnipoll_capi.a" -lm -ldl -o "$program"
        "$program" > "$program.log" 2>&1 || { cat "$program.log"; echo "sanitize: $name failed"; exit 1; }
        echo "test result: ok. $(grep -c '^ok ' "$program.log") passed; 0 failed; $name.c"
    done
    ;;
thread)
    source=$(rustup run nightly rustc --print sysroot)/lib/rustlib/src/rust/library
    [ -d "$source" ] || skip "rustup component add rust-src --toolchain nightly"
    run -Zbuild-std --test stress
    # It does not follow what orders a signal handler in one thread and a close in another: atomics, as
    # source/signal/handler.rs says.
    run -Zbuild-std --test serve -- --skip without_memory --skip forking:: \
        --skip a_worker_waits_for_timers_descriptors_signals '[reactor, ' '[cores, ' '[thread, '
    ;;
*)
    echo "usage: sanitize.sh address|thread" >&2
    exit 2
    ;;
esac
