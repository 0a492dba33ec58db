#!/bin/sh
# Goal:   inspect tells what a file holds, as a table and as JSON; --verify finds a flipped byte.
# Method: a tiny model whose contents are known, and its cluster file.
. "$(dirname "$0")/cli_support.sh"
tiny model layers=3 down=Q6_K tied=0 head_type=Q6_K
model=$folder/model.gguf

expect 0 inspect -m "$model"
grep -q '^architecture *llama' "$folder/out" || fail "architecture"
grep -q '^runs here *yes' "$folder/out" || fail "runnable"
grep -q '^layers *3' "$folder/out" || fail "layers"
expect 0 inspect -m "$model" --tensors --metadata
grep -q 'Q6_K .*512 x 256 .*blk.2.ffn_down.weight' "$folder/out" || fail "--tensors"
grep -q '^tokenizer.ggml.model = gpt2' "$folder/out" || fail "--metadata"

expect 0 inspect -m "$model" --json
expect_json format gguf
expect_json architecture llama
expect_json name "Tiny Test Model"
expect_json runnable true
expect_json layer_count 3
expect_json embedding_length 256
expect_json head_count_kv 2
expect_json cache_bytes_per_token $((2 * 3 * 2 * 2 * 64))
expect_json file_bytes "$(wc -c <"$model")"
expect_json '#tensors' "$(json tensor_count)"
expect_error 2 "no checksums" inspect -m "$model" --verify

expect 0 prepare -m "$model" -o "$folder/model.pi2"
[ -s "$folder/out" ] && fail "prepare wrote to stdout"
grep -q "$folder/model.pi2" "$folder/err" || fail "prepare does not say where"
expect 0 inspect -m "$folder/model.pi2" --verify
grep -q '^verified' "$folder/out" || fail "--verify says nothing"
expect 0 inspect -m "$folder/model.pi2" --json --verify
expect_json format cluster
expect_json verified true
expect_json runnable true
expect_json layer_count 3

# A byte in the middle of the weights.
size=$(wc -c <"$folder/model.pi2")
cp "$folder/model.pi2" "$folder/flipped.pi2"
byte=$(od -An -tu1 -j $((size / 2)) -N 1 "$folder/flipped.pi2" | tr -d ' ')
printf "$(printf '\\%03o' $((byte ^ 1)))" |
    dd of="$folder/flipped.pi2" bs=1 seek=$((size / 2)) conv=notrunc 2>/dev/null
expect_error 3 "flipped.pi2" inspect -m "$folder/flipped.pi2" --verify
expect_error 3 "flipped.pi2" inspect -m "$folder/flipped.pi2" --verify --json

# A name in capitals ends where one in small letters does.
mkdir "$folder/capitals"
cp "$model" "$folder/capitals/M.GGUF"
expect 0 prepare -m "$folder/capitals/M.GGUF" -q
[ -s "$folder/capitals/M.pi2" ] || fail "the cluster file of M.GGUF is: $(ls "$folder/capitals")"
finish
