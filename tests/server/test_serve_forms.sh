#!/bin/sh
# Goal:   an answer whose form is asked for, in each API's way, has it: a model with random weights writes JSON that
#         satisfies 70 schemas; what cannot be obeyed is refused; guesses and threads change no text.
# Method: a server with a tiny model, and form_clients.py as its client, which holds the answers against the Python
#         package jsonschema where that is installed.
. "$(dirname "$0")/../cli/cli_support.sh"
command -v python3 >/dev/null || { echo "no python3, which is the client here"; exit 77; }

tiny m layers=1 context=2048 \
    template='{%- for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}{% set f = c.function %}
{%- if form == "mistral" %}[TOOL_CALLS][{"name": "{{ f.name }}"}]
{%- elif form == "mistral-new" %}[TOOL_CALLS]{{ f.name }}[ARGS]{}
{%- elif form == "deepseek" %}<｜tool▁call▁begin｜>{{ f.name }}<｜tool▁sep｜>{}
{%- elif form == "deepseek-r1" %}<｜tool▁call▁begin｜>function<｜tool▁sep｜>{{ f.name }}
{%- elif form == "harmony" %}<|channel|>commentary
{%- elif form == "gemma" %}<|tool_call>call:
{%- elif form == "llama" %}{"name": "{{ f.name }}", "parameters": {}}
{%- else %}<tool_call>{% endif %}{% endfor %}{% endfor %}
{%- if thinks %}<think>{% endif %}{% if form == "harmony" %}<|start|>assistant{% endif %}'
# HTTPS, with a certificate of its own.
expect_error 2 "needs both" serve -m "$folder/m.gguf" --ssl-cert-file "$folder/c"
expect_error 5 "no-such-file" serve -m "$folder/m.gguf" --ssl-cert-file "$folder/no-such-file" --ssl-key-file "$folder/k"
echo no PEM >"$folder/k"
expect_error 5 "belong together" serve -m "$folder/m.gguf" --port 0 --ssl-cert-file "$folder/k" --ssl-key-file "$folder/k"
command -v openssl >/dev/null && openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost -keyout "$folder/key.pem" -out "$folder/cert.pem" 2>/dev/null ||
    echo "no openssl, which makes a certificate here: HTTPS is not tried"
checks=$((checks + 1))
memory=64M
ldd "$program" | grep -q 'lib[atu]*san' && memory=1G # a sanitizer's own memory is more than that
python3 "$(dirname "$0")/form_clients.py" "$program" "$folder" "$(dirname "$0")/../grammar/schemas.json" $memory ||
    fail "form_clients.py"
finish
