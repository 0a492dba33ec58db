#!/bin/sh
# Goal:   run gives the same text with a prompt cache, whole, half, damaged, full, of others or not there, says what came
#         from it, and a kill at any moment and several runs at once leave it usable.
# Method: a tiny model; a prompt of some pages, asked again at another budget, thread count and batch.
. "$(dirname "$0")/cli_support.sh"
tiny model layers=4 context=2048
model=$folder/model.gguf
cache=$folder/prompts
awk 'BEGIN { for (i = 0; i < 80; i++) printf "line %d of the hand %d;", i, i * i % 17 }' >"$folder/long"
ask() { # ask CODE OPTIONS...
    wanted_code=$1
    shift
    expect "$wanted_code" run -m "$model" -f "$folder/long" -n 6 --temp 0 --ignore-eos --json "$@"
}

ask 0
text=$(json text)
count=$(json '#prompt_tokens')
[ "$count" -gt 1024 ] || fail "the prompt has only $count tokens"
recalled=$(((count - 1) / 256 * 256))
expect_json timings.prompt_cache_n 0

ask 0 --prompt-cache "$cache"
expect_json text "$text"
expect_json timings.cache_n 0
checks=$((checks + 1))
[ "$(stat -c %a "$cache")" = 700 ] || fail "the folder has $(stat -c %a "$cache")"
[ "$(find "$cache" -name '*.page' -perm 600 | wc -l)" = $((recalled / 256)) ] || fail "pages: $(ls -la "$cache")"
ask 0 --prompt-cache "$cache" -t 1 -b 33 -c 2000
expect_json text "$text"
expect_json timings.prompt_cache_n "$recalled"
expect_json timings.prompt_n $((count - recalled))
grep -q "^cache    $recalled of the prompt's $count tokens were recalled" "$folder/err" ||
    fail "no line of the cache: $(cat "$folder/err")"
# Another prompt that begins alike gets what is common; another arithmetic and another model get nothing.
printf '%s' "and an end of its own" >>"$folder/long"
ask 0 --prompt-cache "$cache"
expect_json timings.prompt_cache_n "$recalled"
ask 0 --prompt-cache "$cache" -ctk q8_0 -ctv q8_0
expect_json timings.prompt_cache_n 0
tiny other layers=4 context=2048 seed=5
model=$folder/other.gguf
ask 0 --prompt-cache "$cache"
expect_json timings.prompt_cache_n 0
model=$folder/model.gguf
awk 'BEGIN { for (i = 0; i < 80; i++) printf "line %d of the hand %d;", i, i * i % 17 }' >"$folder/long"

# Answers that are made together, and those of a batch.
ask 0 --prompt-cache "$cache" -np 2
[ "$("$json_get" 0.text <"$folder/out")" = "$text" ] || fail "another text with -np 2"
[ "$("$json_get" 0.timings.cache_n <"$folder/out")" = "$recalled" ] || fail "-np 2: $("$json_get" 0.timings <"$folder/out")"
printf '{"prompt": "%s"}\n' "$(cat "$folder/long")" >"$folder/prompts.jsonl"
expect 0 batch -m "$model" -f "$folder/prompts.jsonl" -o "$folder/results.jsonl" -n 6 --temp 0 --ignore-eos --prompt-cache "$cache"
grep -q "\"text\": *\"" "$folder/results.jsonl" || fail "no answer of a batch: $(cat "$folder/results.jsonl")"
grep -q "^prompts .* $recalled were there already" "$folder/err" || fail "a batch recalls nothing: $(cat "$folder/err")"

# A folder that cannot be made is told, and the run goes on; one that is something else is refused at once.
ask 0 --prompt-cache "$folder/none/such"
expect_json text "$text"
grep -q '^no prompts are kept: .*/none/such: cannot make the folder' "$folder/err" || fail "$(cat "$folder/err")"
expect_error 2 'is no folder' run -m "$model" -p x --prompt-cache "$model"
expect_error 2 'holds no page' run -m "$model" -p x --prompt-cache "$cache" --prompt-cache-size 1K
# Less room: what is there goes down to it.
ask 0 --prompt-cache "$cache" --prompt-cache-size 600K
[ "$(du -sb --apparent-size "$cache" | cut -f 1)" -lt 700000 ] || fail "more than 600K: $(ls -la "$cache")"
expect_json text "$text"

# Damage is told, and mended.
rm -rf "$cache"
ask 0 --prompt-cache "$cache"
for page in "$cache"/*.page; do printf 'XXXX' | dd of="$page" bs=1 seek=2000 conv=notrunc 2>/dev/null; done
ask 0 --prompt-cache "$cache"
expect_json text "$text"
expect_json timings.prompt_cache_n 0
[ "$(grep -c 'do not match their checksum\|belongs there' "$folder/err")" = 1 ] || fail "damage: $(cat "$folder/err")"

# Killed at any moment, and several runs at once.
for delay in 0.01 0.03 0.06 0.1 0.15 0.2 0.3; do
    rm -f "$cache"/*.page
    timeout -s KILL $delay "$program" run -m "$model" -f "$folder/long" -n 6 --prompt-cache "$cache" >/dev/null 2>&1
done
rm -f "$cache"/*.page
for number in 1 2 3; do
    "$program" run -m "$model" -f "$folder/long" -n 6 --temp 0 --ignore-eos --json --prompt-cache "$cache" \
        >"$folder/out.$number" 2>"$folder/err.$number" </dev/null &
done
wait
for number in 1 2 3; do
    cp "$folder/out.$number" "$folder/out"
    expect_json text "$text"
    grep -q 'no more prompts\|no prompts' "$folder/err.$number" && fail "$(cat "$folder/err.$number")"
done
ask 0 --prompt-cache "$cache"
expect_json text "$text"
expect_json timings.prompt_cache_n "$recalled"
find "$cache" -name '*.tmp' | grep -q . && fail "left: $(ls -a "$cache")"

finish
