#!/bin/sh
# Goal:   --trace and --stats of run and bench write their files, say what they cost in memory, and
#         refuse a path, and one path for two files, before anything runs.
# Method: a tiny model; the library's own test looks into the files.
. "$(dirname "$0")/cli_support.sh"
tiny model layers=4 feed_forward=1024 context=256
model=$folder/model.gguf

expect 0 run -m "$model" -p "the hand" -n 12 --temp 0 --ignore-eos --json
tokens=$(json tokens)
[ "$(json '?io.compute_ms')" = null ] || fail "computing was measured unasked"
expect 0 run -m "$model" -p "the hand" -n 12 --temp 0 --ignore-eos --json --trace "$folder/t.json" \
    --stats "$folder/s.csv"
expect_json tokens "$tokens"
expect_json '?io.compute_ms' real
[ "$(wc -l <"$folder/s.csv")" = 13 ] || fail "$(wc -l <"$folder/s.csv") lines for 12 tokens and a heading"
[ "$(grep -c ',decode,' "$folder/s.csv")" = 11 ] || fail "decode lines"
checks=$((checks + 1))
"$json_get" '#traceEvents' <"$folder/t.json" >/dev/null || fail "the timeline is no JSON"
grep -q 'L3 gate+up' "$folder/t.json" || fail "no stage of the last layer"
[ -e "$folder/.t.json.tmp" ] && fail "a temporary file is left"

expect_error 5 "no such folder" run -m "$model" -p a -n 2 --trace "$folder/no such folder/t.json"
expect_error 5 "no such folder" run -m "$model" -p a -n 2 --stats "$folder/no such folder/s.csv"
[ -e /dev/full ] && expect 5 run -m "$model" -p a -n 2 -q --stats /dev/full

# One file for two outputs: whichever was ended last would replace the other.
expect_error 2 "have one file" run -m "$model" -p a -n 2 --trace "$folder/one" --stats "$folder/one"
expect_error 2 "have one file" run -m "$model" -p a -n 2 --trace "$folder/one" --stats "$folder/./one"
expect_error 2 "have one file" run -m "$model" -p a -n 2 --trace "$folder/one" --record-trace "$folder/one"
expect_error 2 "have one file" bench -m "$model" -p 2 -n 0 --stats "$folder/one" --record-trace "$folder/one"
[ -e "$folder/one" ] && fail "a refused command wrote its file"
expect 0 run -m "$model" -p a -n 2 -q --trace /dev/null --stats /dev/null

# bench: a file for each engine, since each test has its own context.
expect 0 bench -m "$model" -p 20 -n 5 -r 2 --no-warmup -o json --trace "$folder/b.json" --stats "$folder/b.csv"
[ "$(wc -l <"$folder/b.csv")" = 3 ] || fail "bench: $(wc -l <"$folder/b.csv") lines for two prompts"
[ "$(wc -l <"$folder/b.csv.2")" = 11 ] || fail "bench: $(wc -l <"$folder/b.csv.2") lines for two answers of 5"
for file in b.json b.json.2; do
    checks=$((checks + 1))
    "$json_get" '#traceEvents' <"$folder/$file" >/dev/null || fail "$file is no JSON"
done
expect_error 5 "no such folder" bench -m "$model" -p 4 -n 0 -r 1 --stats "$folder/no such folder/s.csv"
finish
