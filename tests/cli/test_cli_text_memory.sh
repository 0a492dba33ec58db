#!/bin/sh
# Goal:   a text of any length takes no memory that grows with it: perplexity and raw prompts keep to a memory
#         cgroup of their budget, a prompt that is too long is refused with its number of tokens, and text read
#         in parts has the tokens of the text at once.
# Method: a tiny model, texts of 8 to 40 MB, and without a cgroup the peak that the program reports.
. "$(dirname "$0")/cli_support.sh"
tiny model layers=2 context=512
model=$folder/model.gguf
head -c 8000000 /dev/zero | tr '\0' ' ' >"$folder/spaces"
head -c 8000000 /dev/zero | tr '\0' 'x' >"$folder/letters"
awk 'BEGIN { for (i = 0; i < 700000; i++) print "the hand of " i " the theme, and others" }' >"$folder/lines"
group=
if [ "$(id -u)" = 0 ] && [ "${PI2_TEST_PRESET:-release}" = release ]; then
    group=/sys/fs/cgroup/memory/powerinfer2-text-$$
    if mkdir "$group" 2>/dev/null && echo 28000000 >"$group/memory.limit_in_bytes" 2>/dev/null; then :; else
        rmdir "$group" 2>/dev/null
        group=
    fi
fi
# A sanitizer's own memory counts too.
if [ "${PI2_TEST_PRESET:-release}" = release ]; then budget=28M; else budget=80M; fi
[ -n "$group" ] || echo "no memory cgroup of version 1: the limit itself was not tested"

# limited CODE PATTERN ARGUMENTS...: the program in the cgroup; its exit code, and a line of what it prints.
limited() {
    limited_code=$1
    limited_pattern=$2
    shift 2
    checks=$((checks + 1))
    timeout 250 sh -c 'group=$1; shift; [ -z "$group" ] || echo $$ >"$group/cgroup.procs"; exec "$@"' sh "$group" \
        "$program" "$@" >"$folder/out" 2>"$folder/err" </dev/null
    code=$?
    [ "$code" = "$limited_code" ] || fail "exit code $code, not $limited_code: $* $(cat "$folder/err")"
    cat "$folder/out" "$folder/err" | grep -q "$limited_pattern" || fail "no '$limited_pattern': $*"
}

for text in spaces letters lines; do
    limited 2 'the prompt has [1-9][0-9][0-9][0-9][0-9][0-9]* tokens, and the context holds 64' run -m "$model" \
        --memory $budget -c 64 --raw -f "$folder/$text" -n 1
    limited 0 '^perplexity .* (2 chunks' perplexity -m "$model" --memory $budget -c 64 --chunks 2 -f "$folder/$text"
done
# tokenize prints ids while it reads: texts of 8 MB and more, whose ids take 32 MB.
for text in spaces letters lines; do
    limited 0 '^[0-9][0-9]* [0-9]' tokenize -m "$model" -f "$folder/$text"
    cp "$folder/out" "$folder/of_file"
    "$program" tokenize -m "$model" -f - <"$folder/$text" | cmp -s - "$folder/of_file" ||
        fail "$text: a pipe has other ids"
done
# Through the chat template: refused before anything is computed, with what was planned; so is a long history.
for text in spaces letters lines; do
    limited 2 'are planned for a context of 64 tokens' run -m "$model" --memory $budget -c 64 -f "$folder/$text" -n 1
    limited 2 'is longer than' run -m "$model" --memory $budget -c 64 -p X -sysf "$folder/$text" -n 1
done
head -c 20000 "$folder/lines" >"$folder/part"
limited 2 'are planned for a context of 64 tokens' run -m "$model" --memory $budget -c 64 -p X -sysf "$folder/part" -n 1
printf '%s' '{% set ns = namespace(t="x") %}{% for i in range(30) %}{% set ns.t = ns.t ~ ns.t %}{% endfor %}{{ ns.t }}' \
    >"$folder/greedy.jinja"
limited 2 'chat template: it needs more than the [0-9]* bytes that are planned' run -m "$model" --memory $budget -c 64 \
    --chat-template "$folder/greedy.jinja" -p X -n 1
[ -z "$group" ] || rmdir "$group"

# In parts and at once: a file, stdin and -p give one prompt; the last newline alone is no part of it.
printf 'X\nthe hand\n\n' >"$folder/prompt"
expect 0 run -m "$model" --raw -p "$(printf 'X\nthe hand\n.')" -n 1 --json
whole=$(json prompt_tokens)
printf 'X\nthe hand\n.\n' >"$folder/prompt"
expect 0 run -m "$model" --raw -f "$folder/prompt" -n 1 --json
expect_json prompt_tokens "$whole"
checks=$((checks + 1))
"$program" run -m "$model" --raw -n 1 --json <"$folder/prompt" >"$folder/out" 2>/dev/null || fail "a raw prompt from stdin"
expect_json prompt_tokens "$whole"
printf 'X\n\n' >"$folder/prompt"
expect 0 run -m "$model" --raw -f "$folder/prompt" -n 1 --json
expect_json prompt_tokens "[91,13]"
printf '\n' >"$folder/prompt"
expect_error 2 'prompt is empty' run -m "$model" --raw -f "$folder/prompt" -n 1
: >"$folder/prompt"
expect_error 2 'prompt is empty' run -m "$model" --raw -f "$folder/prompt" -n 1
expect_error 5 "$folder/none" run -m "$model" --raw -f "$folder/none" -n 1
expect_error 5 "$folder" run -m "$model" --raw -f "$folder" -n 1
expect_error 5 "$folder" perplexity -m "$model" -f "$folder"
printf 'the hand\n' >"$folder/prompt"
expect 0 run -m "$model" -p "the hand" -n 1 --json
whole=$(json prompt_tokens)
expect 0 run -m "$model" -f "$folder/prompt" -n 1 --json
expect_json prompt_tokens "$whole"
expect_error 2 'system message' run -m "$model" --raw -f "$folder/lines" -sys S
finish
