#!/bin/sh
# Goal:   a standard stream that is closed is an error of that stream alone: what was meant for it goes into no file
#         that the command opens; a signal ends the reading of a text that never ends.
# Method: every combination of closed streams with files that are written at the same time; /dev/zero as a text.
. "$(dirname "$0")/cli_support.sh"
tiny model layers=2 context=512
model=$folder/model.gguf
answer="run -m $model --raw -p XYZ -n 5 --temp 0 --ignore-eos"
# shellcheck disable=SC2086 # options
expect 0 $answer
cp "$folder/out" "$folder/whole"

# closed CODE REDIRECTIONS ARGUMENTS...: runs with streams closed by the shell.
closed() {
    wanted=$1
    streams=$2
    shift 2
    rm -f "$folder/out" "$folder/err" "$folder/s.csv" "$folder/t.json"
    (eval "exec $streams"; exec "$program" "$@")
    code=$?
    checks=$((checks + 1))
    [ "$code" = "$wanted" ] || fail "exit code $code, not $wanted, with $streams: $*"
}

to_files=">\"\$folder/out\" 2>\"\$folder/err\" </dev/null"
for order in "<&-:0" ">&-:5" "2>&-:0" "<&- >&-:5" "<&- 2>&-:0" ">&- 2>&-:5" "<&- >&- 2>&-:5"; do
    streams=${order%:*}
    # shellcheck disable=SC2086 # options
    closed "${order##*:}" "$to_files $streams" $answer --stats "$folder/s.csv" --trace "$folder/t.json"
    head -n 1 "$folder/s.csv" | grep -q '^index,' || fail "$streams: the table begins with another thing"
    awk -F, 'NR > 1 && $1 != NR - 2 { exit 1 }' "$folder/s.csv" || fail "$streams: the table holds more than its lines"
    "$json_get" traceEvents.0.ph <"$folder/t.json" >/dev/null || fail "$streams: the timeline is no JSON"
    case $streams in
    *">&- "* | ">&-" | *" >&-") ;;
    *) cmp -s "$folder/out" "$folder/whole" || fail "$streams: another answer" ;;
    esac
    closed 0 "$to_files $streams" prepare -m "$model" -o "$folder/made.pi2" --force
    expect 0 inspect -m "$folder/made.pi2" --verify
done
closed 5 "$to_files <&-" run -m "$model"
grep -q '^powerinfer2: stdin: ' "$folder/err" || fail "nothing tells that stdin is closed: $(cat "$folder/err")"
closed 5 "$to_files >&-" --help
grep -q '^powerinfer2: .*stdout' "$folder/err" || fail "nothing tells that stdout is closed: $(cat "$folder/err")"

# ends ARGUMENTS...: the command reads a text without end; the first signal ends it.
ends() {
    "$program" "$@" >"$folder/out" 2>"$folder/err" </dev/null &
    pid=$!
    waited=0 # until the text is read: the model and stdout are open, and time is used
    while [ "$(awk '{ print $14 + $15 }' "/proc/$pid/stat" 2>/dev/null || echo 0)" -lt 100 ] && [ $waited -lt 600 ]; do
        sleep 0.1
        waited=$((waited + 1))
    done
    kill -TERM $pid
    waited=0
    while kill -0 $pid 2>/dev/null && [ $waited -lt 600 ]; do
        sleep 0.1
        waited=$((waited + 1))
    done
    checks=$((checks + 1))
    if kill -9 $pid 2>/dev/null; then
        fail "a signal does not end: $*"
    fi
    wait $pid
    code=$?
    [ $code = 130 ] || fail "exit code $code after a signal: $* $(cat "$folder/err")"
}
if [ -e /dev/zero ] && [ -e /proc/self/stat ]; then
    ends run -m "$model" --raw -f /dev/zero -n 1
    ends perplexity -m "$model" -f /dev/zero
else
    echo "no /dev/zero or /proc: a text without end was not tested"
fi
finish
