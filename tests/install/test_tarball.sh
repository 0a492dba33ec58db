#!/bin/sh
# Goal:   the archive of the static ARM program has what it should and nothing else, twice the same bytes; the program runs
#         without any library, also with pages of 16 KB, to one text; what it lacks it says.
# Method: cross builds only: scripts/tarball.sh, then the program that it packed under qemu without a folder of libraries.
set -u
sources=${1:?usage: test_tarball.sh SOURCES BUILD}
build=${2:?usage: test_tarball.sh SOURCES BUILD}
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
failures=0
fail() {
    failures=$((failures + 1))
    echo "FAILED: $*"
}
archive=$(BUILD=$build "$sources/scripts/tarball.sh") || { echo "FAILED: tarball.sh"; exit 1; }
cp "$archive" "$folder/first"
BUILD=$build "$sources/scripts/tarball.sh" >/dev/null && cmp "$folder/first" "$archive" || fail "other bytes the second time"
tar -xzf "$archive" -C "$folder" || fail "cannot be unpacked"
name=$(basename "$archive" .tar.gz)
(cd "$folder/$name" && ls) >"$folder/names"
printf '%s\n' LICENSE LICENSES-OF-LIBRARIES README.md install.md powerinfer2 powerinfer2.1 | LC_ALL=C sort |
    LC_ALL=C diff - "$folder/names" || fail "other files are inside"
grep -q '^\.TH POWERINFER2' "$folder/$name/powerinfer2.1" || fail "no manual page"
for library in libc6 libpcre2 libutf8proc libjansson libxxhash; do
    grep -q "^==== $library" "$folder/$name/LICENSES-OF-LIBRARIES" || fail "no licence of $library"
done

export HOME="$folder" XDG_CACHE_HOME="$folder/cache"
run() { qemu-aarch64 -p "$page" "$folder/$name/powerinfer2" "$@" >"$folder/out" 2>"$folder/err" </dev/null; }
qemu-aarch64 -L /usr/aarch64-linux-gnu "$build/tests/make_tiny_model" "$folder/m.gguf" layers=2 || fail "no model"
for page in 4096 16384 65536; do
    run --help && grep -q 'powerinfer2 COMMAND' "$folder/out" || fail "--help, pages of $page: $(cat "$folder/err")"
    run inspect -m "$folder/m.gguf" || fail "inspect, pages of $page: $(cat "$folder/err")"
    run run -m "$folder/m.gguf" -p "Why is it so?" --temp 0 -n 12 -q || fail "run, pages of $page: $(cat "$folder/err")"
    [ -s "$folder/out" ] || fail "no text with pages of $page"
    [ -f "$folder/text" ] || cp "$folder/out" "$folder/text"
    cmp "$folder/text" "$folder/out" || fail "another text with pages of $page"
done
run serve -m "$folder/m.gguf" && fail "serve without a library for it"
grep -q 'this build has no server' "$folder/err" || fail "serve says: $(cat "$folder/err")"
run run -hf some/body && fail "a download without a library for it"
grep -q 'cannot download models' "$folder/err" || fail "-hf says: $(cat "$folder/err")"
echo "$(wc -l <"$folder/names") files, $failures failures"
[ "$failures" = 0 ]
