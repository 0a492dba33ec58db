#!/bin/sh
# Goal:   verify measures an approximate mode beside the exact one and keeps it; run tells it, and holds to
#         --max-divergence; a guard of other weights, or a damaged one, is refused; exact runs ask for none.
# Method: tiny models with a key-value cache in q8_0, and with neurons left out by a predictor.
. "$(dirname "$0")/cli_support.sh"
tiny model layers=2 context=256 type=Q8_0
model=$folder/model.gguf
guard=$folder/model.guard
print_lines 60 "the hand and the other one are in line " "" >"$folder/text"
echo '{"context": "the hand of", "choices": ["that line", "in"], "answer": 0}' >"$folder/tasks"
coarse="-ctk q8_0 -ctv q8_0"

# Exact: zeros, and nothing is kept.
expect 0 verify -m "$model" -f "$folder/text" -c 64 --chunks 3 --json
expect_json arithmetic exact
expect_json guard null
expect_json chunks 3
expect_json tokens 93
for field in kl_divergence kl_divergence_error p_change p_change_rms kl_divergence_percentiles.100; do
    json $field | awk '{ exit !($1 == 0) }' || fail "an exact mode has $field $(json $field)"
done
for field in same_top perplexity_ratio; do
    json $field | awk '{ exit !($1 == 1) }' || fail "an exact mode has $field $(json $field)"
done
grep -q "nothing is approximate" "$folder/err" || fail "that nothing is approximate is not told: $(cat "$folder/err")"
[ -e "$guard" ] && fail "an exact mode left a guard"

# A text whose name is long, or no text itself: what is kept can be read.
odd=$folder/$(printf 'a\nb\351%0120d\303\244.txt' 7)
cp "$folder/text" "$odd"
# shellcheck disable=SC2086
expect 0 verify -m "$model" -f "$odd" -c 64 --chunks 1 $coarse
# shellcheck disable=SC2086
expect 0 verify -m "$model" -f "$odd" -c 64 --chunks 1 $coarse
grep -q '"text": "[?0]*7ä.txt"' "$guard" || fail "the text's name is $(grep '"text"' "$guard")"
rm "$guard" "$odd"

# Approximate, and nobody has measured it: told, and refused where a limit is given.
chat="--raw -p hand -n 6 --temp 0 -c 64"
# shellcheck disable=SC2086
{
    expect 0 run -m "$model" $chat
    exact=$(cat "$folder/out")
    grep -q approximate "$folder/err" && fail "an exact run is called approximate"
    expect 0 run -m "$model" $chat $coarse
    grep -q "^approximate (cache q8_0): what that costs was not measured" "$folder/err" || fail "$(cat "$folder/err")"
    expect_error 6 "was not measured: run 'powerinfer2 verify'" run -m "$model" $chat $coarse --max-divergence 10 -q
    expect 0 run -m "$model" $chat --max-divergence 0 # exact: there is nothing to hold to
    expect 0 run -m "$model" $chat $coarse --max-divergence 10 --on-divergence exact
    [ "$(cat "$folder/out")" = "$exact" ] || fail "the run that fell back says another text"
    grep -q "the run is exact instead" "$folder/err" || fail "$(cat "$folder/err")"

    expect 0 verify -m "$model" -f "$folder/text" -c 64 --json $coarse
    expect_json arithmetic "cache q8_0"
    expect_json guard "$guard"
    measured=$(json kl_divergence)
    echo "$measured" | awk '{ exit !($1 > 1e-7 && $1 < 1) }' || fail "a q8_0 cache costs $measured"
    figures=$(cat "$folder/out")
    head -1 "$guard" | grep -q '^{"powerinfer2_guard": 1' || fail "$(cat "$guard")"
    expect 0 verify -m "$model" -f "$folder/text" -c 64 --json $coarse -b 5 -t 1
    [ "$(cat "$folder/out")" = "$figures" ] || fail "with other batches and threads: $(cat "$folder/out"), not $figures"
    [ "$(grep -c '"arithmetic"' "$guard")" = 1 ] || fail "one mode and text are kept twice: $(cat "$guard")"
    expect 0 run -m "$model" $chat $coarse
    grep -q "^approximate (cache q8_0): KL divergence [0-9.]* +/- [0-9.]*, same top token [0-9.]* %, perplexity x [0-9.]*, over [0-9]* tokens of text$" \
        "$folder/err" || fail "$(cat "$folder/err")"
    expect 0 run -m "$model" $chat $coarse --max-divergence 1
    less=$(echo "$measured" | awk '{ printf "%.12f", $1 / 2 }')
    expect_error 6 "is 0.[0-9]*, more than --max-divergence" run -m "$model" $chat $coarse --max-divergence $less -q
    expect 0 run -m "$model" $chat $coarse --max-divergence $less --on-divergence exact
    [ "$(cat "$folder/out")" = "$exact" ] || fail "the run that fell back says another text"
    # The cluster file has the same weights and the same guard, wherever it lies.
    expect 0 prepare -m "$model" -o "$folder/model.pi2" -q
    expect 0 run -m "$folder/model.pi2" $chat $coarse --max-divergence 1
    mkdir "$folder/apart"
    mv "$folder/model.pi2" "$folder/apart/model.pi2"
    expect_error 6 "was not measured" run -m "$folder/apart/model.pi2" $chat $coarse --max-divergence 1 -q
    expect 0 run -m "$folder/apart/model.pi2" $chat $coarse --max-divergence 1 --guard "$guard"

    # Other weights under the same name, with the same header; a damaged guard; none at all.
    tiny model2 layers=2 context=256 type=Q8_0 seed=2
    mv "$folder/model2.gguf" "$model"
    expect_error 3 "measured on other weights" run -m "$model" $chat $coarse -q
    expect 0 run -m "$model" $chat -q # an exact run asks for none
    expect 0 verify -m "$model" -f "$folder/text" -c 64 --chunks 2 $coarse
    grep -q "was of other weights: it is made anew" "$folder/err" || fail "$(cat "$folder/err")"
    grep -q '^mode  *cache q8_0$' "$folder/out" || fail "$(cat "$folder/out")"
    expect 0 run -m "$model" $chat $coarse --max-divergence 1 -q
    head -c 100 "$guard" >"$folder/cut"
    expect_error 3 "cut: line" run -m "$model" $chat $coarse --guard "$folder/cut" -q
    cp "$folder/cut" "$guard"
    expect_error 3 "model.guard: line" run -m "$model" $chat $coarse -q
    expect_error 3 "model.guard: line" verify -m "$model" -f "$folder/text" -c 64 --chunks 1 $coarse -q
    expect_error 5 "none.guard" run -m "$model" $chat $coarse --guard "$folder/none.guard" -q

    expect 0 verify -m "$model" -f "$folder/text" -c 64 --chunks 1 $coarse -o "$folder/own.guard"
    expect 0 run -m "$model" $chat $coarse --max-divergence 1 --guard "$folder/own.guard" -q
    cp "$folder/text" "$folder/notes"
    expect_error 2 "notes is there and is not a guard" verify -m "$model" -f "$folder/text" -c 64 $coarse -o "$folder/notes"
    expect_error 2 "is an input of this command" verify -m "$model" -f "$folder/text" -c 64 $coarse -o "$folder/text"
    expect_error 2 "tokens are too few" verify -m "$model" -f "$folder/text" -c 4096 $coarse -o "$folder/own.guard"
    expect_error 5 "none/x cannot be written" verify -m "$model" -f "$folder/text" -c 4096 $coarse -o "$folder/none/x"
    expect_error 2 "is no regular file" verify -m "$model" -f - -c 64 $coarse
    expect_error 2 "no text" verify -m "$model" $coarse
    expect_error 5 "none" verify -m "$model" -f "$folder/none" $coarse
}
# Neurons left out by a predictor: none of them is exact to the bit by that path, half of them is not; shares, predictors
# and what they are measured with are modes of their own.
tiny sparse layers=2 context=256 type=Q8_0
sparse=$folder/sparse.gguf
expect 0 verify -m "$sparse" -f "$folder/text" -c 64 --chunks 3 --json --sparsity 0
json kl_divergence | awk '{ exit !($1 == 0) }' || fail "with all neurons kept: $(json kl_divergence)"
json arithmetic | grep -q '^sparsity 0, predictor low_bit [0-9a-f]\{16\}$' || fail "mode $(json arithmetic)"
expect 0 verify -m "$sparse" -f "$folder/text" -c 64 --chunks 3 --json --sparsity 0.5
half=$(json kl_divergence)
echo "$half" | awk '{ exit !($1 > 1e-4) }' || fail "half of the neurons left out: $half"
grep -c '"arithmetic"' "$folder/sparse.guard" | grep -q '^2$' || fail "not two modes: $(cat "$folder/sparse.guard")"
expect 0 perplexity -m "$sparse" -f "$folder/text" -c 64 --chunks 3 --kl-divergence-base "$folder/sparse.kept"
expect 0 perplexity -m "$sparse" --kl-divergence --kl-divergence-base "$folder/sparse.kept" --json --sparsity 0.5
echo "$half $(json kl_divergence)" | awk '{ d = $1 - $2; exit !(d < 1e-4 && d > -1e-4) }' ||
    fail "verify says $half, perplexity --kl-divergence $(json kl_divergence)"
answer="-m $sparse --raw -p hand -n 6 --temp 0 -c 64"
# shellcheck disable=SC2086
{
    expect 0 run $answer
    exact=$(cat "$folder/out")
    expect 0 run $answer --sparsity 0.50 --max-divergence 10
    grep -q "^approximate (sparsity 0.5, predictor low_bit [0-9a-f]*): KL divergence" "$folder/err" || fail "$(cat "$folder/err")"
    expect_error 6 "more than --max-divergence 0" run $answer --sparsity 0.5 --max-divergence 0 -q
    expect_error 6 "(sparsity 0.4, .* was not measured" run $answer --sparsity 0.4 --max-divergence 10 -q
    # Another predictor of the same kind is another mode.
    expect 0 predictor make -m "$folder/sparse.pi2" --bits 3 -o "$folder/three.predictor" -q
    expect_error 6 "was not measured" run $answer --sparsity 0.5 --max-divergence 10 -q --predictor "$folder/three.predictor"
    expect 0 run $answer --sparsity 0.5 --max-divergence 0 --on-divergence exact
    [ "$(cat "$folder/out")" = "$exact" ] || fail "the run that fell back says another text"
    expect_error 3 "measured on other weights, or another activation" run $answer --ffn-activation relu -ctk q8_0 -ctv q8_0 -q
    expect 0 run $answer --sparsity 0.5 --json
    json arithmetic | grep -q '^sparsity 0.5, predictor low_bit' || fail "run --json: $(json arithmetic)"
    expect 0 run $answer --json
    expect_json arithmetic exact
    expect 0 bench -m "$sparse" -p 8 -n 2 -r 1 -c 64 --sparsity 0.5 -o json
    [ "$(grep -c "^approximate (sparsity 0.5" "$folder/err")" = 1 ] || fail "bench: $(cat "$folder/err")"
    expect 0 eval -m "$sparse" --multiple-choice "$folder/tasks" --json --sparsity 0.5
    grep -q "^approximate (sparsity 0.5" "$folder/err" || fail "eval does not tell the mode: $(cat "$folder/err")"
}

[ -z "$(find "$folder" -name '.*.tmp' -o -name '*.logits')" ] || fail "left behind: $(ls -a "$folder")"
finish
