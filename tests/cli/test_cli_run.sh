#!/bin/sh
# Goal:   run answers, says what it cost, keeps to its limits, and gives one text for one seed.
# Method: a tiny random model; its text means nothing, but it is the same each time.
. "$(dirname "$0")/cli_support.sh"
tiny model layers=4 feed_forward=1024 context=256
model=$folder/model.gguf

expect 0 run -m "$model" -p "the hand" -n 12 --temp 0 --ignore-eos --json
[ "$(wc -l <"$folder/out")" = 1 ] || fail "--json is not one line"
expect_json '#tokens' 12
expect_json stop_type limit
expect_json timings.predicted_n 12
expect_json timings.prompt_n "$(json '#prompt_tokens')"
expect_json timings.cache_n 0
for field in timings.prompt_ms timings.prompt_per_second timings.prompt_per_token_ms timings.predicted_ms \
    timings.predicted_per_second timings.predicted_per_token_ms timings.ttft_ms io.bytes_per_token io.hit_rate; do
    expect_json "?$field" real
done
for field in seed n_ctx memory.budget_bytes memory.peak_bytes io.bytes_read; do expect_json "?$field" integer; done
expect_json '?text' string
expect_json io.read_method none
case $(json prompt_tokens) in "[1,"*) ;; *) fail "the chat template was not used: $(json prompt_tokens)" ;; esac
[ "$(json memory.peak_bytes)" -gt 1000000 ] || fail "peak memory"
for word in 'tokens/s' 'first token after' 'peak .* of ' 'read per token' 'hit rate' 'context  *[0-9]' 'seed'; do
    grep -q "$word" "$folder/err" || fail "the report has no '$word'"
done
text=$(json text)
tokens=$(json tokens)
grep -q '^latency  P50 [0-9.]*, P90 [0-9.]*, P99 [0-9.]* ms' "$folder/err" || fail "the report has no latencies"

# Percentiles are by nearest rank: of two times P50 is the smaller and P90 the larger, which make up the whole.
expect 0 run -m "$model" --raw -p "the hand" -n 3 --temp 0 --ignore-eos --draft-max 0 --json
echo "$(json timings.p50_ms) $(json timings.p90_ms) $(json timings.p99_ms) $(json timings.predicted_ms)" | awk '
    { off = $1 + $2 - $4; exit !($1 > 0 && $1 <= $2 && $2 == $3 && off * off < 1e-6) }' ||
    fail "percentiles of two times: $(json timings)"
expect 0 run -m "$model" --raw -p "the hand" -n 1 --json
expect_json '?timings.p50_ms' null

# The streamed text is the same, and the report stays off stdout.
expect 0 run -m "$model" -p "the hand" -n 12 --temp 0 --ignore-eos
expect_text "$folder/out" "$text"
expect 0 run -m "$model" -p "the hand" -n 12 --temp 0 --ignore-eos -q
[ -s "$folder/err" ] && fail "-q wrote to stderr"
printf 'the hand\n' >"$folder/prompt"
expect 0 run -m "$model" -f "$folder/prompt" -n 12 --temp 0 --ignore-eos --json
expect_json tokens "$tokens"
checks=$((checks + 1))
"$program" run -m "$model" -n 12 --temp 0 --ignore-eos --json <"$folder/prompt" >"$folder/out" 2>/dev/null ||
    fail "prompt from stdin"
expect_json tokens "$tokens"
# Threads, batches and read methods do not change it.
expect 0 run -m "$model" -p "the hand" -n 12 --temp 0 --ignore-eos --json -t 1 -b 3
expect_json tokens "$tokens"

# An answer of a form has it, whatever the threads, the budget and the guesses; a form that cannot be is refused.
expect 0 run -m "$model" --raw -p "the hand" --temp 0 --grammar 'root ::= [a-c]{3} "!"' -q
grep -qx '[a-c][a-c][a-c]!' "$folder/out" || fail "no text of the grammar: $(cat "$folder/out")"
echo '{"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 9}' >"$folder/schema"
expect 0 run -m "$model" --raw -p "the hand" --temp 0 -n 200 -jf "$folder/schema" -q
cp "$folder/out" "$folder/form"
grep -q '^\[' "$folder/form" || fail "no array: $(cat "$folder/form")"
small=24M
ldd "$program" | grep -q 'lib[atu]*san' && small=256M # a sanitizer's own memory is more than that
for options in "-t 1 --draft-max 0" "--memory $small"; do
    expect 0 run -m "$model" --raw -p "the hand" --temp 0 -n 200 -jf "$folder/schema" -q $options
    cmp -s "$folder/out" "$folder/form" || fail "$options changes a form's text"
done
expect_error 2 "left recursion" run -m "$model" -p a --grammar 'root ::= root "a" | "b"'
expect_error 2 "at #/not" run -m "$model" -p a -j '{"not": {}}'
expect_error 2 "more than one form" run -m "$model" -p a -j '{}' --grammar 'root ::= "a"'
expect_error 2 "exclude each other" run -m "$model" -p a -j '{}' --ignore-eos

# One seed, one text; the seed that was drawn is told and can be given again.
expect 0 run -m "$model" -p "the hand" -n 8 --json
seed=$(json seed)
tokens=$(json tokens)
expect 0 run -m "$model" -p "the hand" -n 8 --json -s "$seed"
expect_json tokens "$tokens"
expect_json seed "$seed"

# Raw prompts: no template, special tokens only when asked for.
expect 0 run -m "$model" --raw -p "XYZ" -n 1 --json
expect_json prompt_tokens "[91,92,93]"
expect 0 run -m "$model" -no-cnv -p "<|im_end|>" -n 1 --json --parse-special
expect_json prompt_tokens "[2]"
expect 0 run -m "$model" -no-cnv -p 'X\n\x5a' -e -n 1 --json
expect_json prompt_tokens "[91,13,93]"
expect 0 run -m "$model" --raw -p "XYZ" -n 0 --json
expect_json '#tokens' 0
expect_json text ""
expect_json '?io.bytes_per_token' null
# Special text in a chat message stays text.
expect 0 run -m "$model" -p "<|im_end|>" -n 1 --json -sys "S"
ends=$(json prompt_tokens | tr ',[]' '\n\n\n' | grep -c '^2$')
[ "$ends" = 2 ] || fail "$ends end tokens in the prompt, not the template's 2"

# No end token stands behind a prompt, whatever add_eos_token says; an empty template is none.
tiny ends layers=2 vocabulary=spm add_eos=1
expect 0 run -m "$folder/ends.gguf" --raw -p "A" -n 1 --json
case $(json prompt_tokens) in "[1,"*",2]") fail "an end token behind a raw prompt: $(json prompt_tokens)" ;; esac
expect 0 run -m "$folder/ends.gguf" -p "A" -n 1 --json
case $(json prompt_tokens) in *",2]") fail "an end token behind the generation prompt: $(json prompt_tokens)" ;; esac
tiny empty layers=2 empty_template=1
expect 0 run -m "$folder/empty.gguf" -p "XYZ" -n 1 --json
expect_json prompt_tokens "[91,92,93]"
expect_error 2 'chat template' run -m "$folder/empty.gguf" -p "XYZ" -sys S
# A beginning in the text beside the model's own is told, one alone is not.
expect 0 run -m "$folder/ends.gguf" --raw --parse-special -p "<s>A" -n 1 --json
grep -q '^powerinfer2: warning: .*beginning-of-sequence' "$folder/err" || fail "two beginnings are not told"
expect 0 run -m "$folder/ends.gguf" --raw -p "<s>A" -n 1 --json
grep -q 'warning: .*beginning-of-sequence' "$folder/err" && fail "text was taken for a beginning"

# Another chat template: by name, from a file, with variables; the help and the errors name those that there are.
expect 0 run -m "$model" -p "XYZ" -sys S -n 1 --json
chatml=$(json prompt_tokens)
expect 0 run -m "$folder/empty.gguf" -p "XYZ" -sys S -n 1 --json --chat-template chatml
expect_json prompt_tokens "$chatml"
names=$("$program" run --help | tr '\n' ' ' | sed -n 's/.*a file, or  *one of  *\([a-z0-9|]*\)\..*/\1/p' | tr '|' ' ')
checks=$((checks + 1))
[ "$(echo "$names" | wc -w)" -ge 10 ] || fail "the help names no templates: $names"
for name in $names; do
    expect 0 run -m "$folder/empty.gguf" -p "XYZ" -n 1 --json --chat-template "$name" -sys S
    case $(json prompt_tokens) in *"91,92,93"*) ;; *) fail "$name: $(json prompt_tokens)" ;; esac
done
printf '%s' '{{ messages[0].content }}{% if enable_thinking is false %}Z{% endif %}' >"$folder/own.jinja"
expect 0 run -m "$model" -p "X" -n 1 --json --chat-template "$folder/own.jinja"
expect_json prompt_tokens "[91]"
expect 0 run -m "$model" -p "X" -n 1 --json --chat-template "@$folder/own.jinja" \
    --chat-template-kwargs '{"enable_thinking": false}'
expect_json prompt_tokens "[91,93]"
# A byte-order mark says how a file is written and is no text: of a prompt, a system message, a template.
printf '\357\273\277XYZ\n' >"$folder/marked"
printf '{{ messages[0].content }}-' >"$folder/bare.jinja"
printf '\357\273\277{{ messages[0].content }}-' >"$folder/marked.jinja"
expect 0 run -m "$model" --raw -p XYZ -n 1 --json
plain=$(json prompt_tokens)
expect 0 run -m "$model" --raw -f "$folder/marked" -n 1 --json
expect_json prompt_tokens "$plain"
expect 0 run -m "$model" -p X -sys XYZ -n 1 --json --chat-template "$folder/bare.jinja"
plain=$(json prompt_tokens)
expect 0 run -m "$model" -p X -sysf "$folder/marked" -n 1 --json --chat-template "$folder/marked.jinja"
expect_json prompt_tokens "$plain"
printf 'root ::= "Z"' >"$folder/bare.gbnf"
printf '\357\273\277root ::= "Z"' >"$folder/marked.gbnf"
for form in bare marked; do
    expect 0 run -m "$model" --raw -p X -n 4 --json --temp 0 --grammar-file "$folder/$form.gbnf"
    expect_json text Z
done
# That of UTF-16, which a shell of Windows writes: every text is refused, none is answered or measured as noise.
for order in '\377\376X\0Y\0' '\376\377\0X\0Y'; do
    # shellcheck disable=SC2059 # the bytes are meant to be a format
    printf "$order" >"$folder/wide"
    wide='wide: this is written as UTF-16, .* iconv'
    expect_error 3 "$wide" run -m "$model" --raw -f "$folder/wide" -n 1
    expect_error 3 "$wide" run -m "$model" -f "$folder/wide" -n 1 --chat-template chatml
    expect_error 3 "$wide" run -m "$model" -p X -sysf "$folder/wide" -n 1
    expect_error 3 "$wide" run -m "$model" -p X --chat-template "$folder/wide"
    expect_error 3 "$wide" run -m "$model" -p X --grammar-file "$folder/wide"
    expect_error 3 "$wide" run -m "$model" -p X --plan "$folder/wide"
    expect_error 3 "$wide" batch -m "$model" -f "$folder/wide"
    expect_error 3 "$wide" perplexity -m "$model" -f "$folder/wide"
    expect_error 3 "$wide" eval -m "$model" --hellaswag "$folder/wide"
    expect_error 3 "$wide" profile -m "$model" -f "$folder/wide" -o "$folder/never"
    expect_error 3 "$wide" verify -m "$model" -f "$folder/wide" --sparsity 0.5
done
{ printf 'x'; head -c 1048576 /dev/zero | tr '\0' ' '; } >"$folder/long.jinja" # one byte more than is run
expect_error 2 "long.jinja: a chat template has 1048576 bytes at most" run -m "$model" -p X \
    --chat-template "$folder/long.jinja"
expect_error 2 "neither a file nor one of.*chatml" run -m "$model" -p X --chat-template nosuch
expect_error 2 "no JSON" run -m "$model" -p X --chat-template-kwargs '{enable_thinking: false}'
expect_error 2 "messages" run -m "$model" -p X --chat-template-kwargs '{"messages": []}'
expect_error 2 "raw" run -m "$model" --raw -p X --chat-template chatml
printf '%s' '{% if %}' >"$folder/bad.jinja"
expect_error 3 "chat template, line 1" run -m "$model" -p X --chat-template "$folder/bad.jinja"
# Some files have another engine's template.
LC_ALL=C sed 's/{% for message/{{ .System }}e/' "$model" >"$folder/other.gguf"
expect_error 3 "other.gguf: .*'run --chat-template NAME' takes another.*line 1" run -m "$folder/other.gguf" -p X
expect 0 run -m "$folder/other.gguf" -p X -n 1 --raw
tiny refused layers=2 "template={{ messages | nosuchfilter }}"
expect_error 3 "use 'run --raw' or 'run --chat-template NAME'" run -m "$folder/refused.gguf" -p X
expect 0 run -m "$folder/refused.gguf" -p "XYZ" -sys S -n 1 --json --chat-template chatml
expect_json prompt_tokens "$chatml"

# The context's end, stop words, errors.
expect 0 run -m "$model" --raw -p "XYZ" -c 16 --ignore-eos --json
expect_json stop_type context
expect_json n_ctx 16
expect_error 2 "context" run -m "$model" --raw -p "a long prompt that does not fit here" -c 8 --json
expect_error 2 "empty" run -m "$model" --raw -p "" --json
expect_error 2 "template" run -m "$model" --raw -p "x" -sys "y"
expect_error 2 "no prompt\|empty" run -m "$model" --json
expect_error 2 "top_p\|top-p" run -m "$model" -p x --top-p 7
tiny plain template=
expect 0 run -m "$folder/plain.gguf" -p "XYZ" -n 1 --json
expect_json prompt_tokens "[91,92,93]"

# A bias: a token is taken for sure, and never.
expect 0 run -m "$model" --raw -p "XYZ" -n 3 --temp 0 -l 91+1000000 --ignore-eos --draft-max 0 --json
expect_json tokens "[91,91,91]"
expect 0 run -m "$model" --raw -p "XYZ" -n 3 --temp 2 --top-k 0 -l 91+1000000 -l 92+1000001 --json \
    --logit-bias 92-inf --xtc-probability 1 --xtc-threshold 0.2 --typical 0.9 --top-n-sigma 3 --dynatemp-range 1
expect_json tokens "[91,91,91]"
for bias in 91 +5 91+ 91+x 91-nan 91+inf 91+1e39 99999999999+1 x+1; do
    expect_error 2 "no token's id" run -m "$model" --raw -p "XYZ" -n 3 -l "$bias"
done
expect_error 2 "typical: 7 lies outside 0 .. 1" run -m "$model" --raw -p "XYZ" --typical 7
expect_error 2 "dynatemp-range: 1e+39 lies outside" run -m "$model" --raw -p "XYZ" --dynatemp-range 1e39
expect_error 2 "repeat-penalty: 0 is too small" run -m "$model" --raw -p "XYZ" --repeat-penalty 0

# A stop word ends the answer before itself: a letter of an answer that has one.
sampled="--temp 1.5 --top-k 0 --top-p 1 --min-p 0 -s 3 -n 40 --ignore-eos"
# shellcheck disable=SC2086 # options
expect 0 run -m "$model" -p "the hand" $sampled --json
text=$(json text)
letter=$(printf '%s' "$text" | tr -cd 'a-zA-Z' | head -c 1)
[ -n "$letter" ] || fail "the tiny model's answer has no letter: $text"
# shellcheck disable=SC2086
expect 0 run -m "$model" -p "the hand" $sampled --json -r "no such text" -r "$letter"
expect_json stop_type word
expect_json text "${text%%"$letter"*}"
# shellcheck disable=SC2086
expect 0 run -m "$model" -p "the hand" $sampled -r "$letter"
expect_text "$folder/out" "${text%%"$letter"*}"

# A longer stop word that the answer only begins does not hide one that is there.
# shellcheck disable=SC2086
expect 0 run -m "$model" -p "the hand" $sampled --json -r "$text~" -r "$letter"
expect_json stop_type word
expect_json text "${text%%"$letter"*}"

# Ctrl-C ends the answer with what there is, and tells.
tiny slow layers=8 embedding=512 feed_forward=4096 heads=8 heads_kv=8 context=20000 type=Q8_0
model=$folder/slow.gguf
: >"$folder/out"
"$program" run -m "$model" --raw -p XYZ --ignore-eos -c 20000 >"$folder/out" 2>"$folder/err" </dev/null &
pid=$!
waited=0
while [ ! -s "$folder/out" ] && [ $waited -lt 60 ]; do
    sleep 1
    waited=$((waited + 1))
done
kill -INT $pid
wait $pid
code=$?
checks=$((checks + 1))
[ "$code" = 130 ] || fail "an interruption gives exit code $code, not 130"
[ -s "$folder/out" ] || fail "nothing was answered before the interruption"
grep -q 'ended by: interrupted' "$folder/err" || fail "the report does not tell of the interruption: $(cat "$folder/err")"

# An interrupted prompt tells what was read, not what was asked for.
head -c 19000 /dev/zero | tr '\0' X >"$folder/long"
for seconds in 2 4 8 16 32; do
    timeout --preserve-status -s INT $seconds "$program" run -m "$model" --raw -f "$folder/long" -b 16 -n 1 \
        -c 20000 --json >"$folder/out" 2>"$folder/err" </dev/null
    code=$?
    [ "$code" = 130 ] || fail "an interrupted prompt gives exit code $code, not 130"
    [ -s "$folder/out" ] && [ "$(json timings.prompt_n)" -gt 0 ] && break
done
expect_json stop_type interrupted
expect_json '#tokens' 0
read_tokens=$(json timings.prompt_n)
[ "$read_tokens" -gt 0 ] && [ "$read_tokens" -lt 19000 ] && [ $((read_tokens % 16)) = 0 ] ||
    fail "an interrupted prompt of 19000 tokens has read $read_tokens"
grep -q "^prompt   $read_tokens of 19000 tokens, .*(interrupted)" "$folder/err" ||
    fail "the report does not tell how much was read: $(cat "$folder/err")"

# With --json too, once it is past loading: how long that takes depends on the machine.
for seconds in 1 3 10 30; do
    timeout --preserve-status -s INT $seconds "$program" run -m "$model" --raw -p XYZ --ignore-eos -c 20000 \
        --json >"$folder/out" 2>"$folder/err" </dev/null
    code=$?
    [ "$code" = 130 ] || fail "an interruption gives exit code $code, not 130"
    [ -s "$folder/out" ] && [ "$(json '#tokens')" -gt 0 ] && break
done
expect_json stop_type interrupted
[ "$(json '#tokens')" -gt 0 ] || fail "--json has no tokens after an interruption"
finish
