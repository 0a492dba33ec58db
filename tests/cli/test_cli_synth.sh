#!/bin/sh
# Goal:   "synth" writes a model that the other commands take, and refuses what is impossible with
#         one line, exit code 2 and no file.
# Method: a small llama through flags, and wrong command lines.
. "$(dirname "$0")/cli_support.sh"

small="--layers 2 --embedding 128 --ffn 256 --heads 4 --kv-heads 2 --vocab 1024"
expect_error 2 "no file to write" synth --shape mistral-7b
expect_error 2 "there is no shape" synth --shape gpt-9 -o "$folder/x.gguf"
expect_error 2 "there is no type" synth $small --type q3_x -o "$folder/x.gguf"
types=$(sed -n 's/.*known are //p' "$folder/err")
for type in q4_k_m q4_k bf16 iq4_xs mxfp4; do
    echo "$types" | grep -qw "$type" || fail "a wrong type is not answered with $type"
done
expect_error 2 "multiple of" synth $small --ffn 100 -o "$folder/x.gguf"
expect_error 2 "cannot share" synth $small --kv-heads 3 -o "$folder/x.gguf"
expect_error 2 "lies outside" synth $small --layers 0 -o "$folder/x.gguf"
expect_error 5 "cannot make the file" synth $small -o "$folder/none/x.gguf"
[ -e "$folder/x.gguf" ] && fail "a refused model was written"
expect 0 synth --list-shapes
grep -q '^mixtral-8x7b$' "$folder/out" || fail "--list-shapes lacks mixtral-8x7b"

expect 0 synth $small --type q8_0 -o "$folder/x.gguf"
grep -q 'x.gguf:.*written in' "$folder/err" || fail "synth does not tell what it wrote"
expect_error 2 "is there already" synth $small -o "$folder/x.gguf"
expect 0 synth $small --type q8_0 -o "$folder/y.gguf" -q
[ -s "$folder/err" ] && fail "--quiet wrote to stderr"
cmp -s "$folder/x.gguf" "$folder/y.gguf" || fail "equal seeds gave different files"
expect 0 synth $small --type q8_0 -o "$folder/y.gguf" --force --seed 2
cmp -s "$folder/x.gguf" "$folder/y.gguf" && fail "another seed gave the same file"
expect 0 run -m "$folder/x.gguf" -p "bako mirena" -n 8 --temp 0
[ -s "$folder/out" ] || fail "the model says nothing"
leftovers=$(find "$folder" -name '.*.tmp')
[ -z "$leftovers" ] || fail "left behind: $leftovers"

# Planted routing comes out of a run: chance would repeat 12.5 % of the experts.
experts="--layers 3 --embedding 256 --ffn 128 --heads 4 --kv-heads 2 --head-dim 64 --vocab 1024
    --experts 32 --experts-used 4"
for family in llama qwen3moe smallthinker; do
    # shellcheck disable=SC2086
    expect 0 synth --architecture $family $experts --expert-skew 0.2 --expert-repeat 0.5 \
        -o "$folder/e.gguf" --force -q
    expect 0 inspect -m "$folder/e.gguf" --routing --tokens 160 --json
    json mean.repeat | awk '{ exit !($1 > 0.35 && $1 < 0.65) }' || fail "$family repeats $(json mean.repeat)"
    json mean.skew | awk '{ exit !($1 > 0.12 && $1 < 0.32) }' || fail "$family far: $(json mean.skew)"
    # shellcheck disable=SC2086
    expect 0 synth --architecture $family $experts -o "$folder/e.gguf" --force -q
    expect 0 inspect -m "$folder/e.gguf" --routing --tokens 160
    awk '/^mean/ { found = $2 > 7 && $4 > 9 && $4 < 16 } END { exit !found }' "$folder/out" ||
        fail "$family without a wish: $(grep ^mean "$folder/out")"
done
expect_error 2 "no experts" inspect -m "$folder/x.gguf" --routing

# A disk that is full: a small file system in memory, where we may mount one.
if mkdir "$folder/disk" && mount -t tmpfs -o size=1m tmpfs "$folder/disk" 2>/dev/null; then
    expect_error 5 "make room" synth $small --vocab 8192 --type f32 -o "$folder/disk/z.gguf"
    leftovers=$(find "$folder/disk" -type f)
    umount "$folder/disk"
    [ -z "$leftovers" ] || fail "a full disk kept $leftovers"
fi
finish
