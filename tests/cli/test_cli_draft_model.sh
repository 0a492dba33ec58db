#!/bin/sh
# Goal:   a draft model changes no text, is told of by drafter, in lines and in JSON, and is refused or left out with a
#         line; nothing that a run writes takes its place.
# Method: a tiny random model guesses for itself, which is nearly always right and never pays.
. "$(dirname "$0")/cli_support.sh"
tiny model layers=2 feed_forward=512 context=256
model=$folder/model.gguf
cp "$model" "$folder/draft.gguf"
draft=$folder/draft.gguf

answer() { # answer OPTIONS...: one text for all of them
    expect 0 run -m "$model" -p "the hand" -n 24 --temp "$temperature" -s 5 --ignore-eos --json "$@"
}
for temperature in 0 0.8; do
    answer --draft-max 0
    tokens=$(json tokens)
    expect_json '#drafters' 0
    expect_json timings.tokens_per_pass 1.0
    answer -md "$draft" --draft-always --draft-max 5
    expect_json tokens "$tokens"
    expect_json drafters.0.name ngram
    expect_json drafters.1.name model
    [ "$(json drafters.1.right)" -gt 0 ] || fail "no guess was right: $(json drafters)"
    [ "$(json drafters.1.guessed)" -ge "$(json drafters.1.right)" ] || fail "more right than guessed: $(json drafters)"
    expect_json '?drafters.1.draft_ms' real
    expect_json '?drafters.1.gained_ms' real
    grep -q '^  model  [0-9]* of [0-9]* in [0-9]* passes; guessing took [0-9.]* s, about [0-9.]* s ' "$folder/err" ||
        fail "the report does not tell of the draft model: $(cat "$folder/err")"
done
# Guesses that are shorter than wanted, or less sure, are not checked.
answer -md "$draft" --draft-always --draft-max 3 --draft-min 4
expect_json tokens "$tokens"
expect_json drafters.1.guessed 0
temperature=0 # else a token may be all that can be drawn
answer --draft-max 0
tokens=$(json tokens)
answer -md "$draft" --draft-always --draft-p-min 1
expect_json tokens "$tokens"
expect_json drafters.1.guessed 0

# In memory it is slower than the model alone: a line says so, and the text stays.
answer -md "$draft"
expect_json tokens "$tokens"
expect_json '#drafters' 2
grep -q 'draft.gguf is left out: .*more time than its guesses save' "$folder/err" || fail "not left out: $(cat "$folder/err")"

expect_error 2 "draft.gguf" run -m "$model" -p x --stats "$draft" -md "$draft" --draft-always -n 1
cmp "$model" "$draft" || fail "the draft model was overwritten"
expect_error 5 "nowhere.gguf" run -m "$model" -p x -md "$folder/nowhere.gguf" -n 1
printf 'GGUF' >"$folder/short.gguf"
expect_error 3 "short.gguf" run -m "$model" -p x -md "$folder/short.gguf" -n 1
expect_error 2 "draft-p-min" run -m "$model" -p x -md "$draft" --draft-p-min 1.5
finish
