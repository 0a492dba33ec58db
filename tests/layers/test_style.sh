#!/bin/sh
# Goal:   the house rules that a program can check hold.
# Method: file and function length, columns, unique file names, no prefix forgotten, no
#         printing or exiting in the library, no folder of one machine in any file.
set -u
root=${1:?usage: test_style.sh SOURCE_FOLDER [LIBRARY]}
library=${2:-}
cd "$root" || exit 1
report=$(mktemp)
trap 'rm -f "$report"' EXIT

sources=$(find include src programs tests -name '*.[ch]' -o -name '*.inc' 2>/dev/null | sort)
[ -n "$sources" ] || { echo "no sources below $root"; exit 1; }
# shellcheck disable=SC2086 # file names have no spaces here
awk 'function close_file() { if (lines > 799) print file ": " lines " lines, at most 799" }
    FNR == 1 { close_file(); file = FILENAME }
    { lines = FNR }
    { width = length($0) }
    width > 120 { print FILENAME ":" FNR ": " width " columns, at most 120" }
    /[ \t]$/ { print FILENAME ":" FNR ": ends in a blank" }
    END { close_file() }' $sources >>"$report"

# Global names of files make an #include and a search unambiguous.
echo "$sources" | grep -E '^(src|include|programs)/.*\.[ch]$' | sed 's|.*/||' | sort | uniq -d |
    sed 's/$/: two files have this name/' >>"$report"

# The library never prints, exits or aborts (snprintf writes into memory).
# shellcheck disable=SC2046
grep -nE '(^|[^a-zA-Z_])(exit|_Exit|abort|printf|vprintf|puts|putchar|perror)[ ]*\(|std(out|err)' \
    $(echo "$sources" | grep '^src/') /dev/null |
    grep -vE '^[^:]*:[0-9]+:[ ]*(/?\*|//)' | sed 's/$/   <- not in the library/' >>"$report"

# How many experts a model has is what families read and blocks list; all else asks what a layer or a token has.
# shellcheck disable=SC2046
grep -nE '(shape|[^a-z_]m)(\.|->)expert_(count|used_count|feed_forward_length)' \
    $(echo "$sources" | grep '^src/' | grep -vE '^src/(architectures|blocks|synthetic)/') /dev/null |
    sed 's/$/   <- ask pi2_layer_ffns(), pi2_token_ffns(), pi2_model_has_experts()/' >>"$report"

# Functions: 70 lines; kernels may be longer. Without Universal Ctags this rule is not checked.
if ctags --version 2>/dev/null | grep -q Universal; then
    # shellcheck disable=SC2046
    ctags -x --c-kinds=f --fields=+ne --_xformat='%{input} %{line} %{end} %{name}' \
        $(echo "$sources" | grep -E '\.[ch]$' | grep -v '^src/kernels/') |
        awk '$3 - $2 + 1 > 70 { print $1 ":" $2 ": " $4 " has " $3 - $2 + 1 " lines, at most 70" }' \
            >>"$report"
else
    echo "no Universal Ctags: the length of functions was not checked"
fi

# External names carry the prefix, so that the library fits beside any other.
if [ -n "$library" ] && command -v nm >/dev/null; then
    nm -g --defined-only "$library" 2>/dev/null |
        awk 'NF == 3 && $2 ~ /^[A-Z]$/ && $3 !~ /^(pi2_|_)/ { print $3 ": external name without pi2_" }' |
        sort -u >>"$report"
fi

# Counters stand in one list; the documentation names each.
sed -n 's/^PI2_COUNTER(\([a-z0-9_]*\), *\([A-Z]*\),.*/\1 \2/p' include/powerinfer2/counters.inc |
    while read -r counter kind; do
        if [ "$kind" = TIME ]; then counter=${counter%_ns}_ms; fi
        grep -q "\`$counter\`" docs/tracing.md || echo "docs/tracing.md: does not tell what \`$counter\` counts"
    done >>"$report"

# Nothing that is kept names a folder of one machine.
if files=$(git ls-files 2>/dev/null) && [ -n "$files" ]; then
    # shellcheck disable=SC2086
    grep -nIE '(^|[^a-zA-Z0-9_.])[/](work|home|root|Users)[/][a-z]' $files /dev/null |
        sed 's/$/   <- a path of one machine/' >>"$report"
fi

if [ -s "$report" ]; then
    cat "$report"
    exit 1
fi
echo "$(echo "$sources" | wc -l) files follow the rules"
