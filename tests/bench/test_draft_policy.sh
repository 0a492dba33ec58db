#!/bin/sh
# Goal:   build/draft_policy plays answers on a machine whose times are told: one that repeats itself is faster, one that
#         does not is as fast as without guesses, and a drafter that is never right takes no more than guesses may lose.
# Method: answers that are made up.
set -eu
program=$(dirname "$2")/draft_policy
[ -x "$program" ] || { echo "skipped: no draft_policy in this build"; exit 77; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
fail() { cat "$folder/out"; echo "$1"; exit 1; }
awk 'BEGIN { printf "new 3"; for (i = 0; i < 43; i++) printf " %d", i; print ""
             printf "again 3"; for (i = 0; i < 83; i++) printf " %d", i % 10; print "" }' >"$folder/answers"
"$program" "$folder/answers" --prompts >"$folder/out"
grep -qxF 'new: 1.000, of a draw 1.000 at least' "$folder/out" || fail "guesses where nothing repeats"
grep -Eq '^again: [3-8]\.' "$folder/out" || fail "what repeats itself is not guessed"
grep -q '^2 answers: .*worst 1.000 (new), of a draw 1.000; below 0.97: 0; ' "$folder/out" || fail "the sum is another"
"$program" "$folder/answers" --draft 0.2 --holds 0 --prompts >"$folder/out"
grep -Eq '^new: 0\.9[6-9]' "$folder/out" || fail "a drafter that is never right loses more than it may"
"$program" "$folder/answers" --draft 0.05 --holds 0.9 --prompts >"$folder/out"
grep -Eq '^new: [2-4]\.' "$folder/out" || fail "a drafter that is right gains nothing"
echo "no answer" >"$folder/none"
if "$program" "$folder/none" >"$folder/out" 2>&1; then fail "a file without answers is taken"; fi
grep -q 'has no answers' "$folder/out" || fail "what is wrong is not told"
if "$program" --draws 0 "$folder/answers" >"$folder/out" 2>&1; then fail "no draws are taken"; fi
grep -q '^usage: draft_policy FILE' "$folder/out" || fail "the usage is not told"
