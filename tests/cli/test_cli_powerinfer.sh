#!/bin/sh
# Goal:   a file of PowerInfer is described, prepared and run, with the text of an ordinary file of the same weights;
#         what cannot be run or lacks a part gets one line, and nothing is written.
# Method: tiny models in both forms (make_tiny_model: predictor_rank, down_by_neuron).
. "$(dirname "$0")/cli_support.sh"
sed -n 1,10p "$0" >"$folder/text"
answer() { # answer FILE ARGUMENTS...: an answer's words, and a text's perplexity to every digit that is printed
    answer_to=$1
    shift
    expect 0 perplexity -f "$folder/text" -c 64 --json "$@"
    json perplexity >"$folder/$answer_to.perplexity"
    expect 0 run -p "a text" -n 8 --temp 0 "$@"
    cat "$folder/$answer_to.perplexity" "$folder/out" >"$folder/$answer_to"
}
same() { cmp -s "$folder/$1" "$folder/$2" || fail "$1 and $2 differ"; }

tiny plain layers=3 feed_forward=2048 down=Q4_0 down_by_neuron=1
tiny theirs layers=3 feed_forward=2048 down=Q4_0 predictor_rank=16
tiny bamboo layers=3 feed_forward=2048 down=F16 predictor_rank=16 architecture=bamboo
tiny twin layers=3 feed_forward=2048 down=F16 down_by_neuron=1

# Described: the magic, the activation that follows from it, the predictors.
expect 0 inspect -m "$folder/theirs.gguf" --tensors
grep -q '^format *PowerInfer GGUF (PWRI)$' "$folder/out" || fail "no word on the format"
grep -q '^FFN activation *relu$' "$folder/out" || fail "the activation is not relu"
grep -q '^predictors *6 matrices (fc1, fc2) of rank 16, .* (221184 bytes), not used$' "$folder/out" ||
    fail "no word on the predictors"
grep -q '^F16 *256 x 16 .* blk.2.fc1.weight$' "$folder/out" || fail "a predictor is not listed"
grep -q '^Q4_0 *256 x 2048 .* blk.2.ffn_down_t.weight$' "$folder/out" || fail "Down is not listed as it is"
expect 0 inspect -m "$folder/bamboo.gguf" --json
expect_json format powerinfer
expect_json ffn_activation drelu
expect_json ffn_is_ungated false
expect_json predictor_matrix_count 6
expect_json predictor_bytes 221184

# Run: told, and the same words.
answer theirs -m "$folder/theirs.gguf"
grep -q '^ffn *relu (llama otherwise has silu)' "$folder/err" || fail "the report does not tell the activation"
answer plain -m "$folder/plain.gguf" --ffn-activation relu
same theirs plain
answer silu -m "$folder/plain.gguf"
cmp -s "$folder/theirs" "$folder/silu" && fail "relu's figures are silu's: this proves nothing"
answer bamboo -m "$folder/bamboo.gguf"
answer twin -m "$folder/twin.gguf" --ffn-activation drelu
same bamboo twin

# Prepared: the predictors are kept, the activation is known, the words are the same.
expect 0 prepare -m "$folder/theirs.gguf" -o "$folder/theirs.pi2"
expect 0 inspect -m "$folder/theirs.pi2" --verify --json
expect_json format cluster
expect_json ffn_activation relu
expect_json predictor_matrix_count 6
expect_json bank_count 3
answer prepared -m "$folder/theirs.pi2"
same theirs prepared
answer beside -m "$folder/theirs.gguf" --cluster-file "$folder/theirs.pi2"
same theirs beside

# Falcon, which has no Gate: theirs has ReLU, an ordinary one GELU.
tiny falcon layers=2 feed_forward=2048 down=Q4_0 predictor_rank=16 architecture=falcon
tiny eagle layers=2 feed_forward=2048 down=Q4_0 down_by_neuron=1 architecture=falcon
expect 0 inspect -m "$folder/falcon.gguf"
grep -q '^FFN activation *relu$' "$folder/out" || fail "theirs is not relu"
grep -q '^FFN *without Gate$' "$folder/out" || fail "no word on Gate"
expect 0 inspect -m "$folder/eagle.gguf"
grep -q '^FFN activation *gelu$' "$folder/out" || fail "an ordinary falcon is not gelu"
answer falcon -m "$folder/falcon.gguf"
answer eagle -m "$folder/eagle.gguf" --ffn-activation relu
same falcon eagle
expect 0 prepare -m "$folder/falcon.gguf" -o "$folder/falcon.pi2"
expect 0 inspect -m "$folder/falcon.pi2" --verify --json
expect_json ffn_is_ungated true
expect_json ffn_activation relu
expect_json bank_count 2
answer falcon_by_neuron -m "$folder/falcon.pi2"
same falcon falcon_by_neuron
expect 0 profile -m "$folder/falcon.pi2" -f "$folder/text" -o "$folder/falcon.stats"
expect 0 prepare -m "$folder/falcon.gguf" --statistics "$folder/falcon.stats" -o "$folder/counted.pi2"
answer counted -m "$folder/counted.pi2"
same falcon counted
have_profile
expect 0 plan -m "$folder/falcon.pi2"
grep -q neurons "$folder/out" || fail "no neurons in the plan"
expect 0 inspect -m "$folder/falcon.pi2" --sparsity
answer gelu -m "$folder/eagle.gguf"
cmp -s "$folder/gelu" "$folder/eagle" && fail "relu's figures are gelu's: this proves nothing"

# OPT: learned positions, which end the context.
tiny opt layers=2 heads_kv=4 feed_forward=2048 down=Q4_0 predictor_rank=16 architecture=opt context=80
tiny twin_opt layers=2 heads_kv=4 feed_forward=2048 down=Q4_0 down_by_neuron=1 architecture=opt context=80
answer opt -m "$folder/opt.gguf"
answer twin_opt -m "$folder/twin_opt.gguf"
same opt twin_opt
expect 0 prepare -m "$folder/opt.gguf" -o "$folder/opt.pi2"
expect 0 inspect -m "$folder/opt.pi2" --verify --json
expect_json ffn_activation relu
expect_json bank_count 2
answer opt_by_neuron -m "$folder/opt.pi2"
same opt opt_by_neuron
expect_error 2 'the model has positions for 80: ask for at most that' run -m "$folder/opt.pi2" -p x -c 81

# A family that is not run, and a file that was cut.
tiny mpt layers=2 predictor_rank=16 architecture=mpt
expect 3 inspect -m "$folder/mpt.gguf" --tensors
grep -q '^architecture *mpt$' "$folder/out" || fail "mpt: no architecture"
grep -q '^runs here *no$' "$folder/out" || fail "mpt is said to run"
grep -q '^predictors *4 matrices' "$folder/out" || fail "mpt: no predictors"
grep -q ' blk.1.ffn_down_t.weight$' "$folder/out" || fail "mpt: Down is not listed"
for command in run prepare; do
    case $command in run) set -- -p x ;; *) set -- -o "$folder/never.pi2" ;; esac
    expect_error 3 "architecture 'mpt' is not supported; this version runs: llama, .*falcon, .*opt" \
        "$command" -m "$folder/mpt.gguf" "$@"
done
size=$(wc -c <"$folder/theirs.gguf")
for left in 3 10 2000 $((size - 64)); do
    head -c "$left" "$folder/theirs.gguf" >"$folder/cut.gguf"
    expect_error 3 cut.gguf run -m "$folder/cut.gguf" -p x
    expect_error 3 cut.gguf prepare -m "$folder/cut.gguf" -o "$folder/never.pi2"
done
[ -e "$folder/never.pi2" ] && fail "something was written"
finish
