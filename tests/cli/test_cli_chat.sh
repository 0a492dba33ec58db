#!/bin/sh
# Goal:   on a terminal run is a chat: it keeps what it has computed of earlier turns, answers go to
#         stdout alone, and Ctrl-D or /exit ends it well; what is typed, pasted, refused, stopped and
#         interrupted comes to what docs/chat.md says.
# Method: script(1) as the terminal, with typed lines from a file; chat_terminal.py for keys and signals.
. "$(dirname "$0")/cli_support.sh"
if ! script -qec true /dev/null </dev/null >/dev/null 2>&1; then
    echo "SKIPPED: chat (no script(1) that makes a terminal)"
    exit 77
fi
tiny model layers=2 context=512
model=$folder/model.gguf

# until_answers NUMBER: until so many answers have their report, or the chat has ended.
until_answers() {
    waited=0
    while [ ! -e "$folder/ended" ] && [ "$(grep -c '^context  ' "$folder/err")" -lt "$1" ] && [ $waited -lt 500 ]; do
        sleep 0.1
        waited=$((waited + 1))
    done
}

# chat LINES...: types the lines, each after the answer to the one before, and Ctrl-D; what the terminal showed is in
# $folder/out. The terminal stays until the chat has ended.
chat() {
    printf '%s\n' "$@" >"$folder/typed"
    rm -f "$folder/ended"
    : >"$folder/err"
    command="'$program' run -m '$model' -n 5 --temp 0 --ignore-eos ${chat_options:-} 2>'$folder/err'; code=\$?; "
    (
        answers=0
        while IFS= read -r line; do
            printf '%s\n' "$line"
            case $line in /regen) ;; /*) continue ;; esac
            answers=$((answers + 1))
            until_answers $answers
        done <"$folder/typed"
        printf '\004'
        until_answers 1000
    ) | timeout 60 script -qec "$command : >'$folder/ended'; exit \$code" /dev/null >"$folder/out"
    code=$?
}

chat "XYZ" "the hand"
checks=$((checks + 1))
[ "$code" = 0 ] || fail "exit code $code after Ctrl-D"
[ "$(grep -c '^first token after' "$folder/err")" = 2 ] || fail "not two answers: $(cat "$folder/err")"
# The second turn's prompt holds the first turn, which is not computed again.
prompts=$(sed -n 's/^\(> \)*prompt *\([0-9]*\) tokens.*/\2/p' "$folder/err" | tr '\n' ' ')
checks=$((checks + 1))
# shellcheck disable=SC2086 # two numbers
set -- $prompts
[ $# = 2 ] && [ "$2" -lt "$1" ] || fail "prompt tokens computed: $prompts"

# /clear forgets: the same message gives the same answer again.
chat "XYZ" "/clear" "XYZ" "/exit"
checks=$((checks + 1))
[ "$code" = 0 ] || fail "exit code $code after /exit"
[ "$(grep -c '^first token after' "$folder/err")" = 2 ] || fail "not two answers: $(cat "$folder/err")"

# What is taken back, answered again, saved and loaded: answers to a file, so that they can be compared.
# answers LINES...: the chat's answers, one a line, in $folder/answers.
answers() {
    chat_options="$answer_options >'$folder/answers'"
    chat "$@"
    chat_options=
    checks=$((checks + 1))
    [ "$code" = 0 ] || fail "exit code $code of: $*"
}
# computed: tokens of each prompt that were computed.
computed() { sed -n 's/^\(> \)*prompt *\([0-9]*\) tokens.*/\2/p' "$folder/err" | tr '\n' ' '; }
varied="--repeat-penalty 2 --repeat-last-n -1" # or a tiny model gives one answer to everything
answer_options=$varied
answers "XYZ" "the hand" "/undo" "the hand" "/regen" "/undo" "/undo" "/undo" "XYZ"
lines=$(LC_ALL=C sort "$folder/answers" | LC_ALL=C uniq -c | sort -n | awk '{ print $1 }' | tr '\n' ' ')
[ "$lines" = "2 3 " ] || fail "answers after /undo and /regen: $(cat "$folder/answers")"
[ "$(sed -n 1p "$folder/answers")" = "$(sed -n 5p "$folder/answers")" ] || fail "/undo left something: $(cat "$folder/answers")"
grep -q 'there is no message to take back' "$folder/err" || fail "/undo of nothing: $(cat "$folder/err")"
answers "/regen " "/save" "/save $folder/none/such" "/load $folder/none" "/load $model" "/help" "XYZ"
for text in 'no answer to make again' 'needs the name of a file' 'no tokens yet' "$folder/none: " 'no saved session' \
    '/save FILE  *writes the conversation'; do
    grep -q -- "$text" "$folder/err" || fail "no '$text' in: $(cat "$folder/err")"
done
[ "$(wc -l <"$folder/answers")" = 1 ] || fail "a command was sent: $(cat "$folder/answers")"
answers "XYZ" "/save $folder/talk  " "the hand"
cp "$folder/answers" "$folder/first"
wanted=$(computed)
[ "$(stat -c %a "$folder/talk")" = 600 ] || fail "a saved chat has $(stat -c %a "$folder/talk")"
# Another run goes on from it, at another context and thread count, and reads nothing again.
answer_options="$varied -t 1 -c 400"
answers "/load $folder/talk" "the hand" "/undo" "/undo" "XYZ"
[ "$(sed -n 1p "$folder/answers")" = "$(sed -n 2p "$folder/first")" ] || fail "another answer: $(cat "$folder/answers")"
[ "$(sed -n 2p "$folder/answers")" = "$(sed -n 1p "$folder/first")" ] || fail "another first answer: $(cat "$folder/answers")"
case " $(computed)" in " ${wanted#* }"*) ;; *) fail "computed $(computed) after /load, $wanted before" ;; esac
# What was cleared is in no file, nor what was taken back.
answer_options=$varied
answers "a secret" "/clear" "/save $folder/nothing" "XYZ" "more of it" "/undo" "/save $folder/less" "/load $folder/less" "the hand"
[ -e "$folder/nothing" ] && fail "a cleared chat was saved"
grep -aq 'secret\|more of it' "$folder/less" && fail "what was taken back was saved"
[ "$(sed -n 4p "$folder/answers")" = "$(sed -n 2p "$folder/first")" ] || fail "another answer after /undo: $(cat "$folder/answers")"
# Another model's is refused, and the chat goes on; so does one whose file is damaged.
tiny stranger layers=2 context=512 seed=9
model=$folder/stranger.gguf
answers "/load $folder/talk" "XYZ"
grep -q 'saved with another model' "$folder/err" || fail "another model's: $(cat "$folder/err")"
[ -s "$folder/answers" ] || fail "no answer after a refused file"
model=$folder/model.gguf
printf 'XXXX' | dd of="$folder/talk" bs=1 seek=9000 conv=notrunc 2>/dev/null
answers "XYZ" "/load $folder/talk" "the hand"
grep -q 'do not match their checksum' "$folder/err" || fail "a damaged file: $(cat "$folder/err")"
cmp -s "$folder/answers" "$folder/first" || fail "a damaged file changed the chat: $(cat "$folder/answers")"

# A model without a template is no partner.
tiny plain template=
model=$folder/plain.gguf
chat "XYZ"
[ "$code" = 2 ] || fail "exit code $code without a chat template"
grep -q 'no chat template' "$folder/err" || fail "the error does not name the template"
# A template by name makes it one.
chat_options="--chat-template chatml"
chat "XYZ" "/exit"
[ "$code" = 0 ] || fail "exit code $code with --chat-template"
[ "$(grep -c '^first token after' "$folder/err")" = 1 ] || fail "no answer with --chat-template: $(cat "$folder/err")"

if command -v python3 >/dev/null; then
    tiny chat layers=2 context=16384
    tiny slow layers=8 embedding=512 feed_forward=4096 heads=8 heads_kv=8 context=20000 type=Q8_0
    tiny refuses layers=2 "template={% for m in messages %}{% if m.content == 'bad' %}\
{{ raise_exception('no bad words') }}{% endif %}<|im_start|>{{ m.role }} {{ m.content }}<|im_end|>{% endfor %}<|im_start|>assistant "
    checks=$((checks + 1))
    python3 "$(dirname "$0")/chat_terminal.py" "$program" "$folder" || fail "chat_terminal.py"
else
    echo "no python3: keys, pastes and signals of the chat were not tested"
fi
finish
