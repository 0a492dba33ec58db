#!/bin/sh
# Goal:   a server's answers are those of run, in the forms of each API, whole and streamed; what is wrong is refused with
#         the right status; a client that goes away ends its answer; keys, origins and the queue hold; a signal ends it.
# Method: a server with a tiny model on a port of its own, and serve_client.py as its clients.
. "$(dirname "$0")/../cli/cli_support.sh"
command -v python3 >/dev/null || { echo "no python3, which is the client here"; exit 77; }

tiny m layers=2 context=2048
tiny plain layers=2 context=2048 template=
expect_error 2 "no model" serve
expect_error 2 "exclude each other" serve -m "$folder/m.gguf" --api-key a --api-key-file b
: >"$folder/empty"
expect_error 2 "holds no key" serve -m "$folder/m.gguf" --api-key-file "$folder/empty"
head -c 65537 /dev/zero | tr '\0' k >"$folder/long" # cut, it would be a key that nobody gave
expect_error 2 "more than 65536 bytes" serve -m "$folder/m.gguf" --port 0 --api-key-file "$folder/long"
expect_error 2 "more than 65536 bytes" serve -m "$folder/m.gguf" --port 0 --ssl-key-file "$folder/long" \
    --ssl-cert-file "$folder/empty"
expect_error 2 "name the origins" serve -m "$folder/m.gguf" --cors-origins '*'
expect_error 5 "model.gguf" serve -m "$folder/no-model.gguf" --port 0
expect_error 5 "host" serve -m "$folder/m.gguf" --host no.such.name.invalid --port 0 -q
expect 5 serve -m "$folder/no-model.gguf" --host 0.0.0.0 --port 0
grep -q "warning: everybody" "$folder/err" || fail "a server for everybody without a key is not warned of"
expect 0 run -m "$folder/m.gguf" -p "Why is it so?" --temp 0 -n 24 -c 2048 -q
cp "$folder/out" "$folder/answer"
expect 0 run -m "$folder/m.gguf" -p "Why is it so?" --temp 1 -s 7 -n 24 -c 2048 -q
cp "$folder/out" "$folder/sampled"
checks=$((checks + 1))
python3 "$(dirname "$0")/serve_client.py" "$program" "$folder" || fail "serve_client.py"
finish
