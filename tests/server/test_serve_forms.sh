#!/bin/sh
# Goal:   an answer whose form is asked for, in each API's way, has it: a model with random weights writes JSON that
#         satisfies 70 schemas; what cannot be obeyed is refused; guesses and threads change no text.
# Method: a server with a tiny model, and form_clients.py as its client, which holds the answers against the Python
#         package jsonschema where that is installed.
. "$(dirname "$0")/../cli/cli_support.sh"
command -v python3 >/dev/null || { echo "no python3, which is the client here"; exit 77; }

tiny m layers=1 context=2048 \
    template='{% for m in messages %}{{ m.content }}{% endfor %}{% if thinks %}<think>{% endif %}'
checks=$((checks + 1))
python3 "$(dirname "$0")/form_clients.py" "$program" "$folder" "$(dirname "$0")/../grammar/schemas.json" ||
    fail "form_clients.py"
finish
