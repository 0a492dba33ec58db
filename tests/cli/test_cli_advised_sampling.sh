#!/bin/sh
# Goal:   tokens are drawn as a model's makers advise in its file (general.sampling.*), but for what the user says.
# Method: a tiny model that advises a high temperature, beside the same one that advises nothing, whose text is nearly
#         always the greedy one; texts of one seed.
. "$(dirname "$0")/cli_support.sh"
tiny plain layers=2 context=256
tiny hot layers=2 context=256 advises=temp:8 advises=min_p:0
tiny one layers=2 context=256 advises=temp:8 advises=min_p:0 advises=top_k:1

# tokens NAME OPTIONS...: an answer of 24 tokens.
tokens() {
    name=$1
    shift
    expect 0 run -m "$folder/$name.gguf" -p "the hand" -n 24 --ignore-eos -s 1 --json "$@"
    tokens=$(json tokens)
}

# is WHAT WANTED
is() {
    checks=$((checks + 1))
    [ "$tokens" = "$2" ] || fail "$1: $tokens in place of $2"
}

tokens plain
plain=$tokens
tokens plain --temp 8 --min-p 0
drawn=$tokens
[ "$plain" != "$drawn" ] || fail "a high temperature changes nothing: this test can say nothing"
tokens hot
is "advice of a temperature" "$drawn"
tokens one
is "advice of the likeliest token" "$plain"

# What the user says goes first, also where it is the default.
tokens hot --temp 0.8 --min-p=0.05
is "the user's temperature" "$plain"
tokens hot --temp 0.8
[ "$tokens" != "$drawn" ] || fail "the user's temperature alone changes nothing"
tokens one --top-k 40
is "the user's top-k" "$drawn"

# Prompts of a file, and what each of them says.
cat >"$folder/prompts" <<'end'
{"prompt": "the hand"}
{"prompt": "the hand", "temperature": 0.8, "min_p": 0.05}
end
expect 0 batch -m "$folder/hot.gguf" -f "$folder/prompts" -o "$folder/answers" -n 24 --ignore-eos -s 1
expect 0 batch -m "$folder/plain.gguf" -f "$folder/prompts" -o "$folder/others" -n 24 --ignore-eos -s 1 \
    --temp 8 --min-p 0
for line in 1 2; do
    for file in answers others; do
        sed -n ${line}p "$folder/$file" >"$folder/out"
        json text >"$folder/$file.$line"
    done
    checks=$((checks + 1))
    cmp -s "$folder/answers.$line" "$folder/others.$line" || fail "batch: line $line is not drawn as it should be"
done
cmp -s "$folder/answers.1" "$folder/answers.2" && fail "batch: what a prompt says changes nothing"

# Advice that no sampler can take is refused by everyone who opens the model.
tiny wrong layers=2 context=256 advises=top_p:1.5
expect_error 3 "wrong.gguf: key 'general.sampling.top_p' is 1.5, which no sampler takes" run -m "$folder/wrong.gguf" -p X
expect_error 3 "wrong.gguf: key 'general.sampling.top_p' is 1.5" plan -m "$folder/wrong.gguf"
finish
