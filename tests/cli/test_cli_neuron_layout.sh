#!/bin/sh
# Goal:   prepare --layout neuron writes a file that inspect lists and verifies and that run reads; what cannot be
#         ordered by statistics is refused in one line and leaves nothing.
# Method: tiny models, one with an infinite scale; bytes flipped in a unit and in a head.
. "$(dirname "$0")/cli_support.sh"
tiny model layers=3 feed_forward=1024 down=Q6_K
model=$folder/model.gguf
neurons=$folder/neurons.pi2

expect 0 prepare -m "$model" -o "$neurons" --layout neuron
expect 0 inspect -m "$neurons"
grep -q '^neuron banks *3$' "$folder/out" || fail "banks are not listed"
grep -q '^neuron units *[1-9]' "$folder/out" || fail "units are not listed"
grep -q '^neuron units. size .*bytes' "$folder/out" || fail "the units' bytes are not listed"
grep -q '^without a bank' "$folder/out" && fail "a bank is missing"
expect 0 inspect -m "$neurons" --json --verify
expect_json bank_count 3
expect_json banks_left_out 0
expect_json verified true
expect_json format cluster

# The same bytes again, and a dense file is no neuron file, but the other way round.
expect 0 prepare -m "$model" -o "$folder/again.pi2" --layout neuron
cmp -s "$neurons" "$folder/again.pi2" || fail "two files of one source differ"
expect 0 prepare -m "$model" -o "$folder/again.pi2"
cmp -s "$neurons" "$folder/again.pi2" || fail "a neuron file does not serve as a dense one"
expect 0 prepare -m "$model" -o "$folder/dense.pi2" --layout dense
expect 0 inspect -m "$folder/dense.pi2" --json
expect_json bank_count 0
expect 0 prepare -m "$model" -o "$folder/dense.pi2" --layout neuron
cmp -s "$neurons" "$folder/dense.pi2" || fail "a dense file was taken for a neuron file"

# run takes it like any other.
expect 0 run -m "$model" --raw -p a -n 8 -c 128 --temp 0
cp "$folder/out" "$folder/text"
expect 0 run -m "$neurons" --raw -p a -n 8 -c 128 --temp 0
cmp -s "$folder/text" "$folder/out" || fail "the text is another one"

# Statistics.
expect_error 2 "not with --layout dense" prepare -m "$model" -o "$folder/never.pi2" --layout dense --statistics "$model"
expect_error 3 "no statistics" prepare -m "$model" -o "$folder/never.pi2" --layout neuron --statistics "$model"
expect_error 5 "absent" prepare -m "$model" -o "$folder/never.pi2" --layout neuron --statistics "$folder/absent"
expect_error 2 "dense|neuron" prepare -m "$model" -o "$folder/never.pi2" --layout sparse
[ -e "$folder/never.pi2" ] && fail "a refused prepare left a file"

# flip FILE BYTE: changes one byte.
flip() {
    byte=$(od -An -tu1 -j "$2" -N 1 "$1" | tr -d ' ')
    printf "$(printf '\\%03o' $((byte ^ 1)))" | dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null
}
size=$(wc -c <"$neurons")
flip "$neurons" $((size - 4096)) # the last unit's first byte
expect_error 3 "unit .*layer 2.*neurons.pi2\|neurons.pi2: unit .*layer 2" inspect -m "$neurons" --verify
flip "$neurons" $((size - 4096))
expect 0 inspect -m "$neurons" --verify

# A layer whose scales are not all finite has no bank: the first scale of layer 1's Down becomes infinite.
offset=$("$program" inspect -m "$model" --tensors | awk '$NF == "blk.1.ffn_down.weight" { print $(NF - 1) }')
printf '\000\174' | dd of="$model" bs=1 seek=$((offset + 208)) conv=notrunc 2>/dev/null
expect 0 prepare -m "$model" -o "$folder/infinite.pi2" --layout neuron
expect 0 inspect -m "$folder/infinite.pi2" --verify
grep -q '^neuron banks *2$' "$folder/out" || fail "a layer with an infinite scale has a bank"
grep -q '^without a bank *1: a weight that is infinite.* in layers 1$' "$folder/out" || fail "it is not said which layer"
# Without a word the layout follows from the activation; and a run that makes the file makes the one that serves it.
tiny relu layers=6 feed_forward=16384 activation=relu
expect 0 prepare -m "$folder/relu.gguf" -o "$folder/auto.pi2"
expect 0 inspect -m "$folder/auto.pi2" --json
expect_json bank_count 6
expect 0 prepare -m "$model" -o "$folder/silu.pi2"
expect 0 inspect -m "$folder/silu.pi2" --json
expect_json bank_count 0
expect 0 run -m "$folder/relu.gguf" --memory 200M -c 128 --raw -p 'bako mirena' -n 12 --temp 0 --ignore-eos --json \
    --sparsity off
text=$(json text)
expect_json io.neuron_uses 0
# A sanitizer's own memory counts too, and what it leaves for neurons is nobody's to say: there all of them are in memory.
if [ "${PI2_TEST_PRESET:-release}" = release ]; then
    by_neuron="-m $folder/relu.gguf --memory 46M"
else
    by_neuron="-m $folder/auto.pi2 --memory 400M --sparsity always"
fi
# run_by_neuron [OPTION...]: one run of it, whose words are parted here.
run_by_neuron() {
    # shellcheck disable=SC2086
    expect 0 run $by_neuron -c 128 --raw -p 'bako mirena' -n 12 --temp 0 --ignore-eos "$@"
}
run_by_neuron --json
expect_json text "$text"
uses=$(json io.neuron_uses)
[ "$uses" -gt 0 ] || fail "no neuron was computed alone"
[ "${PI2_TEST_PRESET:-release}" != release ] || [ "$(json io.neuron_hits)" -lt "$uses" ] || fail "all neurons were there"
run_by_neuron
grep -q '^neurons  *[0-9]* fired, [0-9.]* % of them were in memory$' "$folder/err" || fail "the report tells of no neurons"
run_by_neuron --json --sparsity always
expect_json text "$text"
expect_error 2 "unknown sparsity" run -m "$model" --sparsity most -p x

finish
