#!/bin/sh
# Goal:   includes point down the order of layers.txt; the program uses the public API only; files are read on one way.
# Method: every #include "folder/..." of every source file, and every call of the functions listed, against the list.
set -u
root=${1:?usage: test_layers.sh SOURCE_FOLDER}
cd "$root" || exit 1
violations=$(find src programs -name '*.[ch]' -o -name '*.inc' 2>/dev/null | sort | xargs awk '
    FILENAME == rules { next }
    FNR == 1 {
        split(FILENAME, part, "/"); top = part[1]; folder = part[2]
        name = FILENAME; sub(/^src\//, "", name); sub(/\.[ch]$/, "", name)
    }
    top == "src" && $0 !~ /^[ \t]*(\/?\*|\/\/)/ {
        for (i = 1; i <= call_count; i++) {
            if ($0 !~ ("(^|[^a-zA-Z0-9_>.])" called[i] " *\\(")) continue
            if (index(callers[i], " " name " ")) calls[i, name] = 1
            else print FILENAME ":" FNR ": calls " called[i] "(), which is for" callers[i]
        }
    }
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
            if (folder == "server" && target == "cli") next # serve is a command beside the others
            if (target != folder) print FILENAME ":" FNR ": includes " included ", programs use include/powerinfer2 only"
            next
        }
        if (target == folder) next
        if (!(folder in allowed)) { print FILENAME ":" FNR ": src/" folder " is not in layers.txt"; next }
        if (!index(allowed[folder], " " target " ") && !index(allowed[folder], " " included " ") &&
            exception[name] != included)
            print FILENAME ":" FNR ": src/" folder " may not include " included
    }
    BEGIN {
        rules = "tests/layers/layers.txt"
        while ((getline line < rules) > 0) {
            if (line ~ /^#/ || line == "") continue
            if (line ~ /^calls /) {
                called[++call_count] = line; sub(/^calls /, "", called[call_count]); sub(/:.*/, "", called[call_count])
                callers[call_count] = line " "; sub(/^[^:]*:/, "", callers[call_count])
                continue
            }
            if (line ~ / = /) { split(line, pair, " = "); exception[pair[1]] = pair[2]; continue }
            name = line; sub(/:.*/, "", name)
            list = line; sub(/^[^:]*:/, "", list)
            allowed[name] = list " "
            count++
        }
        if (count < 10 || call_count < 5) print rules ": cannot read the layers"
    }
    END {
        for (i = 1; i <= call_count; i++) {
            n = split(callers[i], file, " ")
            for (f = 1; f <= n; f++)
                if (!((i, file[f]) in calls)) print rules ": " file[f] " does not call " called[i] "()"
        }
    }')
if [ -n "$violations" ]; then
    echo "$violations"
    exit 1
fi
echo "includes and calls follow the layers"
