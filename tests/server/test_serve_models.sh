#!/bin/sh
# Goal:   a folder's models are loaded by name, one at a time, each with the answers of run; those that ask for different
#         ones take turns; an idle one gives its memory back; what is no model, or damaged, is told and harms none.
# Method: servers over a folder with two tiny models, links, parts and a damaged file; models_clients.py as their clients.
. "$(dirname "$0")/../cli/cli_support.sh"
command -v python3 >/dev/null || { echo "no python3, which is the client here"; exit 77; }

tiny a layers=2 context=8192
tiny b layers=4 embedding=512 feed_forward=2048 heads=8 heads_kv=2 context=8192 type=Q8_0 advises=top_k:17
mkdir "$folder/models" "$folder/models/d.gguf" "$folder/empty"
mv "$folder/a.gguf" "$folder/models"
ln -s ../b.gguf "$folder/models/b.gguf"
ln -s ../nowhere.gguf "$folder/models/lost.gguf"
head -c 3000 "$folder/models/a.gguf" >"$folder/models/damaged.gguf"
for name in split-00002-of-00002.gguf .hidden.gguf notes.txt; do cp "$folder/models/damaged.gguf" "$folder/models/$name"; done
mkfifo "$folder/models/pipe.gguf"
expect_error 2 "--models and -m exclude each other" serve --models "$folder/models" -m "$folder/b.gguf"
expect_error 2 "--models and --alias exclude each other" serve --models "$folder/models" -a name
expect_error 2 "--idle-unload goes with --models" serve -m "$folder/b.gguf" --idle-unload 5
expect_error 5 "--models $folder/none: No such file" serve --models "$folder/none"
sanitized=
ldd "$program" | grep -q 'lib[atu]*san' && sanitized=sanitized # its memory tells nothing
checks=$((checks + 1))
# shellcheck disable=SC2086 # nothing where it is empty
python3 "$(dirname "$0")/models_clients.py" "$program" "$folder" $sanitized || fail "models_clients.py"
finish
