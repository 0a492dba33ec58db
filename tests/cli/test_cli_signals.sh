#!/bin/sh
# Goal:   a signal that asks a command to end leaves no temporary file, and no half of a file under its name; a reader
#         that has gone and a limit of file size do not either.
# Method: runs and preparations that last, ended by each signal once their temporary file is there.
. "$(dirname "$0")/cli_support.sh"
"$program" synth --architecture qwen3moe --layers 3 --embedding 512 --heads 8 --kv-heads 4 --head-dim 64 \
    --experts 16 --experts-used 3 --expert-ffn 512 --vocab 1024 --type q4_0 -o "$folder/m.gguf" -q || fail synth
model=$folder/m.gguf

# ended SIGNAL CODE NAME ARGUMENTS...: ends the command when the temporary file of NAME is there.
ended() {
    signal=$1
    wanted=$2
    name=$3
    shift 3
    "$program" "$@" >"$folder/out" 2>"$folder/err" </dev/null &
    pid=$!
    waited=0
    while [ ! -e "$folder/.$name.tmp" ] && [ $waited -lt 1200 ] && kill -0 $pid 2>/dev/null; do
        sleep 0.05
        waited=$((waited + 1))
    done
    [ -e "$folder/.$name.tmp" ] || fail "$*: no temporary file came: $(cat "$folder/err")"
    kill -"$signal" $pid
    wait $pid
    code=$?
    checks=$((checks + 1))
    [ $code = "$wanted" ] || fail "$*: exit code $code after $signal: $(cat "$folder/err")"
    [ -e "$folder/.$name.tmp" ] && fail "$*: $signal leaves $(ls -A "$folder")"
    rm -f "$folder/.$name.tmp"
}

for signal in HUP TERM INT QUIT XCPU; do
    # The answer ends, and what was traced until then is written whole.
    ended $signal 130 t run -m "$model" --raw -p "bako mirena" -n 30000 --ignore-eos -c 32768 --record-trace "$folder/t"
    [ -s "$folder/t" ] && { expect 0 cache-replay --trace "$folder/t" --sizes 12; rm "$folder/t"; }
    ended $signal 130 s.csv bench -m "$model" -p 512 -n 4096 -r 100 -q --stats "$folder/s.csv"
    rm -f "$folder/s.csv"
    # A file that is being made is not there in part.
    ended $signal 130 big.gguf synth --shape mistral-7b -o "$folder/big.gguf" -q
    [ -e "$folder/big.gguf" ] && fail "synth: $signal leaves half a model"
    ended $signal 130 d.profile machine --profile "$folder/d.profile" -q
    [ -e "$folder/d.profile" ] && fail "machine: $signal leaves a profile"
done
# nohup holds: the terminal may go away. (What is ignored at the start stays so.)
(trap '' HUP; exec "$program" run -m "$model" --raw -p "bako mirena" -n 30000 --ignore-eos -c 32768 \
    --record-trace "$folder/t" >"$folder/out" 2>"$folder/err" </dev/null) &
pid=$!
waited=0
while [ ! -s "$folder/out" ] && [ $waited -lt 600 ]; do
    sleep 0.1
    waited=$((waited + 1))
done
kill -HUP $pid
sleep 1
checks=$((checks + 1))
kill -0 $pid 2>/dev/null || fail "a run under nohup ended with the terminal"
kill -TERM $pid
wait $pid
# A reader that goes: a failed write, told, and nothing is left.
{ "$program" run -m "$model" --raw -p "bako mirena" -n 30000 --ignore-eos -c 32768 --record-trace "$folder/gone" \
    2>"$folder/err" </dev/null; echo $? >"$folder/code"; } | head -c 1 >/dev/null
checks=$((checks + 1))
[ "$(cat "$folder/code")" = 5 ] || fail "exit code $(cat "$folder/code") after the reader has gone"
grep -q '^powerinfer2: .*stdout' "$folder/err" || fail "nothing tells that the reader has gone: $(cat "$folder/err")"
# A limit of file size: likewise. (dash counts blocks of 512 bytes, bash of 1024.)
(ulimit -f 1000; "$program" synth --layers 8 --embedding 1024 -o "$folder/limited.gguf" -q 2>"$folder/err")
code=$?
checks=$((checks + 1))
[ $code = 5 ] || fail "exit code $code at a limit of file size: $(cat "$folder/err")"
[ -e "$folder/limited.gguf" ] && fail "half a model is left at a limit of file size"
leftovers=$(find "$folder" -name '.*.tmp' -o -name '.powerinfer2-*')
[ -z "$leftovers" ] || fail "left behind: $leftovers"
finish
