#!/bin/sh
# Goal:   plan predicts a mixture of experts: what of them stays, what a token reads, from an even
#         routing or from a recorded one; its plan file works; what does not fit is refused by name.
# Method: a small synthetic model with experts, in a budget that holds some of them.
. "$(dirname "$0")/cli_support.sh"
if [ "${PI2_TEST_PRESET:-release}" != release ]; then
    echo "SKIPPED: a sanitizer's memory fits no budget"
    exit 77
fi
experts="--architecture llama --layers 4 --embedding 512 --heads 8 --kv-heads 2 --head-dim 64 --experts-used 2
    --vocab 1024 --type q4_0 -q"
expect 0 synth $experts --experts 16 --ffn 1024 -o "$folder/m.gguf"
expect 0 synth $experts --experts 8 --ffn 1024 -o "$folder/other.gguf"
expect 0 prepare -m "$folder/m.gguf" -q
have_profile
model=$folder/m.gguf

budget=45000000
expect 0 plan -m "$model" -c 128 -b 32 -p 32 --memory $budget --json
for name in decode.tokens_per_second prefill.low experts.hit_rate time_to_first_token_ms; do
    expect_json "?$name" real
done
expect_json experts.experts 64
expect_json '?experts.routing_trace' null
slots=$(json experts.slots)
[ "$slots" -gt 4 ] && [ "$slots" -lt 60 ] || fail "$slots slots of 64"
expect_json experts.used_per_token 8
[ "$slots" -lt 8 ] || expect_json '?experts.note' null
even=$(json bytes_per_token)
[ "$even" -gt 500000 ] || fail "an even routing reads $even bytes a token"
expect 0 plan -m "$model" -c 128 -b 32 -p 32 --memory 400M --json
expect_json bytes_per_token 0
expect_json experts.slots 64
expect 0 plan -m "$model" -c 128 -b 32 -p 32 --memory $budget
for line in "expert weights .* [0-9]* of 64 experts" 'experts .*routing assumed' 'decode .*limited by'; do
    grep -q "^$line" "$folder/out" || fail "the table has no $line"
done

# Fewer experts in memory than one token uses: plan explains it before anything runs, and a run says the same.
small=$budget
while [ "$slots" -ge 7 ] && [ $small -gt 12000000 ]; do # 7 may be 8 in a run
    small=$((small - 1000000))
    expect 0 plan -m "$model" -c 128 -b 32 -p 32 --memory $small --json
    slots=$(json experts.slots)
done
[ "$slots" -lt 7 ] || fail "no budget leaves less than a token's experts: $slots slots at $small"
note=$(json experts.note)
case $note in "one token uses 8 experts ("*"more than the $slots that memory holds"*) ;; *) fail "the note: $note" ;; esac
expect 0 plan -m "$model" -c 128 -b 32 -p 32 --memory $small
grep -q "^  *one token uses 8 experts" "$folder/out" || fail "the table does not explain: $(cat "$folder/out")"
expect 0 run -m "$model" --memory $small --raw -p bako -n 1 -c 128 -b 32
grep -q "one token uses 8 experts" "$folder/err" || fail "the run does not explain: $(cat "$folder/err")"

# A recorded routing: what a run then reads is what was planned.
expect 0 run -m "$model" --memory $budget --raw -p 'bako mirena' -n 60 -c 128 -b 32 --temp 0 --ignore-eos --draft-max 0 --json \
    --record-trace "$folder/t"
actual=$(printf '%.0f' "$(json io.bytes_per_token)")
expect_json '?predicted.expert_hit_rate' real
expect 0 plan -m "$model" -c 128 -b 32 -p 32 --memory $budget --routing-trace "$folder/t" --json
cp "$folder/out" "$folder/plan.json"
expect_json experts.routing_trace "$folder/t"
expect 0 run -m "$model" --plan "$folder/plan.json" --raw -p 'bako mirena' -n 60 --temp 0 --ignore-eos --draft-max 0 --json
expect_json memory.budget_bytes $budget
planned=$(json predicted.bytes_per_token)
again=$(printf '%.0f' "$(json io.bytes_per_token)")
slack=$((again / 4 + 300000))
[ "$planned" -gt $((again - slack)) ] && [ "$planned" -lt $((again + slack)) ] ||
    fail "$again bytes a token ($actual recorded), planned were $planned"
expect 0 run -m "$model" --plan "$folder/plan.json" --raw -p bako -n 4 --temp 0 --ignore-eos
grep -q "^predicted .*experts in memory; routing recorded in $folder/t" "$folder/err" || fail "no routing told"
expect 0 bench -m "$model" --memory $budget -p 16 -n 8 -r 1 -b 32 -o json --routing-trace "$folder/t"
expect_json '?0.predicted_error' real
expect_json '?1.predicted_error' real
expect_json '?1.predicted_hit_rate' real


# Hot experts: the plan tells how many and why, a run with it has them, and the text is the same.
expect 0 run -m "$model" --memory $budget --raw -p 'bako mirena' -n 40 -c 128 -b 32 --temp 0 --ignore-eos
cp "$folder/out" "$folder/text"
expect 0 plan -m "$model" -c 128 -b 32 --memory $budget --routing-trace "$folder/t"
grep -q '^hot  *[0-9]* of the experts in memory; ' "$folder/out" || fail "the table tells of no hot experts"
expect 0 plan -m "$model" -c 128 -b 32 --memory $budget --routing-trace "$folder/t" --hot-share 0.5 --json
cp "$folder/out" "$folder/hot.json"
expect_json experts.hot_share 0.5
hot=$(json experts.hot) slots=$(json experts.slots)
[ "$hot" -gt 2 ] && [ "$hot" -lt "$slots" ] || fail "$hot of $slots experts are hot"
expect 0 run -m "$model" --plan "$folder/hot.json" --raw -p 'bako mirena' -n 40 --temp 0 --ignore-eos
cmp -s "$folder/out" "$folder/text" || fail "hot experts change the text"
grep -q '^hot experts: [1-9]' "$folder/err" || fail "no line on hot experts"
grep -q '^hot  .*of uses found them' "$folder/err" || fail "the report tells of no hot experts"
expect 0 run -m "$model" --plan "$folder/hot.json" --hot-share 0 --raw -p 'bako mirena' -n 4 --temp 0 --json
expect_json io.hot_hits 0
expect 0 run -m "$model" --memory $budget -c 128 -b 32 --routing-trace "$folder/t" --hot-share 0.5 --raw \
    -p 'bako mirena' -n 20 --temp 0 --ignore-eos --json --stats "$folder/stats"
[ "$(json io.hot_hits)" -gt 0 ] || fail "no hot expert was found"
head -1 "$folder/stats" | grep -q ',hot_experts,hot_hits,hot_promotions,hot_demotions,' || fail "no column of hot experts"
expect_error 2 "0.75 of the cache" plan -m "$model" --hot-share 0.9
sed 's/"hot_share": 0.5/"hot_share": 2/' "$folder/hot.json" >"$folder/changed.json"
expect_error 3 "'hot_share' is no number within" run -m "$model" --plan "$folder/changed.json" --raw -p bako -n 1

expect_error 3 "no trace of uses" plan -m "$model" --memory $budget --routing-trace "$model"
expect_error 5 "none" plan -m "$model" --memory $budget --routing-trace "$folder/none"
expect_error 2 "another model (4 layers of 16 experts" plan -m "$folder/other.gguf" --routing-trace "$folder/t"
expect_error 3 "another model" run -m "$folder/other.gguf" --plan "$folder/plan.json" --raw -p bako -n 1
sed 's/"expert_used_count": /&1/' "$folder/plan.json" >"$folder/changed.json"
expect_error 3 "its expert_used_count" run -m "$model" --plan "$folder/changed.json" --raw -p bako -n 1
rm "$folder/t"
expect 0 run -m "$model" --plan "$folder/plan.json" --raw -p bako -n 2
grep -q "predicted nothing: .*$folder/t" "$folder/err" || fail "a routing trace that is gone is not named"
grep -q "^no expert is hot by the plan's routing trace: $folder/t" "$folder/err" || fail "nothing tells that no expert is hot"
# What was asked for itself is an error: one that is gone, that is none, of another model, and of a model without experts.
expect_error 5 "$folder/t: No such file" run -m "$model" --routing-trace "$folder/t" --raw -p bako -n 2
expect_error 5 "$folder/t: No such file" bench -m "$model" --routing-trace "$folder/t" -p 4 -n 0 -r 1
expect_error 3 "no trace of uses" run -m "$model" --routing-trace "$model" --raw -p bako -n 2
tiny dense layers=1
expect_error 2 "dense.gguf has none" run -m "$folder/dense.gguf" --routing-trace "$model" --raw -p a -n 2
finish
