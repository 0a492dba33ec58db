#!/bin/sh
# Goal:   includes point down the order of layers.txt; the program uses the public API only.
# Method: every #include "folder/..." of every source file, against the list.
set -u
root=${1:?usage: test_layers.sh SOURCE_FOLDER}
cd "$root" || exit 1
violations=$(find src programs -name '*.[ch]' -o -name '*.inc' 2>/dev/null | sort | xargs awk '
    FILENAME == rules { next }
    FNR == 1 { split(FILENAME, part, "/"); top = part[1]; folder = part[2] }
    /^[ \t]*#[ \t]*include[ \t]*"/ {
        included = $0
        sub(/^[^"]*"/, "", included)
        sub(/".*/, "", included)
        if (included ~ /^powerinfer2\//) next
        if (included !~ /\//) { # a header beside the file, or an .inc
            if (top == "programs" || included ~ /\.inc$/) next
            print FILENAME ":" FNR ": write the folder of \"" included "\""
            next
        }
        target = included
        sub(/\/.*/, "", target)
        if (top == "programs") {
            if (target != folder) print FILENAME ":" FNR ": includes " included ", programs use include/powerinfer2 only"
            next
        }
        if (target == folder) next
        if (!(folder in allowed)) { print FILENAME ":" FNR ": src/" folder " is not in layers.txt"; next }
        name = FILENAME
        sub(/^src\//, "", name)
        sub(/\.[ch]$/, "", name)
        if (index(allowed[folder], " " target " ") == 0 && exception[name] != included)
            print FILENAME ":" FNR ": src/" folder " may not include " included
    }
    BEGIN {
        rules = "tests/layers/layers.txt"
        while ((getline line < rules) > 0) {
            if (line ~ /^#/ || line == "") continue
            if (line ~ / = /) { split(line, pair, " = "); exception[pair[1]] = pair[2]; continue }
            name = line; sub(/:.*/, "", name)
            list = line; sub(/^[^:]*:/, "", list)
            allowed[name] = list " "
            count++
        }
        if (count < 10) print rules ": cannot read the layers"
    }')
if [ -n "$violations" ]; then
    echo "$violations"
    exit 1
fi
echo "includes follow the layers"
