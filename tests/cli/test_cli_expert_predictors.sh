#!/bin/sh
# Goal:   neurons of experts are left out where that is asked for, and only then: by copies that run makes, and by a
#         trained predictor of each expert; what that costs is measured, kept and held to a limit; what is not built for
#         mixtures is refused in a line, and nothing half-written is left.
# Method: a small synthetic mixture with planted neurons; texts and files compared byte for byte.
. "$(dirname "$0")/cli_support.sh"
model=$folder/model.gguf
"$program" synth --architecture smallthinker --layers 2 --embedding 256 --experts 4 --experts-used 2 --expert-ffn 512 \
    --vocab 1024 --ffn-zeros 0.85 --neuron-hot 0.35 --neuron-repeat 0.5 -o "$model" -q || fail synth
print_lines 40 "the " ". line of a text, and some words" >"$folder/text"
answer() { # answer FILE ARGUMENTS...
    output=$1
    shift
    expect 0 run -m "$model" --raw -p "one two three four five" -n 12 --temp 0 --memory 1G "$@"
    cp "$folder/out" "$folder/$output"
}
same() { # same A B WHAT
    cmp -s "$folder/$1" "$folder/$2" || fail "another text: $3"
}

# Copies that the budget has no room for are not made.
expect 0 prepare -m "$model" -o "$folder/apart.pi2" --layout bundle -q
expect_error 4 "copies with 2 bits, a predictor, take .* and the budget has room for" run -m "$folder/apart.pi2" -p x \
    -n 2 --sparsity auto --memory 4M
[ -e "$folder/apart.low-bit.predictor" ] && fail "copies were made beyond the budget"

answer exact
answer all --sparsity 0
same exact all "none is left out"
answer auto --sparsity auto
grep -q '^left out by its thresholds, by low_bit' "$folder/err" || fail "nothing on what is left out"
answer again --sparsity auto -t 1
same auto again "one thread"
answer few --sparsity 0.97
cmp -s "$folder/exact" "$folder/few" && fail "nothing is left out"

# The guard: measured, told, and a limit.
expect_error 6 "was not measured" run -m "$model" -p x -n 2 --sparsity 0.97 --max-divergence 1
expect 0 verify -m "$model" -f "$folder/text" -c 64 --chunks 1 --sparsity 0.97 --json
json kl_divergence | awk '{ exit !($1 > 0) }' || fail "leaving out costs nothing: $(cat "$folder/out")"
answer few_told --sparsity 0.97 --max-divergence 100
same few few_told "a limit that is kept"
expect_error 6 "more than --max-divergence" run -m "$model" -p x -n 2 --sparsity 0.97 --max-divergence 0.000001
expect 0 verify -m "$model" -f "$folder/text" -c 64 --chunks 1 --sparsity 0 --json
[ "$(json kl_divergence | awk '{ print ($1 < 1e-9) }')" = 1 ] || fail "nothing left out diverges by $(json kl_divergence)"

# Trained: one for each expert, the same file on one thread and several, some experts at a time, and after --resume.
train() { # train OUTPUT ARGUMENTS...
    output=$folder/$1
    shift
    expect 0 predictor train -m "$model" -f "$folder/text" -c 64 --tokens 500 --epochs 2 --width 32 -o "$output" "$@"
}
train trained
grep -q '^layer 1, expert [0-3]: rank 32, recall 9[0-9]' "$folder/err" || fail "nothing is told: $(cat "$folder/err")"
PI2_CPU=scalar train one -t 1 --sample-memory 1M
cmp -s "$folder/trained" "$folder/one" || fail "another file with one thread, expert by expert, in plain C"
cp "$folder/trained" "$folder/two.part"
train two --resume
cmp -s "$folder/trained" "$folder/two" || fail "another file after --resume"
answer trained_text --sparsity auto --predictor "$folder/trained"
grep -q 'by low_rank' "$folder/err" || fail "the trained predictor is not used"
expect 0 predictor measure -m "$model" -f "$folder/text" -c 64 --tokens 256 --json --predictor "$folder/trained"
expect_json '#layers' 2
json mean.recall | awk '{ exit !($1 > 0.85) }' || fail "recall $(json mean.recall), trained for 0.96"
expect 0 predictor measure -m "$model" -f "$folder/text" -c 64 --tokens 256 --json --sparsity auto
json mean.recall | awk '{ exit !($1 > 0.8) }' || fail "recall $(json mean.recall) of copies"

# Too little text: an expert that it hardly visits computes all of its neurons; none at all is no predictor.
expect_error 2 "no expert is visited" predictor train -m "$model" -f "$folder/text" -c 64 --tokens 64 -o "$folder/bad"
[ -e "$folder/bad" ] && fail "a predictor that knows nothing was written"
expect_error 3 "mixture of experts" predictor balance -m "$model" -f "$folder/text" --sparsity 0.5
expect_error 3 "mixture of experts" predictor make -m "$model" --kind svd -f "$folder/text" -o "$folder/bad"
expect_error 3 "mixture of experts" run -m "$model" -p x --predictor "$folder/trained"
expect_error 2 "tokens ask for no experts" run -m "$model" -p x --sparsity auto --record-trace "$folder/trace"
