#!/bin/sh
# Goal:   the first answer that anybody sees, that of `make run`, is right, and the README shows it as it is.
# Method: scripts/run.sh with the Makefile's own prompt and the real default model, at several memory limits,
#         numbers of threads and instruction sets.
. "$(dirname "$0")/cli_support.sh"
if [ -z "${PI2_TEST_MODEL:-}" ]; then
    echo "SKIPPED: the first run (PI2_TEST_MODEL does not name the default model)"
    exit 77
fi
root=$(cd "$(dirname "$0")/../.." && pwd)
PROMPT=$(sed -n 's/^PROMPT ?= //p' "$root/Makefile")
MODEL=$PI2_TEST_MODEL
PROGRAM=$program
export PROMPT MODEL PROGRAM
answer='1. Water
2. Light
3. Nutrients'

# first_run MEMORY [VARIABLE=VALUE]...
first_run() {
    memory=$1
    shift
    env "$@" MEMORY="$memory" timeout 200 "$root/scripts/run.sh" >"$folder/out" 2>"$folder/err" </dev/null ||
        fail "make run in $memory $*: $(cat "$folder/err")"
    expect_text "$folder/out" "$answer"
}
case $PROMPT in *"three things that a plant needs"*) ;; *) fail "the question has changed: $PROMPT" ;; esac
first_run 64M
first_run 64M
first_run 48M LLAMA_ARG_THREADS=1
first_run 400M LLAMA_ARG_THREADS=2
first_run 64M LLAMA_ARG_THREADS=3 PI2_CPU=scalar

# The README's first transcript.
sed -n '/^\$ .*powerinfer2 run/,/^prompt/p' "$root/README.md" | grep '^[0-9]' >"$folder/shown"
expect_text "$folder/shown" "$answer"
grep -qF -- "-p \"$PROMPT\"" "$root/README.md" || fail "the README asks something else"
finish
