#!/bin/sh
# fuzz.sh: runs every fuzz target for $FUZZ_SECONDS; a crash leaves its input in build-fuzz. $FUZZ_SEED: the number
# that all chance begins with, so that a run finds what it found before; not given: another each time.
set -eu
cd "$(dirname "$0")/.."
seconds=${FUZZ_SECONDS:-60}
seed=${FUZZ_SEED:-0} # 0: libFuzzer chooses one
passed=0
failed=0
for target in build-fuzz/tests/fuzz_*; do
    [ -f "$target" ] && [ -x "$target" ] || continue
    name=$(basename "$target")
    corpus=build-fuzz/corpus/$name
    seeds=tests/fuzz/seeds/${name#fuzz_}
    [ -d "$seeds" ] || seeds=''
    mkdir -p "$corpus"
    echo "fuzz.sh: $name for $seconds s"
    # A cap on memory and on the time of one input finds the slow and the greedy too.
    # shellcheck disable=SC2086 # no seeds, no argument
    if timeout $((seconds + 60)) "$target" -max_total_time="$seconds" -seed="$seed" -timeout=10 \
        -rss_limit_mb=2048 -malloc_limit_mb=1024 -max_len=65536 -print_final_stats=1 \
        -artifact_prefix="build-fuzz/crash-$name-" "$corpus" $seeds \
        >"build-fuzz/$name.log" 2>&1; then
        passed=$((passed + 1))
        echo "fuzz: $name passed"
        grep -E 'number_of_executed_units' "build-fuzz/$name.log" || true
    else
        failed=$((failed + 1))
        tail -40 "build-fuzz/$name.log"
        echo "fuzz: $name failed, its input is build-fuzz/crash-$name-*"
    fi
done
if [ $((passed + failed)) = 0 ]; then
    echo "fuzz.sh: no fuzz target was built" >&2
    exit 1
fi
echo "fuzz.sh: $passed targets passed, $failed failed"
[ "$failed" = 0 ]
