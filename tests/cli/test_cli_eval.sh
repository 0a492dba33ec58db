#!/bin/sh
# Goal:   eval counts right endings of both forms of tasks, the same in every step, budget and after an interruption; what
#         is wrong with tasks, options or results is told in one line.
# Method: tiny models, whose picks mean nothing but must not change; results that end early, of other tasks, of another
#         model, of another mode.
. "$(dirname "$0")/cli_support.sh"
tiny model layers=2 context=256 type=Q8_0
tiny wide layers=8 embedding=512 feed_forward=2048 heads=8 heads_kv=2 context=128 type=Q8_0
model=$folder/model.gguf
line=0
while [ $line -lt 12 ]; do
    printf 'the hand of %d\n%d\nis there\nof the other one and that line\nin\nthat %d was\n' $line $((line % 4)) $line
    line=$((line + 1))
done >"$folder/tasks.txt"
awk 'NR % 6 == 1 { context = $0 } NR % 6 == 2 { answer = $0 } NR % 6 == 3 { a = $0 } NR % 6 == 4 { b = $0 }
     NR % 6 == 5 { c = $0 }
     NR % 6 == 0 { printf "{\"context\": \"%s\", \"choices\": [\"%s\", \"%s\", \"%s\", \"%s\"], \"answer\": %d}\n",
                          context, a, b, c, $0, answer }' "$folder/tasks.txt" >"$folder/tasks.jsonl"

expect 0 eval -m "$model" --hellaswag "$folder/tasks.txt" --json
expect_json tasks 12
expect_json chance 0.25
plain=$(cat "$folder/out")
for rule in sum per_token per_character; do
    echo "$(json $rule.right) $(json $rule.accuracy) $(json $rule.low) $(json $rule.high)" | awk '
        { exit !($1 / 12 - $2 < 1e-9 && $2 - $1 / 12 < 1e-9 && $3 <= $2 && $2 <= $4 && $4 - $3 > 0.2) }' ||
        fail "$rule: $(cat "$folder/out")"
done
# The same tasks in the other form; other batches, threads, and logits that are kept.
expect 0 eval -m "$model" --multiple-choice "$folder/tasks.jsonl" --json -b 3 -t 1
[ "$(cat "$folder/out")" = "$plain" ] || fail "as JSON lines: $(cat "$folder/out"), not $plain"
expect 0 eval -m "$model" --hellaswag "$folder/tasks.txt"
[ "$(wc -l <"$folder/out")" = 5 ] || fail "the table has $(wc -l <"$folder/out") lines"
grep -q '^by token  *[0-9.]* % \[[0-9.]*, [0-9.]*\]$' "$folder/out" || fail "$(cat "$folder/out")"
# A budget in which weights stream.
expect 0 eval -m "$folder/wide.gguf" --hellaswag "$folder/tasks.txt" --tasks 4 --json -c 64
whole=$(cat "$folder/out")
expect 0 run -m "$folder/wide.gguf" --raw -p abc -n 1 -c 64 --json
budget=$(($(json memory.peak_bytes) - 12000000))
expect 0 eval -m "$folder/wide.gguf" --hellaswag "$folder/tasks.txt" --tasks 4 --json -c 64 --memory $budget
[ "$(cat "$folder/out")" = "$whole" ] || fail "within $budget bytes: $(cat "$folder/out"), not $whole"

# Results: kept, gone on with, and refused where they are of something else.
expect 0 eval -m "$model" --hellaswag "$folder/tasks.txt" --tasks 5 -o "$folder/results" --json
expect_json tasks 5
[ "$(wc -l <"$folder/results")" = 6 ] || fail "results of 5 tasks have $(wc -l <"$folder/results") lines"
cp "$folder/results" "$folder/five"
expect 0 eval -m "$model" --hellaswag "$folder/tasks.txt" -o "$folder/results" --resume --json
[ "$(cat "$folder/out")" = "$plain" ] || fail "gone on with: $(cat "$folder/out"), not $plain"
head -6 "$folder/results" | cmp -s - "$folder/five" || fail "going on changed the results that there were"
expect 0 eval -m "$model" --hellaswag "$folder/tasks.txt" -o "$folder/results" --resume --json --tasks 5
expect_json tasks 5
expect 0 eval -m "$model" --hellaswag "$folder/tasks.txt" -o "$folder/anew" --resume --json # none are there yet
cmp -s "$folder/results" "$folder/anew" || fail "results of one run and of two differ"
refuse() { # refuse PATTERN ARGUMENTS...
    pattern=$1
    shift
    expect_error 2 "$pattern" eval "$@" -o "$folder/results" --resume
}
refuse "results is of other tasks" -m "$model" --multiple-choice "$folder/tasks.jsonl"
refuse "results was computed in another mode" -m "$model" --hellaswag "$folder/tasks.txt" -ctk q8_0 -ctv q8_0
tiny model2 layers=2 context=256 type=Q8_0 seed=2 # the same header, other weights
refuse "results is of another model" -m "$folder/model2.gguf" --hellaswag "$folder/tasks.txt"
expect 0 prepare -m "$model" -o "$folder/model.pi2" -q # the cluster file has the same weights
expect 0 eval -m "$folder/model.pi2" --hellaswag "$folder/tasks.txt" -o "$folder/results" --resume --json
[ "$(cat "$folder/out")" = "$plain" ] || fail "as a cluster file: $(cat "$folder/out"), not $plain"
echo '{"task": 1}' >>"$folder/five"
cp "$folder/five" "$folder/results"
expect_error 3 "line 7: this should be the result of task 5" eval -m "$model" --hellaswag "$folder/tasks.txt" \
    -o "$folder/results" --resume
expect_error 2 "is not a file of results" eval -m "$model" --hellaswag "$folder/tasks.txt" -o "$folder/tasks.jsonl"
expect_error 2 "is an input of this command" eval -m "$model" --hellaswag "$folder/tasks.txt" -o "$folder/tasks.txt"

# A task that is too long: what was done before is kept.
printf 'a\n0\nb\nc\nd\ne\n' >"$folder/long.txt"
awk 'BEGIN { for (i = 0; i < 40; i++) printf "hand "; print ""; print "0\nb\nc\nd\ne" }' >>"$folder/long.txt"
expect 2 eval -m "$model" --hellaswag "$folder/long.txt" -c 32 -o "$folder/long.results"
[ "$(grep -c '^powerinfer2: task 1: it needs a context of [0-9]* tokens, and there are 32' "$folder/err")" = 1 ] ||
    fail "$(cat "$folder/err")"
grep -q "long.results: 1 tasks are done; 'eval --resume' goes on" "$folder/err" || fail "$(cat "$folder/err")"
expect 0 eval -m "$model" --hellaswag "$folder/long.txt" -c 200 -o "$folder/long.results" --resume --json
expect_json tasks 2

expect_error 5 "none/x cannot be written: .*none: No such file" eval -m "$model" --hellaswag "$folder/long.txt" -c 8 \
    -o "$folder/none/x" # before the first task, which is too long

expect_error 2 "no tasks" eval -m "$model"
expect_error 2 "two kinds of tasks" eval -m "$model" --hellaswag a --multiple-choice b
expect_error 2 "name it with -o" eval -m "$model" --hellaswag "$folder/tasks.txt" --resume
expect_error 5 "none.txt" eval -m "$model" --hellaswag "$folder/none.txt"
expect_error 3 "tasks.jsonl: line 2: a task has six lines" eval -m "$model" --hellaswag "$folder/tasks.jsonl"
expect_error 3 "tasks.txt: line 1: " eval -m "$model" --multiple-choice "$folder/tasks.txt"
finish
