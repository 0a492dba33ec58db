#!/bin/sh
# Goal:   a run of a mixture of experts records its uses, as a whole or not at all, within a budget
#         that holds only some of them, and gives the text of a run in memory under every policy;
#         "cache-replay" reads the record, and refuses what is none.
# Method: a small synthetic model with experts.
. "$(dirname "$0")/cli_support.sh"
if [ "${PI2_TEST_PRESET:-release}" != release ]; then
    echo "SKIPPED: a sanitizer's memory fits no budget"
    exit 77
fi

expect 0 synth --architecture qwen3moe --layers 3 --embedding 512 --heads 8 --kv-heads 4 --head-dim 64 \
    --experts 16 --experts-used 3 --expert-ffn 512 --vocab 1024 --type q4_0 -o "$folder/m.gguf" -q
expect 0 run -m "$folder/m.gguf" -p "bako mirena" -n 12 --temp 0 --ignore-eos -c 128 --memory 300M
cp "$folder/out" "$folder/whole"
# Below one layer's experts: refused with what is needed, which is enough.
expect_error 4 "needs at least" run -m "$folder/m.gguf" -p x -c 128 -b 16 --memory 10M
needed=$(sed -n 's/.* needs at least \([0-9.]*\) MB.*/\1/p' "$folder/err")
expect 0 run -m "$folder/m.gguf" -p x -n 2 -c 128 -b 16 --memory "${needed}M" -q
rm -f "$folder/m.pi2"

# A trace that cannot be made is refused before a cluster file is.
expect 0 synth --layers 4 --embedding 512 --ffn 2048 --heads 8 --kv-heads 4 --head-dim 64 --vocab 1024 --type q8_0 \
    -o "$folder/dense.gguf" -q
expect_error 2 "dense.gguf has none" run -m "$folder/dense.gguf" -p x -c 128 -b 16 --memory 22M --record-trace "$folder/t"
expect_error 5 "no such folder" run -m "$folder/m.gguf" -p x -c 128 -b 16 --memory 22M \
    --record-trace "$folder/no such folder/t"
[ -z "$(find "$folder" -mindepth 1 -name '*.pi2' -o -name 't*')" ] || fail "a run that was refused left $(ls "$folder")"
for policy in auto lru lfu lrfu s3_fifo keep mix heat; do
    expect 0 run -m "$folder/m.gguf" -p "bako mirena" -n 12 --temp 0 --ignore-eos -c 128 -b 16 --memory 22M \
        --cache-policy $policy --record-trace "$folder/t"
    grep -q 'expert cache: [0-9]* of 48 experts' "$folder/err" || { fail "no line on the cache"; cat "$folder/err"; }
    cmp -s "$folder/out" "$folder/whole" || fail "$policy gives another text"
done
[ -e "$folder/.t.tmp" ] && fail "a temporary file is left"
cp "$folder/t" "$folder/older"
expect 0 run -m "$folder/m.pi2" -p "bako mirena" -n 12 --temp 0 --ignore-eos -c 128 -b 16 --record-trace "$folder/t"
cmp -s "$folder/t" "$folder/older" || fail "the cluster file's trace is not the model's"

# A run that is refused, or killed, leaves an older trace as it was.
long=$(printf '%4000s' '' | sed 's/ /bako /g')
expect_error 2 "context" run -m "$folder/m.gguf" -p "$long" -n 4 -c 128 --record-trace "$folder/t"
cmp -s "$folder/t" "$folder/older" || fail "a run that was refused replaced a trace"
[ -e "$folder/.t.tmp" ] && fail "a run that was refused left a temporary file"
"$program" run -m "$folder/m.gguf" -p "bako mirena" -n 30000 --ignore-eos -c 32768 --record-trace "$folder/t" \
    >"$folder/out" 2>"$folder/err" </dev/null &
running=$!
waited=0 # a minute for the first tokens
while [ ! -s "$folder/.t.tmp" ] && [ $waited -lt 600 ]; do
    sleep 0.1
    waited=$((waited + 1))
done
kill -9 $running
wait $running 2>/dev/null
checks=$((checks + 1))
[ -s "$folder/.t.tmp" ] || fail "the run that was killed did not record"
cmp -s "$folder/t" "$folder/older" || fail "a run that was killed replaced a trace"
# A pipe is written directly.
mkfifo "$folder/pipe"
cat "$folder/pipe" >"$folder/piped" &
expect 0 run -m "$folder/m.gguf" -p "bako mirena" -n 12 --temp 0 --ignore-eos -c 128 -b 16 --record-trace "$folder/pipe"
wait $!
cmp -s "$folder/piped" "$folder/older" || fail "a pipe got another trace"
# One that cannot be written whole ends the run with an error, after its answer.
if [ -e /dev/full ]; then
    expect 5 run -m "$folder/m.gguf" -p "bako mirena" -n 12 --temp 0 --ignore-eos -c 128 --record-trace /dev/full
    grep -q '^powerinfer2: .*/dev/full' "$folder/err" || fail "the error names no file"
    cmp -s "$folder/out" "$folder/whole" || fail "a trace that cannot be written changes the answer"
    expect 5 bench -m "$folder/m.gguf" -p 4 -n 0 -r 1 -q --record-trace /dev/full
    yes 'bako mirena' | head -n 40 >"$folder/text"
    expect 5 perplexity -m "$folder/m.gguf" -f "$folder/text" -c 16 -q --record-trace /dev/full
fi

expect_error 2 "cache-policy" run -m "$folder/m.gguf" -p x --cache-policy fifo
expect_error 2 "no trace" cache-replay
expect_error 2 "no size\|no number" cache-replay --trace "$folder/t" --sizes 4x
expect_error 2 "holds none" cache-replay --trace "$folder/t" --sizes 1K
expect_error 3 "no trace of uses" cache-replay --trace "$folder/m.gguf"
expect_error 5 "No such file" cache-replay --trace "$folder/none"
head -c 150 "$folder/t" >"$folder/cut"
expect_error 3 "no whole trace" cache-replay --trace "$folder/cut"
expect_error 5 "a folder" cache-replay --trace "$folder"
head -c 32 "$folder/t" >"$folder/header"
expect_error 3 "no passes" cache-replay --trace "$folder/header"
expect 0 cache-replay --trace "$folder/t" --sizes 12 --json
passes=$(json trace.passes)
expect_error 2 "the trace has $passes" cache-replay --trace "$folder/t" --skip "$passes"
expect_error 2 "the trace has $passes" cache-replay --trace "$folder/t" --skip 1000 --json
expect 0 cache-replay --trace "$folder/t" --skip $((passes - 1)) --sizes 12 --json
expect_json sizes.0.passes 1
expect 0 cache-replay --trace "$folder/t"
grep -q '^ *48 .*belady\|^ *48 ' "$folder/out" || fail "no line for all 48 experts"
expect 0 cache-replay --trace "$folder/t" --sizes 12,48 --json
for path in trace.experts trace.uses sizes.0.hit_rate.belady sizes.1.hit_rate.lru; do
    "$json_get" "$path" <"$folder/out" >/dev/null || fail "no $path in the JSON"
done
expect_json trace.of experts
# Single neurons: recorded by a model whose tokens go by neuron, refused by one whose tokens use all.
expect 0 synth --layers 3 --embedding 512 --ffn 2048 --heads 8 --kv-heads 4 --head-dim 64 --vocab 1024 --type q8_0 \
    --ffn-activation relu -o "$folder/sparse.gguf" -q
expect 0 prepare -m "$folder/sparse.gguf" -o "$folder/sparse.pi2" --layout neuron -q
expect 0 run -m "$folder/sparse.pi2" --raw -p "bako mirena" -n 12 --temp 0 --ignore-eos -c 128 -b 16 \
    --record-trace "$folder/units"
expect 0 cache-replay --trace "$folder/units" --skip 2
grep -q '^3 banks of [0-9]* units of neurons' "$folder/out" || fail "no line on the banks: $(head -n 1 "$folder/out")"
expect 0 cache-replay --trace "$folder/units" --json
expect_json trace.of neurons
"$json_get" sizes.2.hit_rate.mix <"$folder/out" >/dev/null || fail "the store's own rule is not played"
expect_error 2 "sparsity off" run -m "$folder/sparse.pi2" --raw -p x --sparsity off --record-trace "$folder/u"
expect_error 2 "another kind of model" run -m "$folder/m.gguf" -p x -c 128 --routing-trace "$folder/units"
# Hot experts: what came first is there from the start.
expect 0 cache-replay --trace "$folder/t" --sizes 12 --hot 0.5 --json
cp "$folder/out" "$folder/hot"
expect 0 cache-replay --trace "$folder/t" --sizes 12 --json
cmp -s "$folder/out" "$folder/hot" && fail "a hot share changes nothing"
expect_error 2 "0.75 of the slots" cache-replay --trace "$folder/t" --hot 0.9
finish
