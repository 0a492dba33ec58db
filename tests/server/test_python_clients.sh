#!/bin/sh
# Goal:   the official Python clients of OpenAI, Anthropic and Ollama work with the server: chat, streams, tools, errors,
#         keys, a stream that is closed.
# Method: python_clients.py; skipped where a client is absent (pip install openai anthropic ollama).
. "$(dirname "$0")/../cli/cli_support.sh"
command -v python3 >/dev/null || { echo "no python3, which has the clients"; exit 77; }
tiny m layers=2 context=1024
checks=$((checks + 1))
timeout 120 python3 "$(dirname "$0")/python_clients.py" "$program" "$folder/m.gguf" >"$folder/out" 2>&1
code=$?
cat "$folder/out"
[ $code = 77 ] && exit 77
[ $code = 0 ] || fail "python_clients.py: exit code $code"
finish
