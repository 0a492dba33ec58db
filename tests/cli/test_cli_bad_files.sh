#!/bin/sh
# Goal:   what is no model, or a damaged one, gets one line that names the file, the right exit
#         code, and nothing on stdout, from every command that opens a model.
# Method: missing, folder, empty, text, truncated at many places, unknown architecture and type.
. "$(dirname "$0")/cli_support.sh"
tiny good layers=1
good=$folder/good.gguf
printf 'A text that is no model\n' >"$folder/text.gguf"
: >"$folder/empty.gguf"
mkdir "$folder/folder.gguf"

# each CODE PATTERN FILE
each() {
    expect_error "$1" "$2" run -m "$3" -p hello --json
    expect_error "$1" "$2" run -m "$3" -p hello
    expect_error "$1" "$2" perplexity -m "$3" -f "$folder/text.gguf"
    expect_error "$1" "$2" bench -m "$3" -p 4 -n 0
    expect_error "$1" "$2" prepare -m "$3" -o "$folder/never.pi2"
    [ -e "$folder/never.pi2" ] && fail "prepare of $3 left a file"
    expect_error "$1" "$2" inspect -m "$3"
    expect_error "$1" "$2" tokenize -m "$3" -p hello
}
each 5 missing.gguf "$folder/missing.gguf"
each 3 text.gguf "$folder/text.gguf"
each 3 empty.gguf "$folder/empty.gguf"
run inspect -m "$folder/folder.gguf"
folder_code=$code
case $folder_code in 3 | 5) ;; *) fail "a folder as model: exit code $folder_code" ;; esac
each "$folder_code" folder.gguf "$folder/folder.gguf"

size=$(wc -c <"$good")
for share in 1 4 16 64 300 1000 5000 9000 12000 20000; do
    [ "$share" -lt "$size" ] || continue
    head -c "$share" "$good" >"$folder/cut.gguf"
    expect_error 3 cut.gguf inspect -m "$folder/cut.gguf"
    expect_error 3 cut.gguf run -m "$folder/cut.gguf" -p hello --json
done
head -c $((size - 100)) "$good" >"$folder/cut.gguf"
each 3 cut.gguf "$folder/cut.gguf"

# Known by inspect and tokenize, but not to be run.
tiny strange architecture=strange layers=1
expect 3 inspect -m "$folder/strange.gguf"
grep -q '^runs here *no' "$folder/out" || fail "inspect thinks that it can be run"
grep -q '^because .*strange' "$folder/out" || fail "inspect gives no reason"
expect_error 3 "strange" run -m "$folder/strange.gguf" -p hello
expect_error 3 "strange" prepare -m "$folder/strange.gguf" -o "$folder/never.pi2"

# One answer: what run refuses, inspect, plan and prepare refuse in the same words, and nothing is written or measured.
# refused PATTERN FILE
refused() {
    for command in "run -p hello" "plan" "prepare -o $folder/never.pi2" "prepare"; do
        # shellcheck disable=SC2086
        expect_error 3 "$1" $command -m "$2"
        [ -n "$reason" ] && [ "$(cat "$folder/err")" != "$reason" ] && fail "$command of $2 says: $(cat "$folder/err")"
        reason=$(cat "$folder/err")
    done
    expect 3 inspect -m "$2"
    grep -q '^runs here *no' "$folder/out" || fail "inspect thinks that $2 can be run"
    grep -q "^because *.*$1" "$folder/out" || fail "inspect of $2 gives no reason: $(cat "$folder/out")"
    [ "$(cat "$folder/err")" = "$reason" ] || fail "inspect of $2 says: $(cat "$folder/err")"
    expect 3 inspect -m "$2" --json
    expect_json runnable false
    [ "powerinfer2: $(json not_runnable_reason)" = "$reason" ] || fail "inspect --json of $2: $(json not_runnable_reason)"
    [ -z "$(find "$folder" -name '*.pi2' -o -name '.*.tmp' -o -name '*.profile')" ] || fail "$2 left a file: $(ls -A "$folder")"
    reason=
}
reason=
LC_ALL=C sed 's/smollm/smallm/' "$good" >"$folder/pre.gguf"
refused "pre.gguf: .*pre-tokenizer 'smallm'" "$folder/pre.gguf"
LC_ALL=C sed 's/gpt2/gpt9/' "$good" >"$folder/vocabulary.gguf"
refused "vocabulary.gguf: .*is 'gpt9'" "$folder/vocabulary.gguf"
LC_ALL=C sed 's/blk.0.ffn_norm.weight/blk.0.ffn_xorm.weight/' "$good" >"$folder/norm.gguf"
refused "norm.gguf: tensor 'ffn_norm.weight' is missing" "$folder/norm.gguf"

# A template that cannot be used is no reason: the model runs with --raw, and everyone says so.
tiny template layers=1 template='{{ messages[0].content | nosuchfilter }}'
expect 0 inspect -m "$folder/template.gguf"
grep -q '^runs here *yes' "$folder/out" || fail "a template keeps a model from running"
grep -q '^note *its chat template cannot be used: .*nosuchfilter.*--raw' "$folder/out" || fail "inspect tells nothing of the template"
expect 0 inspect -m "$folder/template.gguf" --json
case $(json note) in *nosuchfilter*) ;; *) fail "inspect --json tells nothing of the template" ;; esac
expect 0 prepare -m "$folder/template.gguf"
grep -q 'its chat template cannot be used: .*--raw' "$folder/err" || fail "prepare tells nothing of the template"
have_profile
expect 0 plan -m "$folder/template.gguf" -c 64
[ "$(grep -c 'its chat template cannot be used: .*--raw' "$folder/err")" = 1 ] || fail "plan: $(cat "$folder/err")"
expect 0 run -m "$folder/template.gguf" --raw -p hello -n 2 -q
expect 3 run -m "$folder/template.gguf" -p hello -n 2 -q
finish
