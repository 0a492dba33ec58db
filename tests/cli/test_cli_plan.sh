#!/bin/sh
# Goal:   plan tells what a run reports: what stays, what is read; its JSON has the names that stay.
# Method: a quick profile; a tiny model of about 45 MB, in memory and with 30 MB less.
. "$(dirname "$0")/cli_support.sh"
tiny model layers=10 embedding=512 feed_forward=2048 heads=8 heads_kv=2 context=512 type=Q8_0
model=$folder/model.gguf
expect 0 device --quick -q
expect_error 2 "no model" plan

expect 0 plan -m "$model" -c 128 --memory 400M --json
expect_json powerinfer2_plan 1
expect_json bytes_per_token 0
for speed in decode prefill; do
    for name in tokens_per_second low high; do expect_json "?$speed.$name" real; done
done
for name in version bottleneck device.cpu model.architecture parameters.read_method; do
    expect_json "?$name" string
done
expect_json '?time_to_first_token_ms' real
expect_json parameters.context_tokens 128
[ "$(json resident_bytes)" -gt 30000000 ] || fail "resident bytes: $(json resident_bytes)"

# With less memory: what a run then keeps and reads is what was planned.
expect 0 run -m "$model" --raw -p abc -n 1 -c 128 --json
budget=$(($(json memory.peak_bytes) - 25000000))
expect 0 prepare -m "$model" -q
expect 0 plan -m "$model" -c 128 --memory $budget --json
planned=$(json bytes_per_token)
[ "$planned" -gt 5000000 ] || fail "nothing is planned to be read: $planned"
expect 0 run -m "$model" --memory $budget --raw -p abc -n 6 -c 128 --temp 0 --ignore-eos --json
actual=$(printf '%.0f' "$(json io.bytes_per_token)")
[ "$actual" -gt $((planned * 8 / 10)) ] && [ "$actual" -lt $((planned * 12 / 10)) ] ||
    fail "$actual bytes a token, planned were $planned"

expect 0 plan -m "$model" -c 128 --memory $budget
for line in 'attention weights' 'feed-forward weights' 'key-value cache' 'stream buffer' decode prefill 'first token'; do
    grep -q "^$line" "$folder/out" || fail "the table has no $line"
done
expect_error 4 "too small" plan -m "$model" -c 128 --memory 3M
finish
