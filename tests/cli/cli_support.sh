# cli_support.sh: read by the scripts of this folder with their own arguments: the program, and
# make_tiny_model. Gives a folder of its own that goes away at the end, and these functions.
set -u
program=${1:?usage: test_*.sh POWERINFER2 MAKE_TINY_MODEL}
make_tiny_model=${2:?usage: test_*.sh POWERINFER2 MAKE_TINY_MODEL}
json_get=$(dirname "$make_tiny_model")/json_get
folder=$(mktemp -d) || exit 1
# A failure is one whether or not the script comes to finish().
end_script() {
    status=$?
    chmod -R u+w "$folder" 2>/dev/null
    rm -rf "$folder"
    [ "$failures" = 0 ] || status=1
    exit $status
}
failures=0
checks=0
trap end_script EXIT
XDG_CACHE_HOME=$folder/cache
export XDG_CACHE_HOME
unset LLAMA_ARG_MODEL LLAMA_ARG_CTX_SIZE LLAMA_ARG_THREADS LLAMA_ARG_N_PREDICT LLAMA_ARG_BATCH

fail() { # fail TEXT...: counts and shows a failure
    failures=$((failures + 1))
    echo "FAILED: $*"
}

# run ARGUMENTS...: runs the program; leaves $code, $folder/out and $folder/err.
run() {
    timeout 120 "$program" "$@" >"$folder/out" 2>"$folder/err" </dev/null
    code=$?
}

# expect CODE ARGUMENTS...: runs the program and compares the exit code.
expect() {
    wanted=$1
    shift
    run "$@"
    checks=$((checks + 1))
    if [ "$code" != "$wanted" ]; then
        fail "exit code $code, not $wanted: powerinfer2 $*"
        cat "$folder/err"
    fi
}

# expect_error CODE PATTERN ARGUMENTS...: an empty stdout, and one line on stderr that matches.
expect_error() {
    error_code=$1
    pattern=$2
    shift 2
    expect "$error_code" "$@"
    [ -s "$folder/out" ] && fail "stdout is not empty: powerinfer2 $*"
    [ "$(grep -c '^powerinfer2: ' "$folder/err")" = 1 ] || {
        fail "not one error line: powerinfer2 $*"
        cat "$folder/err"
    }
    grep -q "^powerinfer2: .*$pattern" "$folder/err" || {
        fail "no '$pattern' in the error of: powerinfer2 $*"
        cat "$folder/err"
    }
}

# expect_text FILE TEXT: the file holds exactly the text and a newline.
expect_text() {
    checks=$((checks + 1))
    printf '%s\n' "$2" | cmp -s - "$1" || fail "'$(cat "$1")' is not '$2'"
}

# json PATH: a value of the JSON in $folder/out.
json() { "$json_get" "$1" <"$folder/out" || fail "no $1"; }

# expect_json PATH VALUE
expect_json() {
    checks=$((checks + 1))
    got=$("$json_get" "$1" <"$folder/out")
    [ "$got" = "$2" ] || fail "$1 is '$got', not '$2'"
}

# tiny NAME OPTIONS...: makes $folder/NAME.gguf.
tiny() {
    tiny_name=$1
    shift
    "$make_tiny_model" "$folder/$tiny_name.gguf" "$@" || fail "make_tiny_model $tiny_name"
}

# have_profile: a quick profile of this machine, which the first of the tests that want any measures for all of them.
have_profile() {
    shared_profile=$(dirname "$make_tiny_model")/quick.profile
    if [ "$shared_profile" -nt "$program" ]; then
        checks=$((checks + 1))
        mkdir -p "$XDG_CACHE_HOME/powerinfer2" || fail "no cache folder"
        cp "$shared_profile" "$XDG_CACHE_HOME/powerinfer2/machine.profile" || fail "no profile"
        return
    fi
    expect 0 machine --quick -q
    cp "$XDG_CACHE_HOME/powerinfer2/machine.profile" "$shared_profile.$$" && mv "$shared_profile.$$" "$shared_profile"
}

# print_lines COUNT BEFORE AFTER: so many lines on stdout, each with its number, from 0 on, between the two texts.
print_lines() {
    line=0
    while [ $line -lt "$1" ]; do
        printf '%s%d%s\n' "$2" $line "$3"
        line=$((line + 1))
    done
}

finish() {
    echo "$checks checks, $failures failures"
    [ "$failures" = 0 ] && [ "$checks" -gt 0 ]
    exit
}
