#!/bin/sh
# Goal:   with --memory below its size a model gives the same tokens, within the budget; its cluster
#         file is made once, where it was said; what cannot fit is refused with what it needs.
# Method: a tiny model of about 45 MB with 30 MB less than it takes, against the run that fits.
. "$(dirname "$0")/cli_support.sh"
if [ "${PI2_TEST_PRESET:-}" = tsan ]; then
    echo "SKIPPED: ThreadSanitizer's shadow grows with every page, so no budget can be met"
    exit 77
fi
tiny model layers=10 embedding=512 feed_forward=2048 heads=8 heads_kv=2 context=512 type=Q8_0
model=$folder/model.gguf
options="--raw -p abcdefgh -n 6 --temp 0 -c 128 --ignore-eos --json"

# run_with ARGUMENTS...
run_with() {
    # shellcheck disable=SC2086 # options
    expect 0 run $options "$@"
}
run_with -m "$model"
tokens=$(json tokens)
budget=$(($(json memory.peak_bytes) - 30000000)) # about 25 MB; more under a sanitizer
sanitized=no
ldd "$program" | grep -q 'lib[atu]*san' && sanitized=yes
[ -e "$folder/model.pi2" ] && fail "a cluster file was made for a model that fits"
expect_error 4 "model" run -m "$model" --raw -p a --memory $budget --no-prepare -c 128
[ -e "$folder/model.pi2" ] && fail "--no-prepare made a cluster file"

run_with -m "$model" --memory $budget
grep -q "$folder/model.pi2" "$folder/err" || fail "nothing tells where the cluster file is made"
expect_json tokens "$tokens"
expect_json memory.budget_bytes $budget
[ $sanitized = yes ] || [ "$(json memory.peak_bytes)" -le $budget ] ||
    fail "peak memory $(json memory.peak_bytes) of $budget"
[ "$(json io.bytes_read)" -gt 45000000 ] || fail "bytes read: $(json io.bytes_read)"
case $(json io.hit_rate) in 0.*) ;; *) fail "hit rate $(json io.hit_rate)" ;; esac
case $(json io.read_method) in io_uring | pread) ;; *) fail "read method $(json io.read_method)" ;; esac
run_with -m "$model" --memory $((budget / 1024 + 1))KiB --read-method pread -t 1
grep -q preparing "$folder/err" && fail "the cluster file was made twice"
expect_json tokens "$tokens"
expect_json io.read_method pread
run_with -m "$folder/model.pi2" --memory $budget -b 2
expect_json tokens "$tokens"
cp "$folder/model.pi2" "$folder/first.pi2"

# A changed source is noticed.
tiny model layers=10 embedding=512 feed_forward=2048 heads=8 heads_kv=2 context=512 type=Q8_0 seed=2
run_with -m "$model" --memory $budget
cmp -s "$folder/model.pi2" "$folder/first.pi2" && fail "the cluster file is the changed model's old one"

# A folder that cannot be written, and a file of one's own choice.
mkdir "$folder/other"
run_with -m "$model" --memory $budget --cluster-file "$folder/other/mine.pi2"
[ -s "$folder/other/mine.pi2" ] || fail "--cluster-file was not made"
if [ "$(id -u)" != 0 ]; then
    mkdir "$folder/closed"
    mv "$model" "$folder/closed/"
    chmod a-w "$folder/closed"
    run_with -m "$folder/closed/model.gguf" --memory $budget
    [ -n "$(find "$XDG_CACHE_HOME/powerinfer2" -name '*.pi2')" ] || fail "nothing in the cache folder"
    chmod u+w "$folder/closed"
    mv "$folder/closed/model.gguf" "$model"
else
    echo "SKIPPED: a folder that cannot be written (root may write everywhere)"
fi

# Too little memory: one line says how much is needed, and that much is enough.
check_floor() { # check_floor ARGUMENTS...
    expect_error 4 "needs at least [0-9.]* MB, [0-9.]* [kM]B of it for a context of [0-9]* tokens" run "$@" --memory 3M
    needed=$(sed -n 's/.* needs at least \([0-9.]*\) MB.*/\1/p' "$folder/err")
    [ $sanitized = yes ] && return # there the program's own memory comes and goes
    expect 0 run "$@" --memory "${needed}M"
    expect_error 4 "needs at least" run "$@" --memory "$(awk "BEGIN { print int($needed * 9e5) }")"
}
check_floor -m "$model" --raw -p a -n 2 -c 128 --json -q
grep -q -- '--memory gives .* or a smaller -c$' "$folder/err" || fail "the refusal does not say what to do"
rm -f "$folder/model.pi2"
check_floor -m "$model" --raw -p a -n 2 -q
check_floor -m "$model" --raw -p a -n 2 -c 512 -b 64 -q
check_floor -m "$folder/other/mine.pi2" --raw -p a -n 2 -q --stats /dev/null
expect_error 4 "memory" bench -m "$model" --memory 3M -p 8 -n 0
expect_error 4 "memory" prepare -m "$model" -o "$folder/never.pi2" --memory 1M
[ -e "$folder/never.pi2" ] && fail "prepare left a file"
finish
