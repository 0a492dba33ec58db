#!/bin/sh
# Goal:   perplexity and bench print what other programs read, by llama.cpp's names and conventions.
# Method: a tiny model. Its logits are next to random, so its perplexity lies near or above its
#         vocabulary's size; counts are exact.
. "$(dirname "$0")/cli_support.sh"
tiny model layers=2 context=256
model=$folder/model.gguf
print_lines 60 "the hand and the other one are in line " "" >"$folder/text"
count=$("$program" tokenize -m "$model" -f "$folder/text" | wc -w)

expect 0 perplexity -m "$model" -f "$folder/text" -c 64 --json
chunks=$(json chunks)
# One token at most goes with the newline at the end.
[ "$chunks" = $((count / 64)) ] || [ "$chunks" = $(((count - 1) / 64)) ] || fail "$chunks chunks of $count tokens"
expect_json tokens $((chunks * 31))
expect_json '?perplexity' real
expect_json '?error' real
perplexity=$(json perplexity)
[ "$(printf '%.0f' "$perplexity")" -gt 20 ] || fail "perplexity $perplexity of a random model"
# It does not depend on batches, threads or how many logits are kept.
expect 0 perplexity -m "$model" -f "$folder/text" -c 64 --json -b 7 -t 1
expect_json perplexity "$perplexity"
expect 0 perplexity -m "$model" -f "$folder/text" -c 64 --chunks 2 --json
expect_json chunks 2
expect_json tokens 62
expect 0 perplexity -m "$model" -f "$folder/text" -c 64 --chunks 2
grep -q '^perplexity [0-9.]* +/- [0-9.]* (2 chunks of 64 tokens, 62 scored)$' "$folder/out" || fail "$(cat "$folder/out")"
echo short >"$folder/short"
expect_error 2 "too few" perplexity -m "$model" -f "$folder/short" -c 64
expect_error 5 "none" perplexity -m "$model" -f "$folder/none"
# Logits that are no numbers have no perplexity. The output norm's first weight becomes a NaN.
expect 0 inspect -m "$model" --tensors
place=$(awk '$NF == "output_norm.weight" { print $(NF - 1) }' "$folder/out")
cp "$model" "$folder/nan.gguf"
printf '\377\377\377\177' | dd of="$folder/nan.gguf" bs=1 seek="$place" conv=notrunc 2>/dev/null
expect_error 3 "nan.gguf: the logits of token [0-9]* are no numbers" perplexity -m "$folder/nan.gguf" -f "$folder/text" -c 64
expect_error 3 "no numbers" perplexity -m "$folder/nan.gguf" -f "$folder/text" -c 64 --json
expect_error 3 "none of the .* logits is a number" run -m "$folder/nan.gguf" --raw -p hand -n 4 --temp 0

expect 0 bench -m "$model" -p 16,8 -n 4 -r 3 -o json
expect_json '#' 3
expect_json 0.n_prompt 16
expect_json 0.n_gen 0
expect_json 2.n_prompt 0
expect_json 2.n_gen 4
expect_json '#0.samples_ns' 3
expect_json '#2.samples_ts' 3
expect_json 0.model_filename "$model"
for field in model_type model_size model_n_params cpu_info backends n_batch n_ubatch n_threads type_k type_v n_gpu_layers \
    n_depth test_time avg_ns stddev_ns avg_ts stddev_ts bytes_per_token hit_rate peak_bytes build_commit; do
    checks=$((checks + 1))
    "$json_get" "1.$field" <"$folder/out" >/dev/null || fail "bench has no $field"
done
for field in p50_ms p90_ms p99_ms; do expect_json "?2.$field" real; done
"$json_get" 0.p50_ms <"$folder/out" >/dev/null 2>&1 && fail "a prompt has latencies of tokens"
expect 0 bench -m "$model" -p 0 -n 4 -r 1 -o json --no-warmup
expect_json '#' 1
# Nearest rank over all repetitions: of two times P50 is the smaller, P99 the larger.
expect 0 bench -m "$model" -p 0 -n 1 -r 2 -o json
echo "$(json 0.p50_ms) $(json 0.p90_ms) $(json 0.p99_ms) $(json 0.avg_ns)" | awk '
    { whole = 2 * $4 / 1e6; exit !($1 > 0 && $1 <= $2 && $2 == $3 && $1 + $2 <= whole && $1 + $2 > 0.8 * whole) }' ||
    fail "percentiles of two times: $(cat "$folder/out")"
expect 0 bench -m "$model" -p 4 -n 0 -r 1 -o json -t 1,2
expect_json '#' 2
expect_json 0.n_threads 1
expect 0 bench -m "$model" -p 8 -n 4 -r 1 -pg 8,4 -d 4 -o json
expect_json '#' 3
expect_json 2.n_prompt 8
expect_json 2.n_gen 4
expect_json 2.n_depth 4
expect 0 bench -m "$model" -p 8 -n 4 -r 2 -o csv
[ "$(wc -l <"$folder/out")" = 3 ] || fail "csv has $(wc -l <"$folder/out") lines"
head -1 "$folder/out" | grep -q '^build_commit,.*avg_ts,stddev_ts' || fail "csv header: $(head -1 "$folder/out")"
grep -q samples "$folder/out" && fail "csv has samples"
expect 0 bench -m "$model" -p 8 -n 4 -r 2
[ "$(wc -l <"$folder/out")" = 4 ] || fail "the table has $(wc -l <"$folder/out") lines"
grep -q '| pp8 |' "$folder/out" || fail "no pp8 in the table"
grep -q '| tg4 |.*| [0-9.]* / [0-9.]* / [0-9.]* |' "$folder/out" || fail "no tg4 with its latencies in the table"
expect 0 bench -m "$model" -p 0 -n 0 -o json
expect_json '#' 0
finish
