#!/bin/sh
# install.sh [--remove]: installs what is built in $BUILD (default: build) below $DESTDIR$prefix, or takes it away.
#
# What is taken away is what an install would put there, whichever build had installed it; of folders, those that carry
# the project's name. Others' folders stay, empty ones too.
set -eu
cd "$(dirname "$0")/.."
build=${BUILD:-build}
prefix=${prefix:-/usr/local}
root=${DESTDIR:-}
case $prefix in
/*) ;;
*) echo "install.sh: prefix=$prefix is no absolute path" >&2; exit 2 ;;
esac
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
place() { # place FOLDER: installs below it; cmake's list of files is told in an error only
    DESTDIR=$1 cmake --install "$build" --prefix "$prefix" >"$stage/log" 2>&1 || {
        tail -3 "$stage/log" >&2
        echo "install.sh: could not install into $root$prefix" >&2
        exit 1
    }
    rm -f "$stage/log"
}
list() { (cd "$stage" && find . "$@" | sed 's/^\.//'); }

if [ "${1:-}" = --remove ]; then
    place "$stage"
    list ! -type d | while IFS= read -r file; do rm -f "$root$file"; done
    list -depth -type d -name powerinfer2 | while IFS= read -r folder; do
        if [ -d "$root$folder" ] && ! rmdir "$root$folder" 2>/dev/null; then
            echo "install.sh: $root$folder holds something else too, and stays" >&2
        fi
    done
    told=gone
else
    place "$root"
    told=installed
fi
# The system's own list of libraries, where it was changed.
if [ -z "$root" ] && [ "$(id -u)" = 0 ] && command -v ldconfig >/dev/null; then ldconfig; fi
echo "install.sh: $root$prefix: $told" >&2
