#!/bin/sh
# Goal:   "simulate -m" takes a model's file through the stores as a run does: it reads and finds what a recorded run
#         read and found, and takes as long as the description says; what cannot be simulated is refused in a line.
# Method: small synthetic models; a run whose uses are recorded, simulated; a described device with round speeds.
. "$(dirname "$0")/cli_support.sh"

# describe NAME BYTES_PER_SECOND MORE: a device of which a read takes no longer than its bytes.
describe() {
    cat >"$folder/$1.json" <<JSON
{"name": "$1", "device": {"threads": 2, "cpu_bytes_per_second": $2, "sparse_efficiency": 1,
"reads": [[4096, 25000], [65536, 1600]], "sequential_bytes_per_second": 1e8 $3}}
JSON
}
# near A B SHARE: A is B, give or take a share of it.
near() {
    checks=$((checks + 1))
    echo "$1 $2 $3" | awk '{ d = $1 - $2; exit !($2 != "" && (d < 0 ? -d : d) <= $3 * $2) }' || fail "$1 is not $2 ($3)"
}

tiny dense layers=10 embedding=512 feed_forward=2048 heads=8 heads_kv=2 context=512 type=Q8_0
describe slow 1e8 ', "base_watts": 2, "memory_bytes": 900000000'
expect 0 simulate -m "$folder/dense.gguf" --device "$folder/slow.json" -c 128 -n 8 --json
cp "$folder/out" "$folder/first"
expect_json runs.0.bytes_per_token 0.0
expect_json runs.0.tokens 8.0
expect_json runs.0.budget_bytes 900000000.0
near "$(json runs.0.mean_ms)" "$(echo "$(json runs.0.resident_bytes)" | awk '{ print $1 / 1e5 }')" 0.1
near "$(json runs.0.joules_per_token)" "$(json runs.0.mean_ms | awk '{ print $1 * 0.002 }')" 0.001
expect 0 simulate -m "$folder/dense.gguf" --device "$folder/slow.json" -c 128 -n 8 --json
cmp -s "$folder/out" "$folder/first" || fail "twice is not the same"
expect 0 simulate -m "$folder/dense.gguf" --device "$folder/slow.json" "$folder/slow.json" -c 128 -n 8 --skip 2 --memory 1G
[ "$(grep -c '^slow  *1.00 GB' "$folder/out")" = 2 ] || fail "not two rows: $(cat "$folder/out")"

expect 0 synth --layers 3 --embedding 2048 --ffn 1024 --heads 8 --kv-heads 2 --head-dim 64 --vocab 1024 --type q8_0 \
    --ffn-activation relu -o "$folder/sparse.gguf" -q
expect 0 prepare -m "$folder/sparse.gguf" -o "$folder/sparse.pi2" --layout neuron -q
expect 0 run -m "$folder/sparse.pi2" --raw -p "bako mirena" -n 12 --temp 0 --ignore-eos -c 128 -b 16 \
    --record-trace "$folder/units"
describe disk 1e12 ', "memory_bytes": 900000000, "accelerator_bytes_per_second": 1e9'
expect 0 simulate -m "$folder/sparse.pi2" --device "$folder/disk.json" -c 128 --trace "$folder/units"
grep -q 'uses: recorded in .*units' "$folder/out" || fail "the trace is not named: $(cat "$folder/out")"
grep -q 'accelerator is not used' "$folder/out" || fail "nothing is said of the accelerator"
expect 0 simulate -m "$folder/sparse.pi2" --device "$folder/disk.json" -c 128 --json
expect_json runs.0.hit_share 1.0

# This machine's profile, and as a file of any machine's.
have_profile
expect 0 simulate -m "$folder/dense.gguf" --device profile -c 128 -n 4 --memory 1G --json
own=$(json runs.0.mean_ms)
expect 0 simulate -m "$folder/dense.gguf" --device "$XDG_CACHE_HOME/powerinfer2/machine.profile" -c 128 -n 4 --memory 1G \
    --json
expect_json runs.0.mean_ms "$own"

# ---- what is refused ----
cp "$folder/units" "$folder/trace"
describe nothing 1e12 ', "memory_bytes": 0.5'
expect_error 2 "how much memory" simulate -m "$folder/dense.gguf" --device "$folder/nothing.json" -c 128
expect_error 2 "how much memory" simulate -m "$folder/dense.gguf" --device "$XDG_CACHE_HOME/powerinfer2/machine.profile"
expect_error 2 "no description" simulate -m "$folder/dense.gguf"
expect_error 2 "statistics needs a model.s file" simulate --device "$folder/slow.json" --statistics x
expect_error 5 "No such file" simulate -m "$folder/none.gguf" --device "$folder/slow.json"
expect_error 2 "every token uses every weight" simulate -m "$folder/dense.gguf" --device "$folder/slow.json" -c 128 \
    --trace "$folder/units"
expect_error 5 "No such file" simulate -m "$folder/sparse.pi2" --device "$folder/disk.json" -c 128 --trace "$folder/none"
head -c 150 "$folder/units" >"$folder/cut"
expect_error 3 "cut: .* at byte" simulate -m "$folder/sparse.pi2" --device "$folder/disk.json" -c 128 --trace "$folder/cut"
printf '\377\377\377\200' | dd of="$folder/trace" bs=1 seek=32 conv=notrunc 2>/dev/null
expect_error 2 "at most 1048576 are simulated" simulate -m "$folder/sparse.pi2" --device "$folder/disk.json" -c 128 \
    --trace "$folder/trace"
printf '\007' | dd of="$folder/trace" bs=1 seek=12 conv=notrunc 2>/dev/null
expect_error 2 "a trace of single neurons of 3 layers" simulate -m "$folder/sparse.pi2" --device "$folder/disk.json" \
    -c 128 --trace "$folder/trace"
expect_error 2 "no token counts: 500 are skipped" simulate -m "$folder/sparse.pi2" --device "$folder/disk.json" -c 128 \
    --trace "$folder/units" --skip 500
# One pass of one token, whose second demand is of a layer before the first's.
le32() { # le32 NUMBER...: words of a trace
    for word in "$@"; do
        # shellcheck disable=SC2059
        for shift in 0 8 16 24; do printf "\\$(printf '%03o' $((word >> shift & 255)))"; done
    done
}
width=$(od -A n -t u4 -j 16 -N 4 "$folder/units" | tr -d ' ')
{
    head -c 32 "$folder/units"
    le32 $((0x80000001)) 1 $((2 * width)) 1 0
} >"$folder/descends"
expect_error 3 "descends: the layers of a pass do not ascend; record it again" simulate -m "$folder/sparse.pi2" \
    --device "$folder/disk.json" -c 128 --trace "$folder/descends"
{
    head -c 32 "$folder/units"
    le32 $((0x80000001)) 1 0 1 $((2 * width))
} >"$folder/ascends"
expect 0 simulate -m "$folder/sparse.pi2" --device "$folder/disk.json" -c 128 --trace "$folder/ascends"
if [ "${PI2_TEST_PRESET:-release}" != release ]; then finish; fi # a sanitizer's memory fits no budget

# ---- what does not fit ----
budget=22000000
while [ $budget -lt 60000000 ] && ! "$program" plan -m "$folder/dense.gguf" -c 128 -b 16 --memory $budget --json \
    >"$folder/plan" 2>/dev/null; do budget=$((budget + 1000000)); done
budget=$((budget + 4000000))
expect 0 plan -m "$folder/dense.gguf" -c 128 --memory $budget --json
streamed=$(json bytes_per_token)
expect 0 simulate -m "$folder/dense.gguf" --device "$folder/disk.json" -c 128 -n 100 --memory $budget --json
# A plan and a simulation hold different things beside the weights: up to a megabyte of what does not fit differs.
near "$(json runs.0.bytes_per_token)" "$streamed" 0.04
near "$(json runs.0.mean_ms)" "$(echo "$streamed" | awk '{ print $1 / 1e5 }')" 0.1

# Half of the neurons: what a run finds and reads is what its simulation does, by how near its neurons were to firing.
budget=20000000
while [ $budget -lt 60000000 ]; do
    "$program" plan -m "$folder/sparse.pi2" -c 128 -b 16 --memory $budget --json >"$folder/plan" 2>/dev/null &&
        grep -q '"neurons": {' "$folder/plan" && break
    budget=$((budget + 500000))
done
budget=$((budget + 2000000))
expect 0 run -m "$folder/sparse.pi2" --raw -p "bako mirena" -n 48 --temp 0 --ignore-eos -c 128 --memory $budget \
    --record-trace "$folder/units" --draft-max 0 --json
uses=$(json io.neuron_uses)
hits=$(echo "$(json io.neuron_hits) $uses" | awk '{ print $1 / $2 }')
expect 0 simulate -m "$folder/sparse.pi2" --device "$folder/disk.json" -c 128 --memory $budget --trace "$folder/units" --json
near "$(json runs.0.hit_share)" "$hits" 0.08
echo "$hits" | awk '{ exit !($1 < 0.97) }' || fail "everything was there: $hits"

# Experts: the same, by every policy's own code. A run counts its prompt too, which a simulation does not: hence many
# tokens, and a budget under which experts leave; one expert more or less of it is worth two hundredths.
expect 0 synth --layers 4 --experts 12 --experts-used 2 --embedding 256 --ffn 512 --vocab 1024 -o "$folder/experts.gguf" -q
expect 0 prepare -m "$folder/experts.gguf" -o "$folder/experts.pi2" -q
for policy in lru adaptive; do
    expect 0 run -m "$folder/experts.pi2" --raw -p "bako mirena" -n 120 --temp 0 --ignore-eos -c 128 -b 16 --memory 18M \
        --record-trace "$folder/chosen" --draft-max 0 --look-ahead off --cache-policy $policy --json
    hits=$(echo "$(json io.expert_hits) $(json io.expert_uses)" | awk '{ print $1 / $2 }')
    expect 0 simulate -m "$folder/experts.pi2" --device "$folder/disk.json" -c 128 --memory 18M --cache-policy $policy \
        --trace "$folder/chosen" --json
    near "$(json runs.0.hit_share)" "$hits" 0.08
    echo "$hits" | awk '{ exit !($1 < 0.95) }' || fail "no expert had to leave: $hits"
done
expect_error 2 "a trace of 4 layers with 2 of 12 experts was expected" simulate -m "$folder/experts.pi2" \
    --device "$folder/disk.json" -c 128 --memory 20M --trace "$folder/units"
finish
