#!/bin/sh
# Goal:   plan tells what a run reports: what stays, what is read; its JSON has the names that stay.
# Method: a quick profile; a tiny model of about 45 MB, in memory and with 30 MB less.
. "$(dirname "$0")/cli_support.sh"
tiny model layers=10 embedding=512 feed_forward=2048 heads=8 heads_kv=2 context=512 type=Q8_0
model=$folder/model.gguf
have_profile
expect_error 2 "no model" plan

expect 0 plan -m "$model" -c 128 --memory 400M --json
expect_json powerinfer2_plan 1
expect_json bytes_per_token 0
for speed in decode prefill; do
    for name in tokens_per_second low high; do expect_json "?$speed.$name" real; done
done
for name in version bottleneck machine.cpu model.architecture parameters.read_method; do
    expect_json "?$name" string
done
expect_json '?time_to_first_token_ms' real
expect_json '?prefill_batch' null
expect_json parameters.context_tokens 128
[ "$(json resident_bytes)" -gt 30000000 ] || fail "resident bytes: $(json resident_bytes)"

# With less memory: what a run then keeps and reads is what was planned.
expect 0 run -m "$model" --raw -p abc -n 1 -c 128 --json
budget=$(($(json memory.peak_bytes) - 25000000))
expect 0 prepare -m "$model" -q
expect 0 plan -m "$model" -c 128 --memory $budget --json
planned=$(json bytes_per_token)
expect 0 run -m "$model" --memory $budget --raw -p abc -n 6 -c 128 --temp 0 --ignore-eos --draft-max 0 \
    --json
actual=$(printf '%.0f' "$(json io.bytes_per_token)")
if [ "${PI2_TEST_PRESET:-release}" != tsan ]; then # whose notes are of another size in each process
    [ "$planned" -gt 5000000 ] || fail "nothing is planned to be read: $planned"
    [ "$actual" -gt $((planned * 8 / 10)) ] && [ "$actual" -lt $((planned * 12 / 10)) ] ||
        fail "$actual bytes a token, planned were $planned"
fi

# Room for several answers at a time is taken from the weights'.
kept=$(expect 0 plan -m "$model" -c 128 --memory $budget --json && json resident_bytes)
expect 0 plan -m "$model" -c 128 --memory $budget --json -np 4
[ "$(json resident_bytes)" -lt "$kept" ] || fail "-np 4 keeps $(json resident_bytes) bytes of weights, one $kept"
expect_error 4 "for 100 sequences; --memory gives" plan -m "$model" -c 128 --memory $budget -np 100

expect 0 plan -m "$model" -c 128 --memory $budget
expect 0 plan -m "$model" -c 128 --memory $budget --json
expect_json '?disk.bytes_per_second' real
# Whether a batch hides its reading is what its two times say.
if [ "$planned" -gt 0 ]; then
    expect_json prefill_batch.tokens "$(json parameters.batch_tokens)"
    echo "$(json prefill_batch.read_ms) $(json prefill_batch.compute_ms) $(json prefill_batch.reading_hides) \
        $(json prefill_batch.tokens) $(json prefill_batch.hides_from_tokens)" | awk '{
        exit !($3 == ($1 <= $2 ? "true" : "false") && ($3 == "true" ? $5 <= $4 : $5 == "null" || $5 > $4)) }' ||
        fail "the batch: $(json prefill_batch)"
fi
[ "$(json disk.place | cut -c1)" = / ] || fail "the disk has no place: $(json disk.place)"
expect 0 plan -m "$model" -c 128 --memory $budget
grep -q '^disk  *[0-9.]* GB/s .* mounted at /' "$folder/out" || fail "the plan names no disk"
[ "$planned" = 0 ] || grep -q '^ *in a batch of [0-9]* tokens reading (.*) .* under computing (.*); it ' "$folder/out" ||
    fail "the plan does not say whether reading hides"
# The table says what the JSON says, and what stays in memory with the margin fills the budget and no more.
cp "$folder/out" "$folder/table"
expect 0 plan -m "$model" -c 128 --memory $budget --json
: >"$folder/lines"
for i in 0 1 2 3 4 5 6 7 8; do
    echo "$(json memory.$i.bytes) $(json memory.$i.resident_bytes) $(json memory.$i.what)" >>"$folder/lines"
done
awk -v budget="$budget" '
    { sum += $3 == "margin" ? $1 : $2 }
    END { if (sum > budget || sum < budget - 3000000) { print sum " of " budget " bytes are planned"; exit 1 } }' \
    "$folder/lines" || fail "the lines of memory"
sed -n 's/^\([a-z].*[a-z]\)  *\([0-9.]*\) \([kMG]*B\)  *[0-9.]* [kMG]*B  .*/\2 \3 \1/p' "$folder/table" >"$folder/shown"
sed 's/^\([0-9]*\) [0-9]* /\1 /' "$folder/lines" | awk -v shown="$folder/shown" '
    BEGIN { unit["B"] = 1; unit["kB"] = 1e3; unit["MB"] = 1e6; unit["GB"] = 1e9 }
    { bytes = $1; $1 = ""; getline line <shown; split(line, part, " "); value = part[1] * unit[part[2]]
      rest = line; sub(/^[^ ]* [^ ]*/, "", rest)
      # The process is of another size in each run; the others are the same, as far as they are shown: to a tenth.
      slack = rest ~ /program/ ? 0.5 * bytes : 0.051 * unit[part[2]]
      if (rest != $0 || value < bytes - slack - 50 || value > bytes + slack + 50) {
          print "shown as: " line ", is:" $0 " " bytes; exit 1 } }' || fail "the table of memory"
for speed in decode prefill; do
    echo "$(sed -n "s/^$speed  *\([0-9.]*\) tokens.s (.*/\1/p" "$folder/table") $(json $speed.tokens_per_second) \
        $(json $speed.low) $(json $speed.high)" | awk '{
        exit !(NF == 4 && $1 > 0.9 * $2 && $1 < 1.1 * $2 && $3 <= $2 && $2 <= $4) }' || fail "the table's $speed"
done
echo "$(sed -n 's/^first token  *after \([0-9.]*\) s.*/\1/p' "$folder/table") $(json time_to_first_token_ms)" | awk '{
    exit !(NF == 2 && $1 * 1000 > 0.8 * $2 - 10 && $1 * 1000 < 1.2 * $2 + 10) }' || fail "the table's first token"
expect_error 4 "needs at least" plan -m "$model" -c 128 --memory 3M

# A plan file takes the place of the options, and is refused for anything else than what it was made for.
expect 0 plan -m "$model" -c 128 -b 32 -t 1 --memory $budget --json
cp "$folder/out" "$folder/plan.json"
expect 0 run -m "$model" --plan "$folder/plan.json" --raw -p abc -n 4 --temp 0 --ignore-eos --json
expect_json memory.budget_bytes $budget
expect_json n_ctx 128
# Decoding and the prompt, predicted beside measured. The first prompt reads what stays in memory too.
for name in decode decode_measured decode_error prompt prompt_measured prompt_error; do
    expect_json "?predicted.$name" real
done
expect_json predicted.prompt_is_cold true
echo "$(json timings.prompt_per_second) $(json predicted.prompt_measured) $(json predicted.prompt) \
    $(json predicted.prompt_error) $(json predicted.time_to_first_token_ms) $(json timings.prompt_n)" | awk '
    function near(a, b) { return a - b < 0.001 * b && b - a < 0.001 * b }
    { exit !(near($1, $2) && near($3 / $2, 1 + $4) && near($3, 1000 * $6 / $5)) }' ||
    fail "the prompt's prediction: $(json predicted), $(json timings)"
expect 0 run -m "$model" --plan "$folder/plan.json" -c 64 --raw -p abc -n 4 --temp 0 --ignore-eos
grep -q '^predicted .* tokens/s of prompt, which reads .*, measured [0-9.]*: off by [-+]' "$folder/err" ||
    fail "no prediction beside the prompt"
grep -q '^predicted .* tokens/s of decoding (.*), measured [0-9.]*.*: off by [-+]' "$folder/err" ||
    fail "no prediction beside the answer"
grep -q '^context  64 ' "$folder/err" || fail "-c beside --plan has no effect"

# refused PATTERN SCRIPT: a plan that sed changed
refused() {
    sed "$2" "$folder/plan.json" >"$folder/changed.json"
    expect_error 3 "$1" run -m "$model" --plan "$folder/changed.json" --raw -p abc -n 1
}
refused "another model (its parameter_count" 's/"parameter_count": /&1/'
refused "another model (its name" 's/"name": "/&x/'
refused "another machine (its cpu" 's/"cpu": "/&x/'
refused "another machine (its cores" 's/"cores": /&1/'
refused "of version x" 's/"version": "/&x/'
refused "'powerinfer2_plan' is missing" 's/powerinfer2_plan/plan/'
refused "'powerinfer2_plan' is not 1" 's/"powerinfer2_plan": /&1/'
refused "'version' is no text" 's/"version": "[^"]*"/"version": 1/'
refused "'machine' is missing" 's/"machine"/"x"/'
refused "'model' is missing" 's/"model"/"x"/'
refused "'model' is no object" 's/"model": {/"model": 1, "x": {/'
refused "'parameters' is no object" 's/"parameters": {/"parameters": [], "x": {/'
refused "not a plan: line [0-9]*, column .*end of file" '$d'
refused "line [0-9]*, column .*duplicate .*threads" 's/"threads": 1/&, &/'
refused "line [0-9]*, column .*NaN" 's/"threads": 1/"threads": NaN/'
refused "line [0-9]*, column .*too big" 's/"threads": 1/&23456789012345678901/'
refused "line [0-9]*, column .*u0000" 's/"read_method": "/&\\u0000/'

# Numbers and words that an option would not take either are refused by name.
refused "'threads' is missing: make one with" 's/"threads": /"x": /'
for number in -1 0 257 1.5 '"1"' null 9223372036854775807; do
    refused "'threads' is no whole number within 1 .. 256" "s/\"threads\": 1/\"threads\": $number/"
done
refused "'batch_tokens' is no whole number within 1 .. 8192" 's/"batch_tokens": 32/"batch_tokens": 8193/'
refused "'context_tokens' is no whole number within 1 .. 67108864" 's/"context_tokens": /&100000/'
refused "'memory_bytes' is no whole number" 's/"memory_bytes": .*,/"memory_bytes": 0,/'
refused "'memory_bytes' is no whole number" 's/"memory_bytes": .*,/"memory_bytes": 4e9,/'
refused "'read_method' is none of auto|io_uring|pread" 's/"read_method": "/&x/'
refused "'cache_type' is none of f16|q8_0|f32" 's/"cache_type": "/&x/'
refused "'cache_policy' is none of auto|" 's/"cache_policy": "/&x/'
refused "'sparsity' is none of exact|always|off" 's/"sparsity": "/&x/'
refused "'sparsity' is missing" 's/"sparsity"/"x"/'
refused "'neurons' is no object" 's/"model": {/"neurons": 1, &/'
refused "'statistics' is neither" 's/"model": {/"neurons": {"statistics": 1}, &/'
refused "'cache_policy' is missing" 's/"cache_policy"/"x"/'
refused "'experts' is no object" 's/"model": {/"experts": 1, &/'
refused "'routing_trace' is neither" 's/"model": {/"experts": {"routing_trace": 1}, &/'
long=$(printf '%4000s' '' | tr ' ' x)
refused "of version xxx.*: plan again" "s/\"version\": \"/&$long/"
refused 'of version .x1b.2J.u009b31m' 's/"version": "/&\\u001b[2J\\u009b31m/'
expect_error 3 "/dev/zero: not a plan: it has more than 1 MB" run -m "$model" --plan /dev/zero --raw -p abc -n 1
# What is beyond JSON's whole numbers is written as the largest of them.
expect 0 plan -m "$model" -c 128 --memory 10000000T --json
expect_json parameters.memory_bytes 9223372036854775807
cp "$folder/out" "$folder/large.json"
expect 0 run -m "$model" --plan "$folder/large.json" --raw -p abc -n 1
expect_error 5 "none" run -m "$model" --plan "$folder/none.json" --raw -p abc -n 1

expect 0 bench -m "$model" -p 16 -n 4 -r 1 -o json
expect_json '?0.predicted_ts' real
expect_json '?1.predicted_error' real
# Prompts, answers and both together have different figures predicted; every row has the header's columns.
expect 0 bench -m "$model" -p 16 -n 4 -pg 8,4 -r 1 -o csv
columns=$(head -1 "$folder/out" | awk -F, '{ print NF }')
[ "$(head -1 "$folder/out" | grep -c 'predicted_error.*predicted_bytes_per_token')" = 1 ] || fail "csv predicts nothing"
[ "$(awk -F'","' -v wanted="$columns" 'NR > 1 && NF == wanted' "$folder/out" | wc -l)" = 3 ] ||
    fail "csv has rows of other than $columns columns: $(cat "$folder/out")"
expect 0 bench -m "$model" -p 16 -n 4 -pg 8,4 -r 1
grep -q '| t/s | predicted |' "$folder/out" || fail "the table predicts nothing"
for row in '| pp16 | [0-9.]* ± [0-9.]* | [0-9.]* ([-+][0-9]* %)' '| tg4 | [0-9.]* ± [0-9.]* | [0-9.]* ([-+][0-9]* %)' \
    '| pp8+tg4 | [0-9.]* ± [0-9.]* | - '; do
    grep -q "$row" "$folder/out" || fail "no $row in the table: $(cat "$folder/out")"
done
rm "$folder/model.pi2" # the plain GGUF is loaded before the prompt
expect 0 run -m "$model" --raw -p abc -n 2 -c 64 --json
expect_json predicted.prompt_is_cold false
expect_json predicted.prompt "$(json predicted.prefill)"
rm "$XDG_CACHE_HOME/powerinfer2/machine.profile"
expect 0 bench -m "$model" -p 16 -n 0 -r 1
grep -q predicted "$folder/out" && fail "something is predicted without a profile"
expect 0 run -m "$model" --raw -p abc -n 2 -c 64
grep -q "predicted nothing.*powerinfer2 machine" "$folder/err" || fail "nothing tells how to make a profile"
finish
