#!/bin/sh
# Goal:   help and messages name only options that the command has in which they are read, or name the command too:
#         'plan --json'.
# Method: the options of every command from its help; then every option that a help text names, and every one that a
#         string of the sources names, is looked up: for a command's own source in that command, for the library's and
#         the shared ones in every command that opens an engine.
. "$(dirname "$0")/cli_support.sh"
sources=$(cd "$(dirname "$0")/../.." && pwd)
expect 0 --help
commands=$(sed -n '/^Commands:/,/^$/s/^  \([a-z-]*\) .*/\1/p' "$folder/out")
[ "$(echo "$commands" | wc -w)" -ge 10 ] || fail "few commands: $commands"
for command in $commands; do
    expect 0 "$command" --help
    cp "$folder/out" "$folder/help_$command"
    # "Usage: powerinfer2 predictor make|train [options]": a command of commands has the options of all of them.
    for each in $(sed -n "s/^Usage: powerinfer2 $command \\([a-z]*|[a-z|]*\\) .*/\\1/p" "$folder/out" | tr '|' ' '); do
        expect 0 "$command" "$each" --help
        cat "$folder/out" >>"$folder/help_$command"
    done
    # "  -m, --model FILE", and the paragraph of what has no effect.
    awk -v command="$command" '
        /^Taken for/ { all = 1; next }
        /^Sizes:/ { all = 0 }
        /^  -/ || all { for (i = 1; i <= NF; i++) { word = $i; comma = sub(/,$/, "", word)
            if (word ~ /^-/) print command, word; else if (!all) break } }' "$folder/help_$command"
done >"$folder/options"
grep -q '^predictor --bits$' "$folder/options" || fail "options of commands of commands are not read"
grep -q '^run --memory$' "$folder/options" && grep -q '^plan --mlock$' "$folder/options" || fail "options are not read"

# mentions: of lines "COMMANDS<tab>PLACE<tab>TEXT" those options that a command of the list has not.
mentions() {
    awk -F '\t' -v table="$folder/options" -v names="$(echo $commands | tr ' ' '|')" '
        BEGIN { while ((getline line < table) > 0) has[line] = 1 }
        function look(list, text, place,    n, i, each, word) {
            while (match(text, /(^|[^A-Za-z0-9_%.<|\/-])--?[A-Za-z][A-Za-z0-9-]*/)) {
                word = substr(text, RSTART, RLENGTH)
                text = substr(text, RSTART + RLENGTH)
                sub(/^[^-]/, "", word)
                n = split(list, each, " ")
                for (i = 1; i <= n; i++) {
                    if (!((each[i] " " word) in has)) print place ": " each[i] " has no " word " before: " substr(text, 1, 60)
                }
            }
        }
        {
            text = $3
            gsub(/(ulimit|touch|man) -[a-z]/, "", text) # of other programs
            # a quoted command line belongs to the command that it names
            while (match(text, "(^|[^A-Za-z])\047(powerinfer2 )?(" names ")( [^\047]*)?\047")) {
                line = substr(text, RSTART, RLENGTH - 1)
                sub(/^[^\047]*\047/, "", line)
                text = substr(text, 1, RSTART - 1) " " substr(text, RSTART + RLENGTH)
                sub(/^powerinfer2 /, "", line)
                name = line
                sub(/ .*/, "", name)
                look(name, line, $2)
            }
            look($1, text, $2)
        }'
}

for command in $commands; do
    printf '%s\thelp of %s\t' "$command" "$command"
    tr '\n\t' '  ' <"$folder/help_$command" | sed 's/   */ /g; s/Taken for llama.*$//'
    echo
done | mentions >"$folder/wrong"

# strings FILE: its string literals, those that follow one another joined.
strings() {
    tr '\n' ' ' <"$1" | sed 's|/\*[^*]*\*\**\([^/*][^*]*\*\**\)*/||g; s/"  *PR[Iiuxd0-9]*  *"/0/g; s/"  *"//g' |
        awk '{ while (match($0, /"([^"\\]|\\.)*"/)) { print substr($0, RSTART + 1, RLENGTH - 2)
                                                      $0 = substr($0, RSTART + RLENGTH) } }'
}
engines="run plan perplexity bench"
for file in "$sources"/src/*/*.c "$sources"/src/*/*/*.c "$sources"/programs/cli/*.c; do
    case $file in
    */programs/cli/*_command.c)
        list=$(basename "$file" _command.c | tr _ -) ;;
    */inspect_routing.c) list=inspect ;;
    */bench_report.c) list=bench ;;
    */chat.c | */generation.c | */answer_text.c | */line_editor.c | */terminal_input.c | */engine_text.c | \
    */guard_report.c) list=run ;;
    */draft_options.c|*/run_draft.c) list="run plan" ;;
    */main.c) list= ;;
    */completion.c) continue ;; # scripts for shells, with options of the shells' commands
    */template_file.c | */prompt.c) list="run apply-template" ;;
    */synthetic/*) list=synth ;;
    */low_rank_train.c | */predictor_train.c | */predictor_svd.c) list=predictor ;;
    */engine_outputs.c) list="run bench" ;;
    *) list=$engines ;;
    esac
    strings "$file" | while IFS= read -r text; do
        case $text in # rows of option tables and the like: names alone
        -*) case ${text#-} in *" "*[a-z]*" "*) ;; *) continue ;; esac ;;
        esac
        printf '%s\t%s\t%s\n' "$list" "${file#"$sources"/}" "$text"
    done
done >"$folder/strings"
[ "$(wc -l <"$folder/strings")" -gt 2000 ] || fail "$(wc -l <"$folder/strings") strings only"
mentions <"$folder/strings" >>"$folder/wrong"
checks=$((checks + 1))
[ -s "$folder/wrong" ] && fail "options that are named and not there: $(cat "$folder/wrong")"
finish
