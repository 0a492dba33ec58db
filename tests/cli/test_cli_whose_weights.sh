#!/bin/sh
# Goal:   a model's text is its own whatever cluster file lies there: of another checkpoint with the same header that was
#         put in its place with an older time, behind a link that was turned, or changed in place; with little memory
#         and with plenty. A damaged cluster file ends the command with 3 and the place, at both.
# Method: two tiny models that differ in their weights alone.
. "$(dirname "$0")/cli_support.sh"
if [ "${PI2_TEST_PRESET:-}" = tsan ]; then
    echo "SKIPPED: ThreadSanitizer's shadow grows with every page, so no budget can be met"
    exit 77
fi
shape="layers=10 embedding=512 feed_forward=2048 heads=8 heads_kv=2 context=512 type=Q8_0"
# shellcheck disable=SC2086 # options
tiny first $shape seed=1 tied=0
# shellcheck disable=SC2086
tiny second $shape seed=2 tied=0
touch -d '2001-02-03 04:05:06' "$folder/second.gguf"
have_profile
options="--raw -p abcdefgh -n 6 --temp 0 -c 128 --ignore-eos --json"
model=$folder/model.gguf

# expect_tokens TOKENS WHAT: of $model, with little memory and with plenty.
expect_tokens() {
    for memory in "--memory $budget" ""; do
        # shellcheck disable=SC2086
        expect 0 run $options -m "$model" $memory
        checks=$((checks + 1))
        [ "$(json tokens)" = "$1" ] || fail "$2 gives other tokens (memory: ${memory:-plenty})"
    done
}

# shellcheck disable=SC2086
expect 0 run $options -m "$folder/second.gguf"
second=$(json tokens)
# shellcheck disable=SC2086
expect 0 run $options -m "$folder/first.gguf"
first=$(json tokens)
budget=$(($(json memory.peak_bytes) - 30000000))
[ "$first" != "$second" ] || fail "the models give the same tokens"

cp -p "$folder/first.gguf" "$model"
expect_tokens "$first" "the first"
[ -e "$folder/model.pi2" ] || fail "no cluster file was made"
cp -p "$folder/second.gguf" "$folder/put" && mv "$folder/put" "$model"
expect 0 plan -m "$model" --memory $((budget + 6000000)) -c 128
grep -q "had other weights" "$folder/err" || fail "plan takes another model's cluster file"
expect_tokens "$second" "one that was put in its place with an older time"
expect 0 plan -m "$model" --memory $((budget + 6000000)) -c 128
grep -q "had other weights" "$folder/err" && fail "plan does not take its own cluster file"
dd if="$folder/first.gguf" of="$model" conv=notrunc 2>/dev/null
expect_tokens "$first" "one that was changed in place"
rm "$model"
ln -s second.gguf "$model"
expect_tokens "$second" "one behind a link"
rm "$model"
ln -s first.gguf "$model"
expect_tokens "$first" "one behind a link that was turned"
expect 0 prepare -m "$model"
expect 0 inspect -m "$folder/model.pi2" --verify

# Half of a norm, some nibbles: 60 kB of an embedding hold the rows of the prompt. An extent is named by its first tensor.
expect 0 inspect -m "$folder/model.pi2" --tensors
cp "$folder/out" "$folder/tensors"
while read -r name count named; do
    at=$(awk -v name="$name" '$NF == name { print $(NF - 1) }' "$folder/tensors")
    [ -n "$at" ] || fail "no place of $name"
    cp "$folder/model.pi2" "$folder/damaged.pi2"
    tail -c +100001 "$folder/second.gguf" | head -c "$count" |
        dd of="$folder/damaged.pi2" bs=1 seek="$at" conv=notrunc 2>/dev/null
    for memory in "--memory $budget" ""; do
        # shellcheck disable=SC2086
        expect_error 3 "damaged.pi2: .*$named.*at byte .*checksum" run $options -m "$folder/damaged.pi2" $memory
    done
done <<END
blk.3.attn_norm.weight 1024 'blk.3.attn_norm.weight'
output_norm.weight 1 'output_norm.weight'
blk.2.attn_q.weight 3 blk.2.attn_
blk.4.ffn_down.weight 3 blk.4.ffn_
output.weight 3 output.weight
token_embd.weight 60000 token_embd.weight
END
finish
