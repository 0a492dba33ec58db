#!/bin/sh
# Goal:   no command writes over what it reads, over a file of another kind, another model's cluster file, a device or
#         a folder; what flows may go into a pipe, /dev/null and /dev/stdout.
# Method: every option that names an output, of every command, each with the same set of victims.
. "$(dirname "$0")/cli_support.sh"
tiny model layers=2 context=64
tiny other layers=3 context=64
"$program" synth --architecture qwen3moe --layers 2 --embedding 256 --heads 4 --kv-heads 2 --head-dim 64 --experts 8 \
    --experts-used 2 --expert-ffn 256 --vocab 1024 --context 64 --type q4_0 -o "$folder/experts.gguf" -q || fail synth
model=$folder/model.gguf
experts=$folder/experts.gguf
printf 'my notes\n' >"$folder/notes.txt"
cp "$folder/notes.txt" "$folder/notes.before"
printf 'a text that is counted\n' >"$folder/text.txt"
cp "$model" "$folder/model.before"

# unchanged FILE: it is still as COPY
unchanged() {
    checks=$((checks + 1))
    cmp -s "$1" "$2" || fail "$1 was written over by: $what"
}

# refuse PATTERN VICTIM ARGUMENTS...: exit code 2, and the victim and what it stands for are as before.
refuse() {
    what="$*"
    refuse_pattern=$1
    refuse_victim=$2
    shift 2
    expect_error 2 "$refuse_pattern" "$@" "$refuse_victim"
    unchanged "$folder/notes.txt" "$folder/notes.before"
    unchanged "$model" "$folder/model.before"
}

# victims IS_FORCE ARGUMENTS...: the option last; with --force another kind gives way, an input and a folder never.
victims() {
    is_force=$1
    shift
    [ "$is_force" = no ] && refuse "notes.txt is there and is not .*not replaced" "$folder/notes.txt" "$@"
    refuse "is an input of this command" "$model" "$@"
    refuse "is an input of this command" "$folder/hard.gguf" "$@"
    refuse "is an input of this command" "$folder/soft.gguf" "$@"
    refuse "is a folder" "$folder" "$@"
}
ln "$model" "$folder/hard.gguf"
ln -s model.gguf "$folder/soft.gguf"

for option in --trace --stats; do
    victims no run -m "$model" --raw -p abc -n 2 $option
    victims no bench -m "$model" -p 2 -n 0 -r 1 $option
    refuse "is an input of this command" "$folder/notes.txt" run -m "$model" --raw -f "$folder/notes.txt" -n 2 $option
    refuse "is an input of this command" "$folder/notes.txt" run -m "$model" -sysf "$folder/notes.txt" -p a -n 2 $option
done
victims no prepare -m "$model" -o
printf '{"prompt": "a"}\n' >"$folder/prompts.jsonl"
victims no batch -m "$model" -f "$folder/prompts.jsonl" -n 2 -o
expect_error 5 "none/x cannot be written: .*none: No such file" profile -m "$model" -f "$folder/text.txt" -c 32 \
    -o "$folder/none/x"
expect_error 5 "none/x.gnuplot cannot be written" profile -m "$model" -f "$folder/text.txt" -c 32 -o "$folder/s" \
    --plot "$folder/none/x"
[ -e "$folder/s" ] && fail "profile counted before it looked where its plot goes"
victims no profile -m "$model" -f "$folder/text.txt" -c 32 -o
refuse "is an input of this command" "$folder/text.txt" profile -m "$model" -f "$folder/text.txt" -c 32 -o
victims yes prepare -m "$model" --force -o
victims no machine --quick -m "$model" --profile
victims no machine --quick --force -m "$model" --profile
victims no plan -m "$model" --profile
refuse "is a folder" "$folder" synth --layers 1 -o
refuse "is a folder" "$folder" synth --layers 1 --force -o
for option in --trace --stats --record-trace; do
    expect_error 2 "is not .*not replaced" run -m "$experts" --raw -p abc -n 2 $option "$folder/notes.txt"
    expect_error 2 "is an input" run -m "$experts" --raw -p abc -n 2 $option "$experts"
done
expect_error 2 "is not a trace" perplexity -m "$experts" -f "$folder/notes.txt" -c 8 --record-trace "$model"
expect_error 2 "is an input" perplexity -m "$experts" -f "$folder/notes.txt" -c 8 --record-trace "$folder/notes.txt"
unchanged "$folder/notes.txt" "$folder/notes.before"

# A device is written into where that makes sense, and stays one.
for command in "prepare -m $model -o" "prepare -m $model --force -o" "synth --layers 1 --force -o" \
    "machine --quick --profile" "plan -m $model --profile"; do
    # shellcheck disable=SC2086
    expect_error 2 "/dev/null is a device" $command /dev/null
done
[ -c /dev/null ] || fail "/dev/null is no device any more"
mkfifo "$folder/pipe"
cat "$folder/pipe" >"$folder/piped" &
reader=$!
expect 0 run -m "$model" --raw -p abc -n 2 -q --stats "$folder/pipe"
wait $reader
grep -q '^index,phase' "$folder/piped" || fail "--stats did not write into a pipe"
[ -p "$folder/pipe" ] || fail "the pipe is none any more"
expect_error 2 "is a pipe" prepare -m "$model" -o "$folder/pipe"
if [ -e /proc/self/fd ]; then # stdout goes to a file here: it is written into, not replaced
    ino=$(ls -i "$folder/out" | cut -d' ' -f1)
    expect 0 run -m "$model" --raw -p abc -n 2 -q --stats /dev/stdout
    grep -q '^index,phase' "$folder/out" || fail "--stats /dev/stdout wrote nothing"
    [ "$(ls -i "$folder/out" | cut -d' ' -f1)" = "$ino" ] || fail "--stats /dev/stdout replaced the file of stdout"
    [ -L /dev/stdout ] || fail "/dev/stdout is no link any more"
    expect_error 2 "open already\|is a device" prepare -m "$model" -o /dev/stdout
fi

# Files of their kind are written over; a cluster file of an older version of the model gives way, another model's not.
expect 0 run -m "$model" --raw -p abc -n 2 -q --stats "$folder/s.csv" --trace "$folder/t.json"
expect 0 run -m "$model" --raw -p abc -n 3 -q --stats "$folder/s.csv" --trace "$folder/t.json"
expect_error 2 "is not a table" run -m "$model" --raw -p abc -n 2 --stats "$folder/t.json"
expect_error 2 "is not a timeline" run -m "$model" --raw -p abc -n 2 --trace "$folder/s.csv"
expect 0 prepare -m "$model" -q
cp "$folder/model.pi2" "$folder/model.pi2.before"
expect_error 2 "another model.s cluster file, made from model.gguf" prepare -m "$folder/other.gguf" -o "$folder/model.pi2"
what="prepare of another model"
unchanged "$folder/model.pi2" "$folder/model.pi2.before"
expect_error 2 "have one file" run -m "$model" --raw -p abc --cluster-file "$folder/x" --stats "$folder/x"
# The engine that prepares by itself goes by the same rule.
tiny wide layers=12 embedding=512 feed_forward=2048 heads=8 heads_kv=2 context=64 type=Q8_0
expect 0 run -m "$folder/wide.gguf" --raw -p abc -n 1 -c 64 --json
budget=$(($(json memory.peak_bytes) - 30000000))
expect_error 2 "another model.s cluster file" run -m "$folder/wide.gguf" --memory $budget -c 64 --raw -p abc -n 2 \
    --cluster-file "$folder/model.pi2"
expect_error 2 "notes.txt is there and is not a cluster file" run -m "$folder/wide.gguf" --memory $budget -c 64 --raw \
    -p abc -n 2 --cluster-file "$folder/notes.txt"
unchanged "$folder/model.pi2" "$folder/model.pi2.before"
unchanged "$folder/notes.txt" "$folder/notes.before"
tiny model layers=2 context=64 seed=7 # a new version under the old name
expect 0 prepare -m "$model" -o "$folder/model.pi2" -q
cmp -s "$folder/model.pi2" "$folder/model.pi2.before" && fail "the new version of a model was not prepared"
printf 'XXXX' | dd of="$folder/model.pi2" bs=1 seek=64 conv=notrunc 2>/dev/null # damaged, but known still
expect 0 prepare -m "$model" -o "$folder/model.pi2" -q
expect 0 inspect -m "$folder/model.pi2" --verify
# Cut short within the source's metadata, before any key of ours: damaged, and made again. A user's GGUF is not.
for bytes in 100 300 3000; do
    tiny cut layers=2 context=64 seed=7
    expect 0 prepare -m "$folder/cut.gguf" -o "$folder/cut.pi2" -q
    cp "$folder/cut.pi2" "$folder/cut.whole"
    head -c $bytes "$folder/cut.whole" >"$folder/cut.pi2"
    grep -q 'powerinfer2\.version' "$folder/cut.pi2" && fail "$bytes bytes hold our key: the test tests nothing"
    expect 0 prepare -m "$folder/cut.gguf" -o "$folder/cut.pi2" -q
    unchanged "$folder/cut.pi2" "$folder/cut.whole"
done
head -c 3000 "$model" >"$folder/plain.pi2"
cp "$folder/plain.pi2" "$folder/plain.before"
expect_error 2 "plain.pi2 is there and is not a cluster file" prepare -m "$model" -o "$folder/plain.pi2"
expect 0 run -m "$folder/wide.gguf" --memory $budget -c 64 --raw -p abc -n 2 -q
cp "$folder/wide.pi2" "$folder/wide.whole"
head -c 3000 "$folder/wide.whole" >"$folder/wide.pi2" # the engine that prepares by itself
expect 0 run -m "$folder/wide.gguf" --memory $budget -c 64 --raw -p abc -n 2
grep -q 'truncated' "$folder/err" || fail "a cut cluster file is not told: $(cat "$folder/err")"
unchanged "$folder/wide.pi2" "$folder/wide.whole"
unchanged "$folder/plain.pi2" "$folder/plain.before"
# Descriptors run out at any point: the reason is told, and nothing is left behind. Three are standard streams.
for descriptors in 4 5 6 7 8 9 10 11 12 13 14; do
    (ulimit -n $descriptors && "$program" prepare -m "$model" -o "$folder/few.pi2" -q) 2>"$folder/err" </dev/null &&
        rm -f "$folder/few.pi2" && break
    grep -q 'open files\|shared librar' "$folder/err" || fail "$descriptors descriptors: $(cat "$folder/err")"
    [ -e "$folder/.few.pi2.tmp" ] && fail "$descriptors descriptors: .few.pi2.tmp is left" && rm -f "$folder/.few.pi2.tmp"
done
[ "$descriptors" -gt 4 ] && [ "$descriptors" -lt 14 ] || fail "descriptors did not run out, or 14 were too few"
# --force: what is of another kind gives way, and only then.
expect 0 prepare -m "$model" -o "$folder/notes.txt" --force -q
expect 0 inspect -m "$folder/notes.txt" --verify
leftovers=$(find "$folder" -name '.*.tmp')
[ -z "$leftovers" ] || fail "left behind: $leftovers"
finish
