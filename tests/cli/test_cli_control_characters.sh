#!/bin/sh
# Goal:   what a file or a path says never reaches a terminal as a control character, from any command, in any format.
# Method: a model whose name holds escape, bell, delete and U+009B, in a folder whose name does; every output is
#         searched for bytes below space, DEL and U+0080 .. U+009F.
. "$(dirname "$0")/cli_support.sh"
bad=$(printf 'e\033]0;x\a\177\302\233m')
mkdir "$folder/$bad"
place=$folder/$bad
tiny plain layers=2 context=64 template='{{ raise_exception("e") }}'
LC_ALL=C sed "s/Tiny Test Model/$(printf 'Ti\033[2J\a\177\302\233' | sed 's/[[\\/&]/\\&/g')12345/" "$folder/plain.gguf" >"$place/m.gguf"
[ "$(wc -c <"$place/m.gguf")" = "$(wc -c <"$folder/plain.gguf")" ] || fail "the model's name changed its length"
model=$place/m.gguf
XDG_CACHE_HOME=$place
printf 'the hand and the other one are here\n' >"$folder/text"
for i in 1 2 3 4; do cat "$folder/text" "$folder/text" >"$folder/twice" && mv "$folder/twice" "$folder/text"; done

# clean ARGUMENTS...: the last run printed no control character.
clean() {
    checks=$((checks + 1))
    for stream in out err; do
        tr -d '\n' <"$folder/$stream" | LC_ALL=C grep -q "[$(printf '\001-\037\177')]\\|$(printf '\302')[$(printf '\200-\237')]" &&
            fail "a control character on $stream: powerinfer2 $*: $(LC_ALL=C cat -v "$folder/$stream" | head -40)"
    done
}

# both CODE ARGUMENTS...
both() {
    expect "$@"
    shift
    clean "$@"
}

both 0 inspect -m "$model" --metadata --tensors
grep -q '^name *Ti\\x1b\[2J\\x07\\x7f\\u009b12345' "$folder/out" || fail "the name: $(grep '^name' "$folder/out")"
both 0 inspect -m "$model" --json
expect_json name "$(printf 'Ti\033[2J\a\177\302\23312345')"
both 0 machine --quick
both 0 machine --json
both 0 plan -m "$model" -c 64
both 0 plan -m "$model" -c 64 --json
cp "$folder/out" "$place/plan.json"
both 0 run -m "$model" --raw -p "the hand" -n 2 --temp 0 -c 64
both 0 run -m "$model" --raw -p "the hand" -n 2 --temp 0 --json --plan "$place/plan.json"
for format in md json csv; do both 0 bench -m "$model" -p 4 -n 2 -r 1 -o $format; done
both 0 perplexity -m "$model" -f "$folder/text" -c 8 --chunks 2
both 0 prepare -m "$model"
both 0 inspect -m "$place/m.pi2" --verify
# Errors, with the path and what the file says.
both 3 run -m "$model" -p a
both 5 run -m "$place/none.gguf" -p a
both 5 plan -m "$place/none.gguf"
both 2 run -m "$model" --raw -p a --stats "$place"
both 3 cache-replay --trace "$model"
both 5 tokenize -m "$model" -f "$place/none"
LC_ALL=C sed "s/smollm/$(printf 's\033m\a\177m')/" "$folder/plain.gguf" >"$place/pre.gguf"
both 3 run -m "$place/pre.gguf" -p a
both 3 inspect -m "$place/pre.gguf"
both 3 inspect -m "$place/pre.gguf" --json
LC_ALL=C sed "s/blk.1.ffn_up.weight/blk.1.ffn_$(printf '\033\a').weight/" "$folder/plain.gguf" >"$place/tensor.gguf"
both 3 inspect -m "$place/tensor.gguf" --tensors
both 3 prepare -m "$place/tensor.gguf"
both 0 synth --layers 1 -o "$place/s.gguf"
finish
