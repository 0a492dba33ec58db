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
expect 0 inspect -m "$folder/strange.gguf"
grep -q '^runs here *no' "$folder/out" || fail "inspect thinks that it can be run"
grep -q '^because .*strange' "$folder/out" || fail "inspect gives no reason"
expect_error 3 "strange" run -m "$folder/strange.gguf" -p hello
expect_error 3 "strange" prepare -m "$folder/strange.gguf" -o "$folder/never.pi2"
finish
