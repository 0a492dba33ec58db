#!/bin/sh
# Goal:   examples/draft_head makes a layer that guesses for a model, and the engine's guesses are the layer's.
# Method: all its steps with a tiny model, where PyTorch is there; the engine guesses one token a pass, and what it
#         guessed right is held against what the layer in torch names for the same answers.
sources=$1
set -- "$2" "$(dirname "$2")/tests/make_tiny_model"
. "$sources/tests/cli/cli_support.sh"
example=$sources/examples/draft_head
python=${PI2_TORCH_PYTHON:-python3}
"$python" -c 'import torch, gguf' 2>/dev/null || { echo "skipped: no $python with torch and gguf"; exit 77; }
export PYTHONDONTWRITEBYTECODE=1 OMP_NUM_THREADS=2

step() { # step PATTERN ARGUMENTS...: what a step prints has this.
    pattern=$1
    shift
    checks=$((checks + 1))
    "$python" "$example/draft_head.py" "$@" --model "$folder/m.gguf" >"$folder/said" 2>&1 || {
        fail "draft_head.py $*: $(tail -3 "$folder/said")"
        finish
    }
    grep -q "$pattern" "$folder/said" || fail "no '$pattern' in: $(cat "$folder/said")"
}

tiny m layers=2 context=512
print_lines 12 '{"prompt":"Say what ' ' is."}' >"$folder/prompts"
step '12 texts' texts --program "$program" --prompts "$folder/prompts" --tokens 48 --memory 64M --out "$folder/texts"
step '12 texts of' features --texts "$folder/texts" --out "$folder/features"
step 'step 60: ' train --features "$folder/features" --heads 8 --own-heads 4 --neurons 64 --held-out 2 --steps 60 \
    --every 30 --out "$folder/layer"
first=$(sed -n 's/^begins with \([0-9.]*\).*/\1/p' "$folder/said")
last=$(sed -n 's/^step 60: .*held out \([0-9.]*\).*/\1/p' "$folder/said")
echo "of the texts held out $first named before training, $last after it"
step 'features: ' count --layer "$folder/layer" --features "$folder/features" --types F32,F32
step 'layer.gguf: [0-9]* bytes' write --layer "$folder/layer" --types Q8_0,Q8_0 --out "$folder/layer.gguf"

# Answers of the engine: the same with the layer's guesses, and about as many of them right as torch says.
expect 0 run -m "$folder/m.gguf" --memory 64M -c 256 -n 100 --temp 0 --ignore-eos -s 1 -p 'Say what 3 is.' --json \
    --draft-max 0
cp "$folder/out" "$folder/alone"
expect 0 run -m "$folder/m.gguf" -md "$folder/layer.gguf" --memory 64M -c 256 -n 100 --temp 0 --ignore-eos -s 1 \
    -p 'Say what 3 is.' --json --draft-always --draft-max 1
checks=$((checks + 1))
"$python" "$sources/tests/bench/held_against_torch.py" "$example" "$folder" || fail "the engine's guesses"
finish
