#!/bin/sh
# run.sh: answers $PROMPT with $MODEL (or the default model) within $MEMORY.
#
# The default model is small: at the temperature that `run` takes by itself (0.8, as elsewhere) it talks
# nonsense as often as not. Here it says what it finds likeliest, which is the same on every machine, and a
# slight penalty for repetition keeps it out of the endless loops that this leads small models into.
set -eu
cd "$(dirname "$0")/.."
model=${MODEL:-$(scripts/model.sh)}
exec "${PROGRAM:-./build/powerinfer2}" run -m "$model" --memory "${MEMORY:-64M}" --temp 0 --repeat-penalty 1.05 \
    -p "$PROMPT"
