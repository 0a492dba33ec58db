#!/bin/sh
# Goal:   inspect --sparsity tells how many neurons give nothing, of drawn tokens and of a text, as a table and as JSON;
#         synth plants the shares that it is asked for, and refuses those that cannot be.
# Method: a small synthetic model and a tiny one; one line for each failure.
. "$(dirname "$0")/cli_support.sh"
model=$folder/sparse.gguf
expect 0 synth --layers 2 --embedding 256 --ffn 512 --vocab 4096 --ffn-activation relu --ffn-zeros 0.85 \
    --neuron-hot 0.35 --neuron-repeat 0.5 -o "$model"
expect 0 inspect -m "$model" --metadata
grep -q '^powerinfer2.ffn_activation = relu' "$folder/out" || fail "the file does not name its activation"
grep -q '^powerinfer2.synthetic.ffn_zeros = 0.85' "$folder/out" || fail "the file does not say what was asked for"

expect 0 inspect -m "$model" --sparsity --tokens 300
grep -q '^300 tokens' "$folder/out" || fail "the table does not tell its tokens"
grep -Eq '^mean +8[2-8]\.[0-9] %' "$folder/out" || fail "not 85 % zeros"
expect 0 inspect -m "$model" --sparsity --json
expect_json token_count 256
expect_json '#layers' 2
expect_json '#ranks' 10
expect_json '#mean.by_rank' 10
for name in zeros rounded_zeros zero_tiles zero_blocks hot repeat; do expect_json "?mean.$name" real; done

printf 'one text of some words, one text of some words\n' >"$folder/text"
tiny plain layers=1
expect 0 inspect -m "$folder/plain.gguf" --sparsity -f "$folder/text" --json
silu=$(json mean.zeros)
[ "$silu" = 0.0 ] || fail "SiLU has $silu zeros"
expect 0 inspect -m "$folder/plain.gguf" --sparsity -f "$folder/text" --ffn-activation drelu
grep -Eq '^mean +[678][0-9]\.[0-9] %' "$folder/out" || fail "no zeros with --ffn-activation drelu"

# perplexity counts the same: of one chunk of the text, but for its last token, which predicts nothing.
print_lines 20 "the hand and the other one are in line " "" >"$folder/lines"
expect 0 inspect -m "$model" --sparsity -f "$folder/lines" --tokens 63 --json
zeros=$(json mean.zeros)
repeat=$(json mean.repeat)
expect 0 perplexity -m "$model" -f "$folder/lines" -c 64 --chunks 1 --count-zeros --json
expect_json sparsity.token_count 63
expect_json sparsity.mean.zeros "$zeros"
expect_json sparsity.mean.repeat "$repeat"
expect 0 perplexity -m "$model" -f "$folder/lines" -c 64 --chunks 2 --count-zeros
grep -q '^126 tokens' "$folder/out" || fail "not two chunks of 63 tokens were counted"
expect 0 perplexity -m "$model" -f "$folder/lines" -c 64 --chunks 2 --json
grep -q sparsity "$folder/out" && fail "counted without being asked"

printf 'x' >"$folder/short"
expect_error 2 "short has 1 tokens, at least 2" inspect -m "$folder/plain.gguf" --sparsity -f "$folder/short"
expect_error 5 "missing" inspect -m "$folder/plain.gguf" --sparsity -f "$folder/missing"
expect_error 2 "needs an activation that has zeros" synth --ffn-zeros 0.5 -o "$folder/never.gguf"
expect_error 2 "between" synth --ffn-activation relu --ffn-zeros 0.9 --neuron-repeat 0.98 -o "$folder/never.gguf"
[ -e "$folder/never.gguf" ] && fail "a refused model was written"
finish
