#!/bin/sh
# Goal:   a mixture of experts with exact zeros is prepared with a bank for each expert, inspected and verified; run and
#         plan divide a budget into Gates and neurons when asked, say so, and give the same text; else they say why not.
# Method: a tiny smallthinker model in budgets that hold a part of it, and all.
. "$(dirname "$0")/cli_support.sh"
tiny model architecture=smallthinker layers=6 embedding=512 head_dimension=64 feed_forward=768 \
    expert_feed_forward=768 experts=12 experts_used=2 expert_gating=2
model=$folder/model.gguf
cluster=$folder/model.pi2

# Single neurons of experts as small as these are no use by themselves: they are asked for.
expect 0 prepare -m "$model" -o "$folder/auto.pi2"
expect 0 inspect -m "$folder/auto.pi2" --json
expect_json bank_count 0
expect 0 prepare -m "$model" -o "$cluster" --layout neuron
expect 0 inspect -m "$cluster" --json --verify
expect_json bank_count 72
expect_json banks_left_out 0
expect_json verified true

ask="-c 128 -b 16 --raw -n 12 --temp 0 --ignore-eos --json"
expect 0 run -m "$model" $ask -p 'bako mirena' --sparsity off
text=$(json text)

# Everything fits: neurons are computed alone, and nothing was said about experts' slots.
expect 0 run -m "$cluster" $ask -p 'bako mirena' --memory 400M
expect_json text "$text"
[ "$(json io.neuron_uses)" -gt 0 ] || fail "no neuron was computed alone"
expect_json io.neuron_hits "$(json io.neuron_uses)"

# A sanitizer's own memory leaves nothing to divide.
if [ "${PI2_TEST_PRESET:-release}" != release ]; then
    finish
    exit 0
fi
budget=38M
expect 0 run -m "$cluster" $ask -p 'bako mirena' --memory $budget --sparsity always
expect_json text "$text"
[ "$(json io.neuron_uses)" -gt 0 ] || fail "no neuron was computed alone in $budget"
grep -q 'tokens compute single neurons: Gates of [0-9]* of 72 experts' "$folder/err" || fail "the division is not told"
expect 0 run -m "$cluster" $ask -p 'bako mirena' --memory $budget
expect_json text "$text"
expect_json io.neuron_uses 0
grep -q "experts are read whole: faster here" "$folder/err" || fail "it is not said why experts are whole"

have_profile
expect 0 plan -m "$cluster" -c 128 -b 16 -p 16 --memory $budget --sparsity always
for line in "expert weights .* of 72 experts, for prompts" "experts' Gates .*tokens use those of the experts" \
    'single neurons .* stay' 'neurons .*40.0 % of them for a token' ' *assumed: 40 % of the neurons' 'decode .*limited'; do
    grep -q "^$line" "$folder/out" || fail "the table has no $line"
done
grep -q 'more than the [0-9]* that memory holds' "$folder/out" && fail "it is said that a token's experts do not fit"
expect 0 plan -m "$cluster" -c 128 -b 16 -p 16 --memory $budget
grep -q '^expert weights .*, whole' "$folder/out" || fail "the plan does not say that experts are read whole"

finish
