#!/bin/sh
# Goal:   answers that are made together (run -np, batch) are those that run makes alone, with the seed of each; a batch
#         goes on after a kill at any moment and gives the same bytes; bad lines are named, and no file is lost.
# Method: tiny models; samples beside single runs; results cut at many places, and a batch that is killed.
. "$(dirname "$0")/cli_support.sh"
tiny m layers=2 context=512
"$(dirname "$make_tiny_model")/make_family_model" qwen35 "$folder/recurrent.gguf" || fail "make_family_model"

for model in m recurrent; do
    options="--temp 2"
    [ $model = m ] || options="--temp 0"
    # shellcheck disable=SC2086 # options
    expect 0 run -m "$folder/$model.gguf" --raw -p "Why is it so?" -c 256 -n 16 -s 4294967293 $options --ignore-eos \
        --json -q -np 4
    cp "$folder/out" "$folder/samples"
    index=0
    for seed in 4294967293 4294967294 0 1; do # behind the largest seed comes 0: the number after it means any
        # shellcheck disable=SC2086 # options
        expect 0 run -m "$folder/$model.gguf" --raw -p "Why is it so?" -c 256 -n 16 -s $seed $options --ignore-eos \
            --json -q
        for part in tokens text seed stop_type prompt_tokens arithmetic; do
            checks=$((checks + 1))
            got=$("$json_get" "$index.$part" <"$folder/samples")
            [ "$got" = "$(json $part)" ] || fail "$model $options, sample $index: $part is $got, alone $(json $part)"
        done
        index=$((index + 1))
    done
    [ "$("$json_get" 1.timings.prompt_n <"$folder/samples")" = 0 ] || fail "$model: the prompt was read twice"
done
expect 0 run -m "$folder/m.gguf" -p "Why?" -c 256 -n 4 -s 7 -np 2
[ "$(grep -c '^=== sample [12] of 2, seed [78], ended by: limit ===$' "$folder/out")" = 2 ] || fail "samples have no headers"
expect 0 run -m "$folder/m.gguf" -p "Why?" -c 256 -n 0 -np 3 # no token: none can be fast
grep -q "^decode   0 tokens in all, 0.00 tokens/s together" "$folder/err" || fail "no tokens: $(grep decode "$folder/err")"
for context in 8 16 17; do # the prompt and the answers lie in one page, which two of them write to
    expect 0 run -m "$folder/m.gguf" --raw -p "ab" -c $context -n 3 -s 7 -np 2 --ignore-eos --json -q
    cp "$folder/out" "$folder/samples"
    expect 0 run -m "$folder/m.gguf" --raw -p "ab" -c $context -n 3 -s 8 --ignore-eos --json -q
    checks=$((checks + 1))
    [ "$("$json_get" 1.tokens <"$folder/samples")" = "$(json tokens)" ] || fail "context $context: the second answer"
done
expect_error 2 "300 lies outside" run -m "$folder/m.gguf" -p a -np 300
fits="fewer sequences"
ldd "$program" | grep -q 'lib[atu]*san' && fits="for 200 sequences" # its own memory leaves room for none
expect_error 4 "$fits" run -m "$folder/m.gguf" -p a -c 512 -np 200 --memory 20M
expect_error 2 "the context holds" run -m "$folder/m.gguf" --raw -p "$(print_lines 300 a b)" -c 64 -np 2

# A batch of good lines and bad ones.
prompts=$folder/prompts.jsonl
results=$folder/results.jsonl
{
    printf '\357\273\277{"prompt": "Why is it so?", "id": "first", "temperature": 2, "seed": 3}\n'
    printf '\n{"prompt": "x y z", "id": {"a": [5]}, "stop": "never there"}\r\n'
    printf '{"prompt": ""}\n{broken\n[1]\n{"id": 4}\n{"prompt": 5}\n{"prompt": "a", "temperature": "hot"}\n'
    printf '{"prompt": "a", "grammar": "root ::= x"}\n{"prompt": "%s"}\n' "$(print_lines 500 word word)" | tr '\n' ' ' |
        sed 's/} {/}\n{/; s/ $/\n/'
    printf '{"messages": [{"role": "user", "content": "Why is it so?"}], "temperature": 0, "max_tokens": 5}\n'
    print_lines 30 '{"prompt": "case ' ' of many", "temperature": 1.5}'
    printf '{"prompt": "the last line has no end"}'
} >"$prompts"
options="-m $folder/m.gguf -f $prompts -c 256 -n 12 -s 11"
# shellcheck disable=SC2086 # options
expect 3 batch $options -q
cp "$folder/out" "$folder/right"
grep -q "8 of 42 lines have no answer" "$folder/err" || fail "what failed is not counted: $(cat "$folder/err")"
# shellcheck disable=SC2086 # options
expect 3 batch $options -np 1 --draft-max 0 -o "$results"
for part in "jsonl:4: the prompt is empty" "jsonl:5: no JSON: column" "jsonl:6: the line must be" "jsonl:7: there must be" \
    "jsonl:8: 'prompt' must be" "jsonl:9: 'temperature' must be" "jsonl:10: 'grammar' is not"; do
    grep -q "warning: .*$part" "$folder/err" || fail "no '$part': $(cat "$folder/err")"
done
checks=$((checks + 1))
cmp -s "$results" "$folder/right" || fail "one at a time gives other results than four"
[ "$(sed -n 's/{"line":\([0-9]*\),.*/\1/p' "$results" | sort -nc 2>&1)" = "" ] || fail "results are not in order"

# line NUMBER ARGUMENTS...: the result of the line is what run answers.
line() {
    grep "^{\"line\":$1," "$results" >"$folder/line"
    shift
    expect 0 run -m "$folder/m.gguf" -c 256 -q "$@" --json
    checks=$((checks + 1))
    [ "$("$json_get" text <"$folder/line")" = "$(json text)" ] || fail "$(cat "$folder/line") is not run's $(json text)"
}
line 1 -p "Why is it so?" --temp 2 -s 3 -n 12
line 3 -p "x y z" -s 11 -n 12
line 12 -p "Why is it so?" --temp 0 -n 5
line 20 -p "case 7 of many" --temp 1.5 -s 11 -n 12
[ "$("$json_get" id <"$folder/line" 2>/dev/null)" = "" ] || fail "an id that nobody gave"
grep -q '^{"line":3,.*"id":{"a":\[5\]}' "$results" || fail "the id is not handed on"

# Cut at any place, it goes on.
size=$(wc -c <"$folder/right")
for cut in 0 7 150 900 $((size - 1)); do
    head -c "$cut" "$folder/right" >"$results"
    # shellcheck disable=SC2086 # options
    expect 3 batch $options -np 3 -q -o "$results"
    grep -q "8 of 42 lines" "$folder/err" || fail "cut at $cut, failures are counted otherwise: $(cat "$folder/err")"
    cmp -s "$results" "$folder/right" || fail "cut at $cut of $size: other results"
done
# shellcheck disable=SC2086 # options
"$program" batch $options -q -n 150 -np 2 >"$folder/long" 2>/dev/null
rm -f "$results"
# shellcheck disable=SC2086 # options
"$program" batch $options -q -n 150 -np 2 -o "$results" 2>/dev/null &
batch=$!
while [ ! -s "$results" ] && kill -0 $batch 2>/dev/null; do sleep 0.01; done
kill -9 $batch 2>/dev/null
wait $batch 2>/dev/null
# shellcheck disable=SC2086 # options
run batch $options -q -n 150 -np 2 -o "$results"
checks=$((checks + 1))
cmp -s "$results" "$folder/long" || fail "after a kill there are other results"

# Results of other requests, and files that are none, stay what they are.
cp "$results" "$folder/before"
# shellcheck disable=SC2086 # options
expect_error 2 "result of another request for line 1" batch $options -n 150 -s 12 -o "$results"
printf '{"prompt": "Why is it so?"}\n' >"$folder/one.jsonl" # options that differ in the eighth digit alone
expect 0 batch -m "$folder/m.gguf" -f "$folder/one.jsonl" -q -c 256 -n 4 -s 1 --temp 1.2345671 -o "$folder/one"
expect_error 2 "of other options" batch -m "$folder/m.gguf" -f "$folder/one.jsonl" -c 256 -n 4 -s 1 --temp 1.2345679 \
    -o "$folder/one"
for member in '"tools": [{"type": "function"}]' '"chat_template_kwargs": {"a": 1}' '"logprobs": true'; do
    printf '{"prompt": "Why?", %s}\n' "$member" >"$folder/more.jsonl" # what a line asks for is never left out silently
    expect 3 batch -m "$folder/m.gguf" -f "$folder/more.jsonl" -c 256 -n 4
    grep -q "is not supported here" "$folder/out" || fail "$member is passed over: $(cat "$folder/out")"
done
sed 's/case 7/case 8/' "$prompts" >"$folder/changed.jsonl"
# shellcheck disable=SC2086 # options
expect_error 2 "result of another request for line 20" batch $options -n 150 -f "$folder/changed.jsonl" -o "$results"
printf 'my notes' >"$folder/notes"
cp "$prompts" "$folder/prompts.before"
# shellcheck disable=SC2086 # options
for victim in "$folder/notes" "$prompts" "$folder/m.gguf" "$folder"; do
    expect_error 2 "" batch $options -q -o "$victim"
done
for pair in "$results before" "$folder/notes notes" "$prompts prompts.before"; do
    checks=$((checks + 1))
    cmp -s "${pair% *}" "$folder/${pair#* }" || fail "${pair% *} was changed"
done
[ "$(cat "$folder/notes")" = "my notes" ] || fail "the notes were changed"
# shellcheck disable=SC2086 # options
expect_error 5 "dev/full cannot be written" batch $options -q -o /dev/full
expect_error 2 "no prompts" batch -m "$folder/m.gguf"
expect_error 5 "nowhere" batch -m "$folder/m.gguf" -f "$folder/nowhere"
finish
