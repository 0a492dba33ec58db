#!/bin/sh
# Goal:   neurons are left out when that is asked for, and only then, and it is told; predictor make and measure do what
#         their help says; what cannot be is refused in one line, and nothing half-written is left.
# Method: a small synthetic ReLU model with planted neurons, and one with SiLU; texts compared byte for byte.
. "$(dirname "$0")/cli_support.sh"
model=$folder/model.gguf
silu=$folder/silu.gguf
synth() { # synth OUTPUT ARGUMENTS...
    output=$1
    shift
    "$program" synth --layers 2 --embedding 256 --ffn 512 --vocab 1024 "$@" -o "$output" -q || fail synth
}
synth "$model" --ffn-activation relu --ffn-zeros 0.85 --neuron-hot 0.35 --neuron-repeat 0.5
synth "$silu"
print_lines 40 "the " ". line of a text, and some words" >"$folder/text"
answer() { # answer FILE ARGUMENTS...
    output=$1
    shift
    expect 0 run --raw -p "one two three four five" -n 12 --temp 0 --memory 1G "$@"
    cp "$folder/out" "$folder/$output"
}

# Exact unless asked: no word of a predictor.
answer exact -m "$model"
grep -q 'left out' "$folder/err" && fail "an exact run tells of a predictor"
answer none -m "$model" --predictor none
cmp -s "$folder/exact" "$folder/none" || fail "--predictor none gives another text"
# Asked for: the files are made once, and it is told.
answer auto -m "$model" --sparsity auto
grep -q 'making .*model.low-bit.predictor' "$folder/err" || fail "nothing on making the predictor"
grep -q '^approximate ' "$folder/err" || fail "nobody says that the text is approximate"
grep -q '^left out by its thresholds, by low_bit' "$folder/err" || fail "no line on what is left out"
grep -q '^named .*neurons' "$folder/err" || fail "no line on what was named"
answer again -m "$model" --sparsity auto -t 1 --predictor low-bit
grep -q 'making' "$folder/err" && fail "the predictor is made twice"
cmp -s "$folder/auto" "$folder/again" || fail "another thread count gives another text"
# A share of any model; none left out is the model's own text.
answer silu -m "$silu"
answer all -m "$silu" --sparsity 0
cmp -s "$folder/silu" "$folder/all" || fail "nothing is left out, and the text is another one"
answer half -m "$silu" --sparsity 0.5
grep -q '^left out 50 % of each' "$folder/err" || fail "no word on the share"
expect_error 2 "has no zeros that could be foretold" run -m "$silu" -p x --sparsity auto
expect_error 2 "unknown sparsity" run -m "$silu" -p x --sparsity 1.0
expect_error 2 "no zeros that a predictor could foretell" run -m "$silu" -p x --predictor low-bit
expect_error 2 "made of other weights" run -m "$silu" -p x --sparsity 0.5 --predictor "$folder/model.low-bit.predictor"
expect_error 3 "this is no predictor" run -m "$silu" -p x --sparsity 0.5 --predictor "$folder/text"

expect_error 2 "where none is left out" perplexity -m "$silu" -f "$folder/text" -c 32 --count-zeros --sparsity 0.5
have_profile
expect 0 plan -m "$silu" --memory 1G -c 64 --sparsity 0.25
grep -q '75 % of the neurons, the share that is not left out' "$folder/out" || fail "plan does not reckon with the share"
grep -q '^predictor ' "$folder/out" || fail "plan has no line for the predictor's memory"
grep -q ' with all neurons: leaving neurons out ' "$folder/out" || fail "plan does not say whether it pays"
expect 0 plan -m "$silu" --memory 1G -c 64 --sparsity 0.25 --json
json decode_exact | awk '{ exit !($1 > 0) }' || fail "decode_exact is $(json decode_exact)"
cp "$folder/out" "$folder/quarter.plan"
expect 0 run -m "$silu" --raw -p x -n 2 --plan "$folder/quarter.plan"
grep -q '^left out 25 % ' "$folder/err" || fail "a plan that leaves a quarter out is not followed: $(cat "$folder/err")"
sed 's/"sparsity": "0.25"/"sparsity": "1.25"/' "$folder/quarter.plan" >"$folder/bad.plan"
expect_error 3 "'sparsity' is none of" run -m "$silu" -p x --plan "$folder/bad.plan"
sed 's/"predictor": null/"predictor": 7/' "$folder/quarter.plan" >"$folder/bad.plan"
expect_error 3 "'predictor' is neither text nor null" run -m "$silu" -p x --plan "$folder/bad.plan"
expect 0 plan -m "$silu" --memory 1G -c 64 --json
expect_json decode_exact null
answer half -m "$silu" --sparsity 0.5
grep -q '^predicted .* with all neurons: leaving neurons out' "$folder/err" || fail "run does not say whether it pays"

# best: exact while nothing was measured; then whatever is predicted to be fastest, within the limit.
best() { # best LIMIT
    answer best -m "$silu" --sparsity best --max-divergence "$1"
    grep '^best .* tokens/s' "$folder/err" | sed 's/\(.*\): \([0-9.]*\) tokens.*/\2 \1/' | sort -rn >"$folder/modes"
}
best 10
[ "$(wc -l <"$folder/modes")" = 1 ] || fail "modes that nobody measured: $(cat "$folder/modes")"
grep -q '^best .*--sparsity exact: nothing that was measured within' "$folder/err" || fail "$(cat "$folder/err")"
cmp -s "$folder/silu" "$folder/best" || fail "best of the exact mode alone gives another text"
expect 0 verify -m "$silu" -f "$folder/text" -c 64 --chunks 1 --sparsity 0.5
best 10
[ "$(wc -l <"$folder/modes")" = 2 ] || fail "modes: $(cat "$folder/modes")"
if head -1 "$folder/modes" | grep -q 'sparsity 0.5'; then
    grep -q '^best     --sparsity 0.5 --predictor .*silu.low-bit.predictor' "$folder/err" || fail "$(cat "$folder/err")"
    cmp -s "$folder/half" "$folder/best" || fail "best gives another text than what it chose"
else
    cmp -s "$folder/silu" "$folder/best" || fail "best gives another text than what it chose"
fi
best 0
[ "$(wc -l <"$folder/modes")" = 1 ] || fail "modes beyond the limit: $(cat "$folder/modes")"
expect 0 plan -m "$silu" --memory 1G -c 64 --sparsity best --max-divergence 10
grep -q '^best     all neurons' "$folder/err" || fail "plan tells of no mode"
expect_error 2 "chooses within a limit" run -m "$silu" -p x --sparsity best
expect_error 2 "unknown sparsity 'best'" verify -m "$silu" -f "$folder/text" --sparsity best

# make
expect 0 predictor make -m "$model" --bits 3 -o "$folder/three"
small=$(wc -c <"$folder/model.low-bit.predictor")
[ "$(wc -c <"$folder/three")" -gt "$small" ] || fail "three bits take no more room than two"
expect_error 2 "--bits" predictor make -m "$model" --bits 4
expect_error 2 "unknown action" predictor mend -m "$model"
expect_error 2 "make, train, import, measure or balance" predictor
expect_error 2 "carries no predictor" predictor import -m "$model" -o "$folder/imported"
[ -e "$folder/imported" ] && fail "a predictor that there is not was written"
expect_error 2 "" predictor make -m "$model" -o "$folder/text"
grep -q 'line of a text' "$folder/text" || fail "the text was replaced"

# make --kind svd: of the weights alone, and with a text; widths, and what was measured, are told.
expect 0 predictor make -m "$model" --kind svd --width 32 -o "$folder/svd"
grep -q '^layer' "$folder/err" && fail "weights alone measure nothing"
expect 0 predictor make -m "$model" --kind svd -f "$folder/text" --tokens 300 --recall 0.9 -o "$folder/svd-text" -t 1
grep -q '^layer 1: rank [0-9]*, recall 9[0-9]' "$folder/err" || fail "nothing is told of a layer: $(cat "$folder/err")"
cp "$folder/svd-text" "$folder/one-thread"
expect 0 predictor make -m "$model" --kind svd -f "$folder/text" --tokens 300 --recall 0.9 -o "$folder/svd-text" -t 2
cmp -s "$folder/svd-text" "$folder/one-thread" || fail "another svd with two threads"
expect 0 predictor make -m "$silu" --kind svd -f "$folder/text" --tokens 300 -o "$folder/svd-silu"
grep -q '50.00 % of the neurons are wanted' "$folder/err" || fail "nothing on what is wanted of SiLU: $(cat "$folder/err")"
answer svd_text -m "$silu" --sparsity 0.5 --predictor "$folder/svd-silu"
grep -q 'by svd' "$folder/err" || fail "the svd is not used"
expect_error 2 "low-bit or svd" predictor make -m "$model" --kind lowrank -o "$folder/bad"
expect_error 2 "an svd wants a place" predictor make -m "$model" --kind svd
expect_error 2 "copies need no text" predictor make -m "$model" -f "$folder/text"
expect_error 2 "multiple of 32" predictor make -m "$model" --kind svd --width 33 -o "$folder/bad"
expect_error 2 "more directions than" predictor make -m "$model" --kind svd --width 512 -o "$folder/bad"
expect_error 2 "samples of 2048 tokens take" predictor make -m "$model" --kind svd -f "$folder/text" -o "$folder/bad" \
    --sample-memory 1M
echo "too short" >"$folder/short"
expect_error 2 "64 are the least" predictor make -m "$model" --kind svd -f "$folder/short" -o "$folder/bad"
[ -e "$folder/bad" ] && fail "a predictor that could not be made was written"

# balance: more of the layers that lose least, together as many; told, and kept with the predictor.
expect 0 predictor balance -m "$silu" -f "$folder/text" -c 64 --tokens 64 --sparsity 0.5 --json
expect_json '#layers' 2
json layers.0.kl_divergence.2 | awk '{ exit !($1 > 0) }' || fail "nothing is lost: $(cat "$folder/out")"
echo "$(json layers.0.left_out) $(json layers.1.left_out)" | awk '{ d = $1 + $2 - 1; exit !(d < 1e-9 && d > -1e-9 && $1 != $2) }' ||
    fail "shares are $(json layers.0.left_out) and $(json layers.1.left_out)"
answer balanced -m "$silu" --sparsity 0.5
grep -q '^left out 50 % of the neurons, .* to .* % of a layer' "$folder/err" || fail "the shares are not told"
expect 0 predictor balance -m "$silu" -f "$folder/text" -c 64 --tokens 64
grep -q 'left out at 0.5' "$folder/out" || fail "no column of shares"
expect_error 2 "not 'auto'" predictor balance -m "$model" -f "$folder/text" --sparsity auto
expect_error 2 "no text" predictor balance -m "$silu"
expect_error 2 "no share to balance" predictor balance -m "$silu" -f "$folder/text" --sparsity off

# measure
recall() { # recall ARGUMENTS...
    expect 0 predictor measure -m "$model" -f "$folder/text" -c 64 --tokens 256 --json "$@"
    json mean.recall
}
two=$(recall)
expect_json kind low_bit
expect_json '#layers' 2
expect_json layers.0.size 2
three=$(recall --predictor "$folder/three" -t 1)
awk -v two="$two" -v three="$three" 'BEGIN { exit !(two > 0.8 && three > two - 0.01 && three <= 1) }' ||
    fail "recall $two with two bits, $three with three"
[ "$(recall --predictor "$folder/svd-text" | awk '{ print ($1 > 0.6) }')" = 1 ] || fail "an svd that foretells nothing"
all=$(recall --sparsity 0)
[ "$all" = 1.0 ] || [ "$all" = 1 ] || fail "nothing is left out, and recall is $all"
expect 0 predictor measure -m "$model" -f "$folder/text" -c 64 --tokens 100
grep -q '^all ' "$folder/out" || fail "no line for all layers"
expect_error 2 "no text" predictor measure -m "$model"

# train: the same file on one thread and several, layer by layer, and after --resume.
train() { # train OUTPUT ARGUMENTS...
    output=$folder/$1
    shift
    expect 0 predictor train -m "$model" -f "$folder/text" -c 64 --tokens 300 --epochs 2 -o "$output" "$@"
}
train trained --width 32
grep -q 'layer 1: rank 32, recall 9[5-9]' "$folder/err" || fail "nothing is told of a layer"
PI2_CPU=scalar train one --width 32 -t 1 --sample-memory 1M
cmp -s "$folder/trained" "$folder/one" || fail "another file with one thread, layer by layer, in plain C"
grep -q 'samples of 1 of 2 layers fit.*computed 2 times: --sample-memory [0-9]' "$folder/err" || fail "passes are not told"
[ -e "$folder/one.part" ] && fail "what was written meanwhile is left"
answer trained_text -m "$model" --sparsity auto --predictor "$folder/trained"
grep -q 'by low_rank' "$folder/err" || fail "the trained predictor is not used"
answer foretold -m "$model" --sparsity always --predictor "$folder/trained"
cmp -s "$folder/exact" "$folder/foretold" || fail "reading early gives another text"
grep -q '^foretold by low_rank .*no text depends on it' "$folder/err" || fail "no word on who foretold"
grep -q 'approximate' "$folder/err" && fail "an exact run says that its text is approximate"
trained=$(recall --predictor "$folder/trained")
awk -v recall="$trained" 'BEGIN { exit !(recall > 0.85) }' || fail "recall $trained, trained for 0.96"
cp "$folder/trained" "$folder/two.part" # as an end after the last layer leaves it
train two --width 32 --resume
grep -q '^layer' "$folder/err" && fail "layers that were done are trained again"
grep -q 'two.part: 2 of 2 layers stay as they were trained' "$folder/err" || fail "what --resume takes over is not told"
cmp -s "$folder/trained" "$folder/two" || fail "another file after --resume"
# A rate that is too large, too few tokens, no zeros: a line, and no file.
for bad in "--rate 900:diverges" "--width 33:multiple of 32" "--recall 1.5:--recall"; do
    expect_error 2 "${bad#*:}" predictor train -m "$model" -f "$folder/text" -c 64 --tokens 300 -o "$folder/bad" ${bad%%:*}
    [ -e "$folder/bad" ] || [ -e "$folder/bad.part" ] && fail "${bad%%:*} leaves a file"
done
expect_error 2 "too few" predictor train -m "$model" -f "$folder/short" -o "$folder/bad"
expect_error 3 "activation has zeros" predictor train -m "$silu" -f "$folder/text" -o "$folder/bad"
expect_error 2 "not.*predictor" predictor train -m "$model" -f "$folder/text" -o "$folder/text"

# A damaged model: a weight of a norm is no number. Nothing is learned from it, measured of it, or kept.
damage() { # damage MODEL TENSOR
    expect 0 inspect -m "$1" --tensors
    place=$(awk -v name="$2" '$NF == name { print $(NF - 1) }' "$folder/out")
    rm -f "$folder"/nan.*
    cp "$1" "$folder/nan.gguf"
    printf '\377\377\377\177' | dd of="$folder/nan.gguf" bs=1 seek="$place" conv=notrunc 2>/dev/null
}
damage "$model" blk.1.ffn_norm.weight
expect_error 3 "what layer 1 reads are no numbers" predictor train -m "$folder/nan.gguf" -f "$folder/text" -c 64 \
    --tokens 300 -o "$folder/bad"
expect_error 3 "what layer 1 reads are no numbers" predictor measure -m "$folder/nan.gguf" -f "$folder/text" -c 64
expect_error 3 "what layer 1 reads are no numbers" predictor make --kind svd -m "$folder/nan.gguf" -f "$folder/text" \
    --tokens 300 -o "$folder/bad"
[ -e "$folder/bad" ] && fail "a predictor of a damaged model was written"
damage "$silu" output_norm.weight
expect_error 3 "logits are no numbers" predictor balance -m "$folder/nan.gguf" -f "$folder/text" -c 64 --tokens 64
finish
