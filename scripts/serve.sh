#!/bin/sh
# serve.sh: serves $MODEL (or the default model) on $PORT of this machine within $MEMORY, until Ctrl-C.
#
# The default model says what it finds likeliest, as with run.sh, where a request asks for nothing else.
set -eu
cd "$(dirname "$0")/.."
if [ -z "${MODEL:-}" ]; then
    model=$(scripts/model.sh)
    set -- --temp 0 --repeat-penalty 1.05
else
    model=$MODEL
    set --
fi
exec "${PROGRAM:-./build/powerinfer2}" serve -m "$model" --memory "${MEMORY:-64M}" --port "${PORT:-8080}" "$@"
