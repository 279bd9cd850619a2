#!/bin/sh
# Runs every fuzz target for a while under AddressSanitizer, beginning with its corpus. Needs a
# nightly toolchain and cargo-fuzz (cargo install cargo-fuzz).
#
#   run.sh [SECONDS [TARGET...]]     seconds for each target, 20 without
#
# What a target finds is left in crates/omnipoll-fuzz/artifacts, with a command that repeats it. To
# keep what a long run has reached:
#   cargo +nightly fuzz run --fuzz-dir . TARGET corpus/TARGET SCRATCH -- -set_cover_merge=1
set -eu
cd "$(dirname "$0")"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/../../target}/fuzz"
seconds=${1:-20}
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- calls loops addresses registry timers write_queue
found=0
for target in "$@"; do
    # What is reached goes into a folder of its own: the corpus in the tree is chosen by hand.
    scratch="$CARGO_TARGET_DIR/corpus/$target"
    mkdir -p "$scratch"
    if cargo +nightly fuzz run --fuzz-dir . "$target" "$scratch" "corpus/$target" -- \
        -max_total_time="$seconds" -max_len=2000 -timeout=60 -rss_limit_mb=4096 -print_final_stats=1 \
        > "$scratch.log" 2>&1; then
        echo "fuzz: $target: nothing in $(sed -n 's/^stat::number_of_executed_units: *//p' "$scratch.log") runs"
    else
        tail -n 60 "$scratch.log"
        echo "fuzz: $target: FAILED"
        found=$((found + 1))
    fi
done
echo "$(($# - found)) passed, $found failed"
exit $((found > 0))
