#!/bin/sh
# build.sh PRESET [TARGET...]: configures once, then builds (everything, otherwise); quiet when there is nothing to say.
set -eu
cd "$(dirname "$0")/.."
preset=$1
shift
[ $# -gt 0 ] || set -- all
case $preset in release) folder=build ;; *) folder=build-$preset ;; esac

if [ "$preset" = arm64 ]; then scripts/arm64_sysroot.sh; fi
stamp=$folder/configured.stamp
if [ ! -f "$folder/build.ninja" ] || [ ! -f "$stamp" ] || [ CMakePresets.json -nt "$stamp" ]; then
    mkdir -p "$folder"
    echo "build.sh: configuring $folder" >&2
    rm -f "$folder/CMakeCache.txt" # libraries that another preset's text had found there
    cmake --preset "$preset" >"$folder/configure.log" 2>&1 || {
        cat "$folder/configure.log" >&2
        exit 1
    }
    touch "$stamp"
fi
# ninja's own line of progress is for a terminal; elsewhere only a failure is printed.
if [ -t 2 ]; then
    cmake --build "$folder" -j "${JOBS:-2}" --target "$@" -- --quiet >&2
else
    cmake --build "$folder" -j "${JOBS:-2}" --target "$@" >"$folder/build.log" 2>&1 || {
        grep -av '^\[[0-9]*/[0-9]*\] ' "$folder/build.log" >&2
        exit 1
    }
fi
