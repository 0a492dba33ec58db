#!/bin/sh
# mutants.sh [REGEX]: applies the changes of scripts/mutants.list, one at a time, to a copy of this tree, and says
# which of them the tests notice. Exits with 1 when one survives that is not marked as such, or cannot be applied.
#
# A test that takes five times as long as without a change hangs, which counts as noticed. PI2_TEST_DATA widens the tests.
set -eu
cd "$(dirname "$0")/.."
list=$PWD/scripts/mutants.list
pattern=${1:-.}
scripts/setup.sh build

copy=$(mktemp -d "${TMPDIR:-/tmp}/pi2-mutants.XXXXXX")
trap 'rm -rf "$copy"' EXIT
trap 'exit 130' INT TERM HUP
git ls-files -z --cached --others --exclude-standard | tar -c --null -T - | tar -x -C "$copy"

# One line a mutant, its fields apart by tabs: name, file, tests, why it survives, change.
awk -F '\t' -v pattern="$pattern" '
    function flush() {
        if (name ~ pattern && name != "") print name "\t" file "\t" tests "\t" survives "\t" change
        name = file = change = tests = survives = ""
    }
    /^#/ { next }
    /^$/ { flush(); next }
    { key = $0; sub(/ .*/, "", key); value = $0; sub(/^[a-z]* */, "", value) }
    key == "mutant" { name = value } key == "file" { file = value } key == "change" { change = value }
    key == "tests" { tests = value } key == "survives" { survives = value }
    END { flush() }' "$list" >"$copy/mutants"
[ -s "$copy/mutants" ] || { echo "mutants.sh: no mutant has a name like '$pattern'" >&2; exit 2; }

# build TESTS: their programs, or what a test of the program as a shell sees it runs. A change may leave something
# unused, which is no error here.
build() {
    targets=''
    for test in $1; do
        case $test in
        cli_*) targets="$targets powerinfer2_checked make_tiny_model make_family_model json_get" ;;
        *) targets="$targets test_$test" ;;
        esac
    done
    # shellcheck disable=SC2086 # the list is meant to be split
    cmake --build "$copy/build" -j "${JOBS:-2}" --target $targets >"$copy/log" 2>&1
}

# passes TESTS: true when none of them fails or hangs.
passes() {
    for test in $1; do
        status=0
        limit=$(cat "$copy/limit_$test" 2>/dev/null || echo 900)
        set -- "./test_$test"
        case $test in
        cli_*)
            set -- sh "$copy/tests/cli/test_$test.sh" "$copy/build/powerinfer2_checked" \
                "$copy/build/tests/make_tiny_model"
            ;;
        esac
        # The shell tells of a test that was aborted: into the log too.
        { (cd "$copy/build/tests" && timeout -k 5 "$limit" "$@" </dev/null) || status=$?; } >"$copy/log" 2>&1
        case $status in 0 | 77) ;; 124 | 137) how="$test hangs"; return 1 ;; *) how=$test; return 1 ;; esac
    done
}

sed -i 's/-Werror//' "$copy/CMakeLists.txt"
(cd "$copy" && cmake --preset release >log 2>&1) || { cat "$copy/log" >&2; exit 1; }
all=$(cut -f 3 "$copy/mutants" | tr ' ' '\n' | sort -u | tr '\n' ' ')
build "$all" || { tail -20 "$copy/log" >&2; exit 1; }
for test in $all; do
    begin=$(date +%s)
    passes "$test" || { tail -20 "$copy/log" >&2; echo "mutants.sh: without a change $how fails" >&2; exit 1; }
    echo $((20 + 5 * ($(date +%s) - begin))) >"$copy/limit_$test"
done

printf '%-8s  %-61s  %s\n' result mutant 'noticed by, or why not'
noticed=0 survived=0 marked=0 broken=0
tab=$(printf '\t')
while IFS="$tab" read -r line; do
    name=$(printf '%s\n' "$line" | cut -f 1) file=$(printf '%s\n' "$line" | cut -f 2)
    tests=$(printf '%s\n' "$line" | cut -f 3) why=$(printf '%s\n' "$line" | cut -f 4)
    printf '%s\n' "$line" | cut -f 5 >"$copy/change"
    cp "$copy/$file" "$copy/before"
    sed -f "$copy/change" "$copy/before" >"$copy/$file"
    how=''
    if cmp -s "$copy/before" "$copy/$file"; then
        result=STALE how='the change does not apply any more' broken=$((broken + 1))
    elif ! build "$tests"; then
        result=BROKEN how="it does not compile: $(grep -m 1 'error:' "$copy/log" || true)" broken=$((broken + 1))
    elif ! passes "$tests"; then
        if [ -n "$why" ]; then
            result=STALE how="$how: it is marked as one that survives" broken=$((broken + 1))
        else
            result=noticed noticed=$((noticed + 1))
        fi
    elif [ -n "$why" ]; then
        result=marked how=$why marked=$((marked + 1))
    else
        result=SURVIVED how="tests: $tests" survived=$((survived + 1))
    fi
    printf '%-8s  %-61s  %s\n' "$result" "$name" "$how"
    cp "$copy/before" "$copy/$file"
done <"$copy/mutants"
echo "$noticed noticed, $survived survived, $marked survive as marked, $broken do not apply"
[ $((survived + broken)) -eq 0 ]
