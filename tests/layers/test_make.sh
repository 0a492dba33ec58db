#!/bin/sh
# Goal:   make help and the documents tell of every target, and of no other; what a target runs is there; every change
#         of scripts/mutants.list still changes its file; what is given to make as text reaches its recipes unchanged.
# Method: the Makefile's own list of targets, and the scripts that its recipes name; each change is applied to a copy.
set -eu
root=$1
targets=$(sed -n 's/^\.PHONY: //p' "$root/Makefile")
help=$(make -s -C "$root" help)
bad=0
wrong() {
    echo "$1"
    bad=1
}
for target in $targets; do
    [ "$target" = help ] && continue
    printf '%s\n' "$help" | grep -q "make $target\b" || wrong "make help leaves out $target"
done
for named in $(printf '%s\n' "$help" | grep -o 'make [a-z0-9-]*' | sed 's/make //' | sort -u) \
    $(grep -oh '`make [a-z0-9-]*' "$root/README.md" "$root/CONTRIBUTING.md" "$root"/docs/*.md | sed 's/.*make //' | sort -u); do
    case " $targets " in *" $named "*) ;; *) wrong "make $named is no target" ;; esac
    make -s -n -C "$root" "$named" >/dev/null || wrong "make $named has no rule"
done
for script in $(sed -n 's/^\t@\(\(scripts\|bench\)\/[a-z0-9_.]*\).*/\1/p' "$root/Makefile" | sort -u); do
    [ -x "$root/$script" ] || wrong "$script cannot be run"
done
# Nothing of a value is a variable of make's.
for name in PROMPT MODEL TESTS TESTS_EXCEPT MUTANTS; do
    told=$(make -s --no-print-directory -C "$root" --eval "told: ; @echo \"\$\$$name\" and '\$($name)'" \
        told "$name=a\$|(b) \$5") || true
    [ "$told" = 'a$|(b) $5 and a$|(b) $5' ] || wrong "make changes $name: '$told'"
done
# Where things are installed has either name. The environment's PREFIX is for others; its prefix, which a make that calls
# this test hands on, gives way to what is asked for.
unset MAKEFLAGS MFLAGS MAKELEVEL prefix PREFIX
for said in prefix=/x PREFIX=/x "prefix=/x PREFIX=/y"; do
    # shellcheck disable=SC2086 # the list is meant to be split
    for before in /usr/local ""; do
        env ${before:+prefix=$before} make -s -C "$root" help $said | grep "into prefix=/x " >/dev/null ||
            wrong "make $said installs elsewhere (prefix '$before' before)"
    done
done
PREFIX=/y make -s -C "$root" help | grep "into prefix=/usr/local " >/dev/null || wrong "make takes PREFIX of the environment"
changed=$(mktemp)
trap 'rm -f "$changed"' EXIT
mutant='' file=''
while read -r key value; do
    case $key in
    mutant) mutant=$value ;;
    file) file=$value ;;
    change)
        sed "$value" "$root/$file" >"$changed" || wrong "mutant '$mutant': no change of $file"
        ! cmp -s "$changed" "$root/$file" || wrong "mutant '$mutant': nothing in $file is changed by it any more"
        ;;
    tests)
        for test in $value; do
            case $test in cli_*) script=$root/tests/cli/test_$test.sh ;; *) script= ;; esac
            [ -f "$script" ] || ls "$root"/tests/*/test_"$test".c >/dev/null 2>&1 ||
                wrong "mutant '$mutant': there is no test '$test'"
        done
        ;;
    esac
done <"$root/scripts/mutants.list"
[ -n "$mutant" ] || wrong "scripts/mutants.list has no mutant"
[ "$bad" -eq 0 ]
