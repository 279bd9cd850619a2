#!/bin/sh
# Prints what one wait takes: its system calls (by strace) and its instructions in user space
# (by valgrind's callgrind). Each is the difference between 1,000 and 2,000 waits, so that
# nothing but waits is counted. `make bench` builds the programs.
set -eu
cd "$(dirname "$0")/../.."
programs=${CARGO_TARGET_DIR:-target}/release
bench=target/bench
engines=$("$bench/watch_c" 1 1 0 1 | sed -n 's/.*"omnipoll \([a-z_]*\), C".*/\1/p')

for tool in strace valgrind; do
    command -v $tool > /dev/null || { echo "count.sh: not counted: there is no $tool"; exit 0; }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# calls COMMAND...: how often each system call was made, and "name count" lines of it
calls() {
    strace -f -qq -e signal=none -o "$work/trace" "$@"
    sed 's/^[0-9]* *//; s/(.*//' "$work/trace" | sort | uniq -c
}

# calls_per_wait COMMAND...: without the number of waits, which comes last
calls_per_wait() {
    calls "$@" 1000 > "$work/less"
    calls "$@" 2000 > "$work/more"
    awk 'NR == FNR { less[$2] = $1; next }
         $1 != less[$2] { printf "%s%s %g", separator, $2, ($1 - less[$2]) / 1000; separator = ", " }' \
        "$work/less" "$work/more"
}

instructions() {
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$@" 2>&1 | awk '/Collected/ { print $NF }'
}

instructions_per_wait() {
    echo $((($(instructions "$@" 2000) - $(instructions "$@" 1000)) / 1000))
}

# row WORDS COMMAND...
row() {
    words=$1
    shift
    printf '%-26s %6s %14s   %s\n' "$words" "$ready" "$(instructions_per_wait "$@")" "$(calls_per_wait "$@")"
}

printf 'One wait, 200 watched, nothing read\n\n'
printf '%-26s %6s %14s   %s\n' '' ready instructions 'system calls'
for ready in 1 100; do
    for contender in epoll poll select; do
        row "raw $contender, C" "$bench/watch_c" count "raw $contender, C" 200 $ready
    done
    for engine in $engines; do
        row "omnipoll $engine, C" "$bench/watch_c" count "omnipoll $engine, C" 200 $ready
    done
    for contender in 'raw epoll' polling $(printf 'omnipoll_%s ' $engines); do
        name="$(echo "$contender" | tr _ ' '), Rust"
        row "$name" "$programs/watch" count "$name" 200 $ready
    done
done
