#!/bin/sh
# bench.sh: prompt and decode speed of $MODEL (or the default model), in memory and streamed.
set -eu
cd "$(dirname "$0")/.."
model=${MODEL:-$(scripts/model.sh)}
runs=${RUNS:-5}
echo "in memory"
./build/powerinfer2 bench -m "$model" -p 512 -n 128 -r "$runs" -o md
for memory in ${BUDGETS:-64M 48M}; do
    echo "--memory $memory"
    ./build/powerinfer2 bench -m "$model" -p 64 -n 128 -r "$runs" --memory "$memory" -o md
done
