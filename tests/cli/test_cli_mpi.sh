#!/bin/sh
# Goal:   under mpirun the processes of profile share its texts, and leave the file of one process; when one fails, all
#         end, what was counted stays, and --resume goes on with it.
# Method: three processes on this machine; a program that was built with -DPI2_MPI=ON.
. "$(dirname "$0")/cli_support.sh"
if ! ldd "$program" | grep -q libmpi || ! command -v mpirun >/dev/null; then
    echo "SKIPPED: built without MPI (-DPI2_MPI=ON), or no mpirun"
    exit 77
fi
model=$folder/model.gguf
"$program" synth --layers 2 --embedding 256 --ffn 512 --vocab 1024 --ffn-activation relu --ffn-zeros 0.85 -o "$model" \
    -q || fail synth
print_lines 60 "the " ". line of a text, and some words" >"$folder/one"
print_lines 60 "" ": other words go on here." >"$folder/two"
# together CODE ARGUMENTS...: profile by three processes. Of several codes mpirun gives that of the first to end.
together() {
    wanted=$1
    shift
    timeout 300 mpirun --allow-run-as-root --oversubscribe -n 3 "$program" profile -m "$model" -c 128 -t 1 "$@" \
        >"$folder/out" 2>"$folder/err" </dev/null
    code=$?
    checks=$((checks + 1))
    case $code in $wanted) ;; *) fail "exit code $code, not $wanted: $(cat "$folder/err")" ;; esac
}
no_parts() {
    for part in "$folder"/*.part*; do
        [ -e "$part" ] && fail "$part is left"
    done
}

expect 0 profile -m "$model" -c 128 -f "$folder/one" "$folder/two" -o "$folder/alone" --json
total=$(json token_count)
together 0 -f "$folder/one" "$folder/two" -o "$folder/together" --json
expect_json token_count "$total"
cmp -s "$folder/alone" "$folder/together" || fail "three processes give another file than one"
no_parts

# One place that may not be written stops all of them, before and after others counted.
printf 'my notes\n' >"$folder/notes"
together 2 -f "$folder/one" -o "$folder/notes"
grep -q "notes is there and is not" "$folder/err" || fail "no reason is given"
cp "$folder/notes" "$folder/half.part2of3"
together '[25]' -f "$folder/one" "$folder/two" -o "$folder/half" -q
grep -q "half.part2of3 is there and is not" "$folder/err" || fail "no reason is given"
[ -e "$folder/half" ] && fail "two of three parts were merged"
[ -e "$folder/half.part1of3" ] && [ -e "$folder/half.part3of3" ] || fail "what was counted is lost"
rm "$folder/half.part2of3"
together 0 -f "$folder/one" "$folder/two" -o "$folder/half" --resume
cmp -s "$folder/alone" "$folder/half" || fail "going on gives another file"
no_parts
together 2 -f "$folder/one" --part 1/3 -o "$folder/never"
grep -q "under mpirun" "$folder/err" || fail "--part under mpirun is not refused"
[ -e "$folder/never" ] && fail "something was written"

# Without mpirun it is one process as ever.
expect 0 profile -m "$model" -c 128 -f "$folder/one" "$folder/two" -o "$folder/again" -q
cmp -s "$folder/alone" "$folder/again" || fail "without mpirun it gives another file"
finish
