#!/bin/sh
# Goal:   an FFN's activation comes from the option, the file or the architecture; it is told where the architecture
#         has another, kept in the cluster file, part of a plan, and the same in memory as past it.
# Method: tiny models with and without the key; what they give a text is compared.
. "$(dirname "$0")/cli_support.sh"
tiny plain layers=4 feed_forward=4096 tied=0
tiny said layers=4 feed_forward=4096 tied=0 activation=relu
plain=$folder/plain.gguf
sed -n 1,40p "$0" >"$folder/text"
answer() { # answer FILE ARGUMENTS...: the perplexity of a text, to every digit that is printed
    answer_to=$1
    shift
    expect 0 perplexity -f "$folder/text" -c 64 --json "$@"
    json perplexity >"$folder/$answer_to"
}
same() { cmp -s "$folder/$1" "$folder/$2" || fail "$1 and $2 differ"; }

expect 0 run -m "$plain" -p x -n 2
grep -q '^ffn ' "$folder/err" && fail "the report speaks of an activation that is the architecture's own"
expect 0 run -m "$folder/said.gguf" -p x -n 2
grep -q '^ffn *relu (llama otherwise has silu)' "$folder/err" || fail "the report does not tell the key's activation"
expect 0 run -m "$plain" -p x -n 2 --ffn-activation relu
grep -q '^ffn *relu (llama otherwise has silu)' "$folder/err" || fail "the report does not tell the option's"
answer silu -m "$plain"
answer key -m "$folder/said.gguf"
answer option -m "$plain" --ffn-activation relu
same key option
cmp -s "$folder/silu" "$folder/option" && fail "relu gives silu's perplexity"
answer back -m "$folder/said.gguf" --ffn-activation silu
grep -q "said.gguf says that its FFN activation is relu: silu is computed" "$folder/err" ||
    fail "no word on the other key"
same silu back

expect_error 2 "none of silu|gelu|relu|relu_squared|drelu" run -m "$plain" --ffn-activation swish -p x
tiny odd layers=1 activation=swish
expect_error 3 "odd.gguf: key 'powerinfer2.ffn_activation' is 'swish'" run -m "$folder/odd.gguf" -p x
expect 3 inspect -m "$folder/odd.gguf"
grep -q "odd.gguf: key 'powerinfer2.ffn_activation' is 'swish'" "$folder/err" || fail "inspect gives no reason"
expect 0 inspect -m "$folder/said.gguf" --json
expect_json ffn_activation relu

# The cluster file keeps it; a source without the option has its own again, and says so.
expect 0 prepare -m "$plain" -o "$folder/relu.pi2" --ffn-activation relu
expect 0 inspect -m "$folder/relu.pi2" --json
expect_json ffn_activation relu
answer kept -m "$folder/relu.pi2"
same key kept
answer source -m "$plain" --cluster-file "$folder/relu.pi2"
grep -q "relu.pi2 says that its FFN activation is relu: silu is computed" "$folder/err" ||
    fail "no word on the file's key"
same silu source
answer again -m "$plain" --cluster-file "$folder/relu.pi2" --ffn-activation relu
same key again
expect 0 prepare -m "$plain" -o "$folder/relu.pi2"
expect 0 inspect -m "$folder/relu.pi2" --json
expect_json ffn_activation silu

# Gemma 3n's top-k: about 95 % of Gates fall below the cutoff unless a key says otherwise; not planted, not in experts.
zeros() { # zeros LEAST MOST ARGUMENTS...
    least=$1 most=$2
    shift 2
    expect 0 perplexity -f "$folder/text" -c 64 --chunks 1 --count-zeros --json "$@"
    zeros_share=$(json sparsity.mean.zeros)
    awk "BEGIN { exit !($zeros_share >= $least && $zeros_share <= $most) }" || fail "$zeros_share zeros with $*"
}
zeros 0.92 0.97 -m "$plain" --ffn-activation gelu_topk
expect 0 prepare -m "$plain" -o "$folder/topk.pi2" --ffn-activation gelu_topk
expect 0 inspect -m "$folder/topk.pi2" --json
expect_json ffn_activation gelu_topk
answer topk -m "$plain" --ffn-activation gelu_topk
answer topk_kept -m "$folder/topk.pi2"
same topk topk_kept
answer topk_dense -m "$folder/topk.pi2" --sparsity off
same topk topk_dense
cmp -s "$folder/topk" "$folder/option" && fail "gelu_topk gives relu's perplexity"
tiny share layers=4 feed_forward=4096 tied=0 activation=gelu_topk sparsity=0.6
zeros 0.55 0.65 -m "$folder/share.gguf"
tiny wrong layers=4 activation=gelu_topk sparsity=1
expect_error 3 "wrong.gguf: key 'powerinfer2.ffn_activation_sparsity' has 1 for layer 0" run -m "$folder/wrong.gguf" -p x
expect 3 inspect -m "$folder/wrong.gguf"
grep -q "wrong.gguf: key 'powerinfer2.ffn_activation_sparsity' has 1" "$folder/err" || fail "inspect gives no reason"
expect_error 3 "ffn_activation_sparsity' has 1" prepare -m "$folder/wrong.gguf" -o "$folder/never.pi2"
[ ! -e "$folder/never.pi2" ] || fail "a file was left"
expect_error 2 "not for gelu_topk" synth --ffn-activation gelu_topk --ffn-zeros 0.5 -o "$folder/never.gguf"

# A plan carries it, and does not fit another.
have_profile
expect 0 plan -m "$plain" --ffn-activation relu --memory 200M --json
cp "$folder/out" "$folder/plan.json"
expect_json model.ffn_activation relu
expect 0 run -m "$plain" --plan "$folder/plan.json" -p x -n 2
grep -q '^ffn *relu' "$folder/err" || fail "the plan's activation is not taken"
expect_error 3 "ffn_activation differs" run -m "$plain" --plan "$folder/plan.json" --ffn-activation gelu -p x
finish
