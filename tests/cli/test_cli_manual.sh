#!/bin/sh
# Goal:   the manual page and the shells' completions have every command, and every option that its help has.
# Method: what --help lists is looked for in each; each is read by what it is made for, where that is installed.
. "$(dirname "$0")/cli_support.sh"
expect 0 manual
cp "$folder/out" "$folder/page"
for shell in bash zsh fish; do
    expect 0 manual --completion $shell
    cp "$folder/out" "$folder/$shell"
done
expect_error 2 "none of" manual --completion tcsh

expect 0 --help
commands=$(sed -n '/^Commands:/,/^$/s/^  \([a-z-]*\) .*/\1/p' "$folder/out")
for command in $commands; do
    for each in "" $(run "$command" --help; sed -n "s/^Usage: powerinfer2 $command \\([a-z]*|[a-z|]*\\) .*/\\1/p" \
        "$folder/out" | tr '|' ' '); do
        name=$command${each:+ $each}
        # shellcheck disable=SC2086 # two words
        expect 0 $name --help
        # Options with a meaning ("O"), and those without effect ("N", which only the page has).
        awk -v command="$name" '
            /^Taken for/ { all = 1; next }
            /^Sizes:/ { all = 0 }
            /^  -/ || all { for (i = 1; i <= NF; i++) { word = $i; sub(/,$/, "", word)
                if (word ~ /^-/) print (all ? "N" : "O") "\t" command "\t" word; else if (!all) break } }' "$folder/out"
    done
done >"$folder/options"
grep -q 'predictor train	--width' "$folder/options" || fail "options of commands of commands are not read"
[ "$(wc -l <"$folder/options")" -gt 400 ] || fail "$(wc -l <"$folder/options") options only"

# One pass over each text: which options are told of under which command.
sed 's/\\-/-/g' "$folder/page" | awk '
    /^\.SH "COMMAND / { command = $0; sub(/^[^ ]* "COMMAND /, "", command); sub(/"$/, "", command) }
    /^\\fB-/ { sub(/^\\fB/, ""); sub(/\\fR.*/, ""); n = split($0, name, /, /)
               for (i = 1; i <= n; i++) print command "\t" name[i] }' | sort -u >"$folder/has_page"
awk 'match($0, /in \047[^\047]*\047\) words=\047/) { command = $0; sub(/^.* in \047/, "", command)
        sub(/\047.*/, "", command); sub(/^.*words=\047/, ""); sub(/\047 ;;.*/, "")
        for (i = 1; i <= NF; i++) print command "\t" $i }' "$folder/bash" | sort -u >"$folder/has_bash"
awk '/^    \047[a-z -]*\047\)$/ { command = $0; gsub(/^ *\047|\047\)$/, "", command) }
     match($0, /^            \047\*?-[A-Za-z-]*\[/) { sub(/^ *\047\*?/, ""); sub(/\[.*/, ""); print command "\t" $0 }' \
    "$folder/zsh" | sort -u >"$folder/has_zsh"
sed -n "s/^complete -c powerinfer2 -n '__fish_seen_subcommand_from \([a-z-]*\)\(; and __fish_seen_subcommand_from \)\{0,1\}\([a-z]*\)'\(\( -[los] [A-Za-z-]*\)*\) .*/\1 \3\t\4/p" \
    "$folder/fish" | awk -F '\t' '{ command = $1; sub(/ $/, "", command); n = split($2, word, " ")
        for (i = 1; i < n; i += 2) print command "\t" (word[i] == "-l" ? "--" : "-") word[i + 1] }' |
    sort -u >"$folder/has_fish"
grep -vE '	(-h|--help)$' "$folder/options" | cut -f 2- | sort -u >"$folder/wanted_page"
grep -vE '	(-h|--help)$' "$folder/options" | sed -n 's/^O	//p' | sort -u >"$folder/wanted"
comm -23 "$folder/wanted_page" "$folder/has_page" >"$folder/missing"
for shell in bash zsh fish; do
    comm -23 "$folder/wanted" "$folder/has_$shell" | sed "s/^/$shell: /" >>"$folder/missing"
done
checks=$((checks + 4))
[ -s "$folder/missing" ] && fail "not there: $(cat "$folder/missing")"

if command -v groff >/dev/null; then
    groff -man -ww -Tascii "$folder/page" 2>&1 >"$folder/read" | grep -v 'cannot adjust' >"$folder/warnings"
    [ -s "$folder/warnings" ] && fail "groff: $(head -3 "$folder/warnings")"
    sed 's/.\x08//g; s/\x1b\[[0-9]*m//g' "$folder/read" | grep -q -e '--memory SIZE' || fail "the page shows no --memory"
else
    echo "no groff: the page was not set by it"
fi
# complete LINE...: what bash offers for the last word of a command line.
if command -v bash >/dev/null; then
    complete() {
        bash -c '. "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _powerinfer2; printf "%s\n" "${COMPREPLY[@]}"' \
            "$folder/bash" "$@" | sort | tr '\n' ' '
    }
    offers() { # offers TEXT LINE...
        wanted=$1
        shift
        checks=$((checks + 1))
        got=$(complete "$@")
        [ "$got" = "$wanted " ] || fail "bash offers '$got', not '$wanted', behind: $*"
    }
    : >"$folder/a model.gguf"
    offers "run" powerinfer2 ru
    offers "perplexity plan predictor prepare profile" powerinfer2 help p
    offers "auto io_uring pread" powerinfer2 run --read-method ""
    offers "--read-method" powerinfer2 run -m x --read
    offers "$folder/a model.gguf" powerinfer2 run -m "$folder/a"
    offers "make measure" powerinfer2 predictor m
    offers "--width" powerinfer2 predictor train --wi
    offers "" powerinfer2 run -n ""
fi
if command -v zsh >/dev/null; then zsh -n "$folder/zsh" || fail "zsh cannot read its completion"; fi
if command -v fish >/dev/null; then
    got=$(HOME=$folder fish --no-config -c "source '$folder/fish'; complete -C 'powerinfer2 run --read-method '" | cut -f 1 | sort | tr '\n' ' ')
    [ "$got" = "auto io_uring pread " ] || fail "fish offers '$got'"
fi
finish
