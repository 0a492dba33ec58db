#!/bin/sh
# run.sh: answers $PROMPT with $MODEL (or the default model) within $MEMORY.
set -eu
cd "$(dirname "$0")/.."
model=${MODEL:-$(scripts/model.sh)}
exec ./build/powerinfer2 run -m "$model" --memory "${MEMORY:-64M}" -p "$PROMPT"
