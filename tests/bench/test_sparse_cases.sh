#!/bin/sh
# Goal:   the cases of sparse models and the paper's ablation can be run, from making the model to the file of results.
# Method: one round of the tiny model's cases under its memory group, without llama.cpp; every step that the program
#         knows has a record, and one that it does not know is left out by name.
set -eu
root=${1:?usage: test_sparse_cases.sh SOURCE_FOLDER PROGRAM}
program=${2:?usage: test_sparse_cases.sh SOURCE_FOLDER PROGRAM}
skip() {
    echo "SKIPPED: $1"
    exit 77
}
[ "${PI2_TEST_PRESET:-release}" = release ] || skip "a sanitizer's memory fits no budget"
[ "$(id -u)" = 0 ] || skip "bench/compare needs root"
for command in python3 debootstrap fio npm losetup gnuplot mkfs.ext4; do
    command -v $command >/dev/null || skip "bench/compare needs $command"
done
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -B -c "
import sys
sys.path.insert(0, '$root/bench')
from comparison import machine
with open('$folder/probe', 'wb') as file:
    file.write(bytes(1 << 22))
try:
    group = machine.MemoryGroup('powerinfer2-test-$$')
    group.limit(26_000_000)
    group.remove()
    machine.disk_bandwidth('$folder/probe', 1)
except (OSError, machine.CommandFailed) as error:
    sys.exit(f'no memory group, or no fio with io_uring here: {error}')" 2>"$folder/why" || skip "$(tail -1 "$folder/why")"

compare() {
    env XDG_CACHE_HOME="$folder" python3 -B "$root/bench/compare" --program "$program" --cache "$folder" \
        --output "$folder/results" --name tiny --runs 1 --probe-seconds 1 --no-device --only-ours "$@" \
        >"$folder/out" 2>&1 || {
        cat "$folder/out"
        exit 1
    }
}
compare --case sparse-tiny-memory --case sparse-tiny-half
grep -q 'sparse-tiny-half: greedy text: equal over 10 tokens' "$folder/out" || {
    cat "$folder/out"
    exit 1
}
compare --ablation sparse-tiny-half
cat "$folder/out"
"$program" bench --help >"$folder/help"
python3 -B - "$folder" "$root/bench" <<'END'
import os
import sys

folder, bench = sys.argv[1:]
sys.path.insert(0, bench)
from comparison import ablation, results

place = os.path.join(folder, "results", "tiny")
measured = {}
for name in ("sparse-tiny-memory", "sparse-tiny-half", "sparse-tiny-half-ablation"):
    run = results.load(os.path.join(place, name + ".json"))
    measured[name] = run["results"][0]["engines"]
    for engine, found in measured[name].items():
        outcomes = [record["outcome"] for record in found["records"]]
        # Neurons that one token may want beside a predictor are more than half of so small a model.
        why = str(found["records"])
        is_small = "predictor" in engine and ("the budget lacks" in why or "needs at least" in why)
        assert outcomes == ["ok"] or is_small, (name, engine, found["records"])
with open(os.path.join(folder, "help"), encoding="utf-8") as file:
    steps, left_out = ablation.steps(file.read(), ablation.PREDICTOR_KINDS[:-1])  # the file carries none of its own
assert sorted(measured["sparse-tiny-half-ablation"]) == sorted(name for name, _ in steps), measured
with open(os.path.join(folder, "out"), encoding="utf-8") as file:
    printed = file.read()
for name, missing in left_out:
    assert f"left out: {name}: this program has no {missing[0]}" in printed, name
assert len(steps) + len(left_out) == len(ablation.STEPS) + len(ablation.PREDICTED)
END
