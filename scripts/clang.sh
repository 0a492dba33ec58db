#!/bin/sh
# clang.sh: clang looks at every source of the release build, with the build's own options, warnings as errors.
#
# It makes no code, which is most of a build's time: what it finds are warnings and what only gcc takes.
set -eu
cd "$(dirname "$0")/.."
commands=build/compile_commands.json
[ -f "$commands" ] || { echo "clang.sh: no $commands: run 'make build' first" >&2; exit 1; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# One command a source, out of JSON's quotes, without its compiler, which a launcher may precede, and its output.
sed -n 's/^ *"command": "\(.*\)",$/\1/p' "$commands" |
    sed -e 's/\\\(["\\]\)/\1/g' -e 's/^[^-]* -/clang -fsyntax-only -/' -e 's/ -o [^ ]* / /' |
    awk '{ last[$NF] = $0 } END { for (source in last) print last[source] }' >"$folder/commands"
all=$(wc -l <"$folder/commands")
[ "$all" -gt 0 ] || { echo "clang.sh: $commands names no source" >&2; exit 1; }
tr '\n' '\0' <"$folder/commands" | (cd build && xargs -0 -n 1 -P "${JOBS:-2}" sh -c '
    eval "$1" >"$0/$$" 2>&1 || { cat "$0/$$"; echo "$1" >>"$0/failed"; }; rm -f "$0/$$"' "$folder")
[ ! -f "$folder/failed" ] || { echo "clang: $(wc -l <"$folder/failed") of $all sources failed"; exit 1; }
echo "clang: $all sources passed"
