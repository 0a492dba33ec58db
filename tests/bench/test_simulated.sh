#!/bin/sh
# Goal:   bench/simulated leaves nothing in the folder where it is called; with --folder it keeps profiles and traces
#         there and takes a trace that is there; its ratios are the mean of both simulations over the median of the runs.
# Method: a program that answers with figures that are made up.
set -eu
command -v python3 >/dev/null || { echo "skipped: no python3"; exit 77; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
fail() { echo "$1"; exit 1; }
cat >"$folder/program" <<'END'
#!/bin/sh
# Writes what it is asked to write, and answers with 20 tokens/s; what was simulated and planned counts the profiles.
command=$1 count=$(cat "$CALLS" 2>/dev/null || echo 0)
while [ $# -gt 0 ]; do
    case $1 in
    --profile) [ "$command" = plan ] || { echo made >"$2"; echo $((count + 1)) >"$CALLS"; } ;;
    --record-trace) echo recorded >"$2"; echo recorded >>"$CALLS.traces" ;;
    --device) case $2 in *-0.profile) speed=10 ;; *) speed=20 ;; esac ;;
    esac
    shift
done
case $command in
machine) echo '{}' ;;
run) echo '{"timings":{"predicted_per_second":20},"io":{"bytes_per_token":5,"neuron_uses":4,"neuron_hits":3}}' ;;
simulate) echo "{\"runs\":[{\"tokens_per_second\":$speed,\"hit_share\":0.5,\"bytes_per_token\":6}]}" ;;
plan) echo '{"decode":{"tokens_per_second":40}}' ;;
esac
END
chmod +x "$folder/program"
mkdir "$folder/here" "$folder/temporary"
cd "$folder/here"
export CALLS="$folder/calls" TMPDIR="$folder/temporary"
"$1/bench/simulated" --program "$folder/program" model.gguf:64M:8:trace >"$folder/out"
grep -qxF '| model, 64M, 8 tokens | 20, 20 | 10, 20 | 0.75 | 2.00 |' "$folder/out" ||
    fail "another ratio: $(cat "$folder/out")"
[ -z "$(ls -A .)" ] || fail "something is left where it was called: $(ls -A .)"
[ -z "$(ls -A "$TMPDIR")" ] || fail "something is left among temporary files: $(ls -A "$TMPDIR")"
[ "$(wc -l <"$CALLS.traces")" -eq 1 ] || fail "no trace was recorded"
for time in first second; do
    "$1/bench/simulated" --program "$folder/program" --folder "$folder/kept" model.gguf:64M:8:trace >"$folder/out"
done
[ "$(cd "$folder/kept" && echo *)" = "model-64M.trace simulated-0.profile simulated-1.profile" ] ||
    fail "kept is another: $(ls "$folder/kept")"
[ "$(wc -l <"$CALLS.traces")" -eq 2 ] || fail "a trace that was there was recorded again"
[ "$(cat "$CALLS")" -eq 6 ] || fail "profiles were not measured before and after: $(cat "$CALLS")"
[ -z "$(ls -A .)" ] || fail "something is left where it was called: $(ls -A .)"
