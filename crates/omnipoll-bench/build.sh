#!/bin/bash
# Prints what a program takes on that depends on omnipoll, mio or polling: how many crates Cargo builds
# for it, and how long a clean debug build of them takes, by the clock and on the processors. The builds
# take turns; each time is the least of ROUNDS (3).
set -eu
cd "$(dirname "$0")/../.."
omnipoll="path = \"$PWD/crates/omnipoll\""
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

declare -A dependency=(
    ["omnipoll"]="omnipoll = { $omnipoll }"
    ["omnipoll, io-uring"]="omnipoll = { $omnipoll, default-features = false, features = [\"io-uring\"] }"
    ["omnipoll, a poller alone"]="omnipoll = { $omnipoll, default-features = false }"
    ["mio"]='mio = { version = "1", features = ["os-poll", "os-ext", "net"] }'
    ["polling"]='polling = "3"'
)
names=("omnipoll" "omnipoll, io-uring" "omnipoll, a poller alone" "mio" "polling")

for name in "${names[@]}"; do
    mkdir -p "$work/$name/src"
    printf '[package]\nname = "one"\nedition = "2021"\n[dependencies]\n%s\n[workspace]\n' \
        "${dependency[$name]}" > "$work/$name/Cargo.toml"
    echo 'fn main() {}' > "$work/$name/src/main.rs"
    cargo fetch --quiet --manifest-path "$work/$name/Cargo.toml"
done

declare -A least cpu
TIMEFORMAT='%R %U %S'
for _ in $(seq "${ROUNDS:-3}"); do
    for name in "${names[@]}"; do
        rm -rf "$work/target"
        spent=$({ time cargo build --quiet --offline --manifest-path "$work/$name/Cargo.toml" \
            --target-dir "$work/target"; } 2>&1)
        read -r real user system <<< "$spent"
        least[$name]=$(printf '%s\n' "$real" ${least[$name]:-} | sort -n | head -1)
        cpu[$name]=$(echo "$user $system" ${cpu[$name]:-} | awk '{ now = $1 + $2; print (NF > 2 && $3 < now ? $3 : now) }')
    done
done

printf '%-26s %6s %8s %12s\n' '' crates seconds 'CPU seconds'
for name in "${names[@]}"; do
    crates=$(cargo tree --offline --manifest-path "$work/$name/Cargo.toml" --prefix none --edges normal,build |
        sed 's/ (\*)$//' | sort -u | grep -vc '^one ')
    printf '%-26s %6s %8.1f %12.1f\n' "$name" "$crates" "${least[$name]}" "${cpu[$name]}"
done
