#!/bin/sh
# Goal:   machine measures once, keeps the profile, shows it again, and measures again what is damaged.
# Method: quick measurements; the profile's file changed between two calls.
. "$(dirname "$0")/cli_support.sh"
profile=$XDG_CACHE_HOME/powerinfer2/machine.profile
expect 0 machine --help
expect_error 2 "unknown option" machine --nothing
expect_error 5 "nowhere" machine --quick --disk "$folder/nowhere"
[ -e "$profile" ] && fail "a profile was kept of a failed measurement"

expect 0 machine --quick
[ -s "$profile" ] || fail "no profile in the cache folder"
grep -q "$profile" "$folder/err" || fail "nothing tells where the profile is kept"
for line in buffer memory decode batch rows columns predictor attention vectors stage core disk small reading store; do
    grep -q "^$line" "$folder/out" || fail "the table has no $line"
done
grep -q '^ ' "$folder/out" && fail "a line of the table has no name: $(grep -m 1 '^ ' "$folder/out")"
find "$XDG_CACHE_HOME/powerinfer2" -name '.powerinfer2-disk*' | grep -q . && fail "the disk's file was left"
cp "$profile" "$folder/first"
expect 0 machine --json
cmp -s "$profile" "$folder/first" || fail "a good profile was measured again"
expect_json measurements.0.what buffer
expect_json '?measurements.0.value' real
[ "$(json cores)" -ge 1 ] || fail "cores"

sed 's/^rows Q4_0 1 0 ./rows Q4_0 1 0 9/' "$folder/first" >"$profile"
expect 0 machine --quick
grep -q "damaged.*measured again" "$folder/err" || fail "a damaged profile: $(cat "$folder/err")"
cp "$profile" "$folder/second"
expect 0 machine --json
cmp -s "$profile" "$folder/second" || fail "the profile that was measured again is no good one"
expect 0 machine --quick --force --disk "$folder" --profile "$folder/other.profile"
[ -s "$folder/other.profile" ] || fail "--profile was not made"
cmp -s "$profile" "$folder/second" || fail "--profile changed another profile"
finish
