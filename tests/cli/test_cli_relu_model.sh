#!/bin/sh
# Goal:   a real ReLU model (examples/relufy) is what its maker says: it names its activation, three quarters of its
#         neurons give nothing, with SiLU it is another model; and its text is the same in memory and past it.
# Method: PI2_TEST_RELU_MODEL names the GGUF; a short story, greedy answers.
. "$(dirname "$0")/cli_support.sh"
if [ -z "${PI2_TEST_RELU_MODEL:-}" ]; then
    echo "SKIPPED: PI2_TEST_RELU_MODEL is not set: no ReLU model (examples/relufy makes one)"
    exit 77
fi
model=$folder/relu.gguf
ln -s "$(realpath "$PI2_TEST_RELU_MODEL")" "$model"
cat >"$folder/story" <<'TEXT'
Once upon a time, there was a little boy named Ben. Ben had a small red boat. He liked to play with his boat in the
pond near his house. One day, the wind was strong and the boat went far away. Ben was sad and he started to cry. A big
duck saw him and said, "Do not cry, I will help you." The duck swam to the boat and pushed it back. Ben was so happy.
He gave the duck some bread and they became good friends.
TEXT
expect 0 inspect -m "$model" --json
expect_json runnable true
case $(json ffn_activation) in relu | drelu) ;; *) fail "not a ReLU model" ;; esac

expect 0 inspect -m "$model" --sparsity -f "$folder/story" --json
json mean.rounded_zeros | awk '{ exit !($1 >= 0.75) }' || fail "$(json mean.rounded_zeros) zeros, not 0.75"

surprise() { # surprise ARGUMENTS...: the story's perplexity
    expect 0 perplexity -m "$model" -f "$folder/story" -c 48 --json "$@"
    json perplexity
}
relu=$(surprise)
silu=$(surprise --ffn-activation silu)
awk -v relu="$relu" -v silu="$silu" 'BEGIN { exit !(relu < 40 && silu > 2 * relu) }' ||
    fail "perplexity $relu, with SiLU $silu"

expect 0 run -m "$model" --raw -p "Once upon a time" -n 100 --temp 0 -t 1
cp "$folder/out" "$folder/text"
expect 0 run -m "$model" --raw -p "Once upon a time" -n 100 --temp 0 -t 2
cmp -s "$folder/text" "$folder/out" || fail "two threads give another text"
expect 0 prepare -m "$model" -o "$folder/relu.pi2"
PI2_CPU=scalar
export PI2_CPU
expect 0 run -m "$folder/relu.pi2" --raw -p "Once upon a time" -n 100 --temp 0
cmp -s "$folder/text" "$folder/out" || fail "the scalar kernels give another text"
unset PI2_CPU
# The least memory that it runs in, in steps.
for memory in 16 18 20 22 24 28 32 40 48 64 80; do
    run run -m "$folder/relu.pi2" --raw -p "Once upon a time" -n 100 --temp 0 -c 256 --memory ${memory}M
    [ "$code" = 0 ] && break
done
[ "$code" = 0 ] || fail "it runs in no budget up to 80 MB"
grep -q '^weights .* hit rate' "$folder/err" || fail "no word on what was read"
cmp -s "$folder/text" "$folder/out" || fail "--memory ${memory}M gives another text"
finish
