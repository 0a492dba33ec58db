#!/bin/sh
# Goal:   plan predicts a model in the neuron layout: a line for its neurons, their hit rate and reads; its plan file
#         keeps the sparsity; what a budget lacks for neurons, and statistics that cannot be used, are told in a line.
# Method: a tiny ReLU model whose Up and Down fit, fit in part, and do not.
. "$(dirname "$0")/cli_support.sh"
if [ "${PI2_TEST_PRESET:-release}" != release ]; then
    echo "SKIPPED: a sanitizer's memory fits no budget"
    exit 77
fi
tiny model layers=10 embedding=512 feed_forward=2048 heads=8 heads_kv=2 context=512 type=Q8_0 activation=relu
model=$folder/model.gguf
expect 0 prepare -m "$model" --layout neuron -q
have_profile

# All neurons fit: none is read. Four neurons share a page, so with 10 % that fire a token uses 34 % of the pages.
expect 0 plan -m "$model" -c 128 --memory 400M --json
expect_json bytes_per_token 0
expect_json neurons.units 5120
expect_json neurons.slots 5120
expect_json neurons.hit_rate 1.0
expect_json neurons.reads_per_token 0.0
expect_json neurons.share_used 0.10000000000000001
expect_json '?neurons.statistics' null
expect_json parameters.sparsity exact
expect 0 plan -m "$model" -c 128 --memory 400M
grep -q '^single neurons .* the budget holds all neurons$' "$folder/out" || fail "no line of neurons"

# The least budget in which tokens go by neuron, and one that holds some half of them.
budget=30000000
while [ $budget -lt 60000000 ]; do
    expect 0 plan -m "$model" -c 128 --memory $budget --json
    grep -q '"neurons": {' "$folder/out" && break
    budget=$((budget + 1000000))
done
less=$((budget - 2000000))
expect 0 plan -m "$model" -c 128 --memory $less
grep -q '^single neurons .* 0 B  the budget lacks [0-9.]* [kM]B for them: every token computes all neurons$' "$folder/out" ||
    fail "nothing tells what the budget lacks: $(cat "$folder/out")"
grep -q '^neurons ' "$folder/out" && fail "dense passes are predicted by neuron"
budget=$((budget + 5000000))
expect 0 plan -m "$model" -c 128 --memory $budget --json
cp "$folder/out" "$folder/plan.json"
# Few neurons fire often: a token finds more than the share that has slots, and the rest of its units is read.
echo "$(json neurons.slots) $(json neurons.hit_rate) $(json neurons.reads_per_token) $(json bytes_per_token)" | awk '
    function near(a, b, e) { return a - b < e && b - a < e }
    function hottest(share) { return 1 - (1 - share) ^ 4 }
    { for (i = 0; i < 64; i++) used += 80 * (1 - (1 - 0.1 * 64 * (hottest((i + 1) / 64) - hottest(i / 64))) ^ 4)
      exit !($1 > 1000 && $1 < 5120 && $2 > $1 / 5120 && $2 < 1 && near($3, used * (1 - $2), 1) &&
             near($4, $3 * 4096, 4096)) }' || fail "the neurons: $(json neurons), $(json bytes_per_token)"
expect 0 plan -m "$model" -c 128 --memory $budget
for line in 'single neurons .*those that fire most stay: [0-9.]* % of a token.s; the others are read' \
    'neurons  *10.0 % of them for a token; [0-9.]* % of those are found in memory, [0-9]* reads bring the rest' \
    '  *assumed: 10 % of the neurons, the hotter the fewer, as published'; do
    grep -q "^$line" "$folder/out" || fail "the plan has no '$line': $(cat "$folder/out")"
done
# A machine that was measured while it was busy may be so slow that no read counts; test_prediction has one that is not.
grep -q '^  *memory for all neurons (.*) *[0-9.]* tokens/s' "$folder/out" ||
    grep -q '^decode .* limited by: \(memory bandwidth\|compute\)$' "$folder/out" || fail "no advice: $(cat "$folder/out")"

# A run with the plan has its slots and predicts with it; one with sparsity off computes all neurons.
expect 0 run -m "$model" --plan "$folder/plan.json" --raw -p 'abc def ghi jkl' -n 4 --temp 0 --ignore-eos
grep -q '^predicted [0-9.]* % of a token.s neurons in memory, [0-9]* reads; assumed' "$folder/err" ||
    fail "no prediction of neurons: $(cat "$folder/err")"
grep -q '^neurons ' "$folder/err" || fail "the run does not go by neuron"
expect 0 run -m "$model" --plan "$folder/plan.json" --raw -p 'abc def ghi jkl' -n 4 --temp 0 --ignore-eos --json
expect_json '?predicted.neuron_hit_rate' real
expect_json '?predicted.neuron_reads' real
expect 0 bench -m "$model" -c 128 --memory $budget -p 0 -n 4 -r 1 -o json
expect_json '?0.predicted_hit_rate' real
expect 0 plan -m "$model" -c 128 --memory $budget --sparsity off --json
expect_json parameters.sparsity off
grep -q '"neurons"' "$folder/out" && fail "dense passes have neurons"
cp "$folder/out" "$folder/off.json"
expect 0 run -m "$model" --plan "$folder/off.json" --raw -p abc -n 4 --temp 0 --ignore-eos
grep -q '^neurons ' "$folder/err" && fail "the plan's sparsity is forgotten"

# Statistics.
expect_error 5 "$folder/absent" plan -m "$model" -c 128 --memory $budget --statistics "$folder/absent"
expect_error 3 "no statistics" plan -m "$model" -c 128 --memory $budget --statistics "$model"
expect_error 2 "statistics tell of single neurons" plan -m "$model" -c 128 --memory $budget --sparsity off \
    --statistics "$model"
expect 0 run -m "$model" --memory $budget -c 128 --raw -p abc -n 2 --statistics "$folder/absent"
grep -q "predicted nothing: .*$folder/absent" "$folder/err" || fail "statistics that are gone are not named"
finish
