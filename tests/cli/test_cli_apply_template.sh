#!/bin/sh
# Goal:   apply-template prints the prompt and nothing else, or one line that says what is wrong and where.
# Method: small templates and conversations; a tiny model with a template; JSON that is wrong in each of its ways.
. "$(dirname "$0")/cli_support.sh"
messages=$folder/messages.json
tools=$folder/tools.json
template=$folder/template.jinja
printf '%s' '[{"role": "system", "content": "Be \"brief\"."}, {"role": "user", "content": "Hi\n\u00e9"}]' >"$messages"
printf '%s' '[{"type": "function", "function": {"name": "now", "parameters": {"a": 1.50, "b": [true, null]}}}]' >"$tools"
printf '%s' '{{ bos_token }}{{ tools | tojson }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ eos_token }}
{% endfor %}{% if add_generation_prompt %}>{% endif %}{{ x }}' >"$template"

expect 0 apply-template --chat-template "$template" --messages "$messages"
printf 'null[system]Be "brief".\n[user]Hi\n\303\251\n>' | cmp -s - "$folder/out" || fail "the prompt: $(cat "$folder/out")"
[ -s "$folder/err" ] && fail "stderr: $(cat "$folder/err")"
expect 0 apply-template --chat-template "$template" --messages "$messages" --tools "$tools" --no-generation-prompt \
    --kwargs '{"x": {"y": ["z", 1e2]}, "bos_token": "<s>"}'
printf '%s' '<s>[{"type": "function", "function": {"name": "now", "parameters": {"a": 1.5, "b": [true, null]}}}]' \
    >"$folder/wanted"
printf '[system]Be "brief".\n[user]Hi\n\303\251\n%s' "{'y': ['z', 100.0]}" >>"$folder/wanted"
cmp -s "$folder/wanted" "$folder/out" || fail "the prompt with tools: $(cat "$folder/out")"

# From stdin, with a byte-order mark; a known name; a day and a time.
checks=$((checks + 1))
{ printf '\357\273\277'; cat "$messages"; } | "$program" apply-template --chat-template chatml --messages - >"$folder/out"
grep -q '^<|im_start|>assistant' "$folder/out" || fail "chatml from stdin: $(cat "$folder/out")"
printf '%s' '{{ strftime_now("%d %b %Y %H:%M") }}' >"$folder/clock"
expect 0 apply-template --chat-template "$folder/clock" --messages "$messages" --date "2024-02-29 23:59:01"
printf '29 Feb 2024 23:59' | cmp -s - "$folder/out" || fail "the clock: $(cat "$folder/out")"
# Every conversion, as Python's strftime() has it, at the turn of a year of which ISO's weeks have another one.
printf '%s' '{{ strftime_now("%a %A %b %B %c %C %d %D %e %F %g %G %h %H %I %j %k %l %m %M %p %P %r %R %S %T %u %U %V %w %W %x %X %y %Y%z%Z %% %f %-d %-m %-j %-H") }}' >"$folder/clock"
expect 0 apply-template --chat-template "$folder/clock" --messages "$messages" --date "2024-12-30 03:05:09"
wanted_time="Mon Monday Dec December Mon Dec 30 03:05:09 2024 20 30 12/30/24 30 2024-12-30 25 2025 Dec 03 03 365  3  3 12 05 AM am 03:05:09 AM 03:05 09 03:05:09 1 52 01 1 53 12/30/24 03:05:09 24 2024 % 000000 30 12 365 3"
[ "$(cat "$folder/out")" = "$wanted_time" ] || fail "a Monday: $(cat "$folder/out")"
expect 0 apply-template --chat-template "$folder/clock" --messages "$messages" --date 2023-01-01
wanted_time="Sun Sunday Jan January Sun Jan  1 00:00:00 2023 20 01 01/01/23  1 2023-01-01 22 2022 Jan 00 12 001  0 12 01 00 AM am 12:00:00 AM 00:00 00 00:00:00 7 01 52 0 00 01/01/23 00:00:00 23 2023 % 000000 1 1 1 0"
[ "$(cat "$folder/out")" = "$wanted_time" ] || fail "a Sunday: $(cat "$folder/out")"
expect_error 2 "no date" apply-template --chat-template "$folder/clock" --messages "$messages" --date tomorrow

# A model's own template and tokens; nothing else of the model is needed.
tiny bpe vocabulary=bpe template='{{ bos_token }}|{{ messages[1].content[:2] }}|{{ eos_token }}'
expect 0 apply-template -m "$folder/bpe.gguf" --messages "$messages"
printf '<|im_start|>|Hi|<|im_end|>' | cmp -s - "$folder/out" || fail "the model's: $(cat "$folder/out")"
tiny plain vocabulary=bpe template=
expect_error 3 "has no chat template" apply-template -m "$folder/plain.gguf" --messages "$messages"

# What the template refuses is refused with its words.
printf '%s' '{{ raise_exception("Roles must alternate!") }}' >"$folder/refuses"
expect_error 3 "line 1, column 4: .*Roles must alternate!" apply-template --chat-template "$folder/refuses" \
    --messages "$messages"

# What is no JSON, or none of this form.
wrong() { # wrong PATTERN TEXT
    printf '%s' "$2" >"$folder/wrong.json"
    expect_error 2 "$1" apply-template --chat-template chatml --messages "$folder/wrong.json"
    expect_error 2 "$(echo "$1" | sed 's/^messages/tools/')" apply-template --chat-template chatml \
        --messages "$messages" --tools "$folder/wrong.json"
}
wrong "are no JSON: .*line 1, column" ''
wrong "messages are no JSON: .*(line 2, column 6; at byte" '[{},
{"a":]'
wrong "are no JSON" "[{\"a\": \"$(printf '\377')\"}]"
wrong "are no JSON: .*integer" '[{"a": 18446744073709551616}]'
wrong "messages are a JSON array of objects, and this is none" '{"role": "user"}'
wrong "messages are a JSON array of objects, and number 2 is none" '[{}, "a"]'
wrong "messages nest more than 100 deep" \
    "[{\"a\": $(head -c 200 /dev/zero | tr '\0' '[')$(head -c 200 /dev/zero | tr '\0' ']')}]"
wrong "no JSON: .*depth" "$(head -c 100000 /dev/zero | tr '\0' '[')"
printf '%s' '{"messages": []}' >"$folder/wrong.json"
expect_error 2 "give the value of its member" apply-template --chat-template chatml --messages "$folder/wrong.json"
head -c 16777217 /dev/zero >"$folder/large"
expect_error 2 "16777216 bytes of JSON are read at most" apply-template --chat-template chatml --messages "$folder/large"
expect_error 2 "'messages' cannot be a variable" apply-template --chat-template chatml --messages "$messages" \
    --kwargs '{"messages": []}'
expect_error 2 "'tools' cannot be a variable" apply-template --chat-template chatml --messages "$messages" \
    --tools "$tools" --kwargs '{"tools": []}'
expect_error 2 "no messages" apply-template --chat-template chatml
expect_error 2 "no model and no chat template" apply-template --messages "$messages"
expect_error 2 "either the messages or the tools" apply-template --chat-template chatml --messages - --tools -
expect_error 5 "missing" apply-template --chat-template chatml --messages "$folder/missing"
expect_error 2 "neither a file nor one of" apply-template --chat-template "$folder/missing" --messages "$messages"
finish
