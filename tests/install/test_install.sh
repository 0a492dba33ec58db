#!/bin/sh
# Goal:   `make install` gives what a program outside needs and no more: symbols are those of the public headers, with
#         versions; pkg-config finds it where it lies; `make uninstall` leaves nothing behind.
# Method: installs into a folder, builds and runs a program with pkg-config's flags and against the static library,
#         compares lists, takes it away beside a file of somebody else.
set -u
sources=${1:?usage: test_install.sh SOURCES BUILD}
build=${2:?usage: test_install.sh SOURCES BUILD}
for tool in nm pkg-config cc; do
    command -v $tool >/dev/null || { echo "skipped: no $tool"; exit 77; }
done
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
failures=0
fail() {
    failures=$((failures + 1))
    echo "FAILED: $*"
}
root="$folder/a root"
install() { BUILD=$build DESTDIR=$root prefix=/opt/p2 "$sources/scripts/install.sh" "$@" >"$folder/log" 2>&1; }
install || fail "install: $(cat "$folder/log")"
at=$root/opt/p2

for file in bin/powerinfer2 lib/libpowerinfer2.so lib/libpowerinfer2.a include/powerinfer2/engine.h \
    include/powerinfer2/counters.inc lib/pkgconfig/powerinfer2.pc share/man/man1/powerinfer2.1 \
    share/bash-completion/completions/powerinfer2 share/zsh/site-functions/_powerinfer2 \
    share/fish/vendor_completions.d/powerinfer2.fish; do
    [ -s "$at/$file" ] || fail "no $file"
done
[ "$(find "$root" -type f -o -type l | grep -cv '^.*/opt/p2/')" = 0 ] || fail "files outside of the prefix"
grep -rqF "$folder" "$at/lib/pkgconfig" && fail "a folder of this machine in the pkg-config file"
grep -rqF "$build" "$at/lib/pkgconfig" "$at/share" && fail "the build's folder is named in what is installed"

# The headers' functions, and the library's.
grep -hv '^#' "$at"/include/powerinfer2/*.h | tr '\n' ' ' | grep -oE 'PI2_API [^(;]*\(' |
    sed -E 's/.*[^a-z0-9_](pi2_[a-z0-9_]+)\($/\1/' | sort -u >"$folder/declared"
nm -D --defined-only "$at/lib/libpowerinfer2.so" | awk '$2 == "T" { print $3 }' | sort -u >"$folder/exported"
[ "$(wc -l <"$folder/declared")" -gt 80 ] || fail "only $(wc -l <"$folder/declared") functions are declared"
sed 's/$/@@POWERINFER2_0.1/' "$folder/declared" | diff - "$folder/exported" >"$folder/difference" ||
    fail "declared (<) and exported (>) functions differ: $(cat "$folder/difference")"
nm -D --defined-only "$at/lib/libpowerinfer2.so" | grep -E ' [BCDRVW] ' && fail "data is exported"

# A program of somebody else.
cat >"$folder/outside.c" <<'C'
#include <powerinfer2/engine.h>
#include <powerinfer2/plan.h>
#include <powerinfer2/session.h>
#include <stdio.h>
int main(void) {
    pi2_engine_options options;
    pi2_engine_options_init(&options);
    options.model_path = "there-is-none.gguf";
    pi2_engine *engine = NULL;
    const pi2_status status = pi2_engine_open(&options, &engine);
    puts(pi2_error_text());
    return status == PI2_ERR_IO ? 0 : 1;
}
C
PKG_CONFIG_PATH=$at/lib/pkgconfig
export PKG_CONFIG_PATH
eval "cc -Wall -Werror -o '$folder/outside' '$folder/outside.c' $(pkg-config --cflags --libs powerinfer2)" ||
    fail "cannot be linked with pkg-config's flags"
# One that is not where the loader looks is found by its name alone, which carries the interface's version.
LD_LIBRARY_PATH=$at/lib "$folder/outside" >"$folder/out" || fail "the program outside: $(cat "$folder/out")"
grep -q 'there-is-none.gguf' "$folder/out" || fail "it says '$(cat "$folder/out")'"
version=$(pkg-config --modversion powerinfer2)
[ "powerinfer2 $version" = "$("$at/bin/powerinfer2" --version)" ] || fail "pkg-config says version $version"
rm "$at"/lib/libpowerinfer2.so*
eval "cc -o '$folder/static' '$folder/outside.c' $(pkg-config --static --cflags --libs powerinfer2)" ||
    fail "cannot be linked with the static library"
"$folder/static" >"$folder/out" || fail "linked statically: $(cat "$folder/out")"

# Away again, twice; what somebody put there stays.
echo mine >"$at/include/powerinfer2/mine.h"
install || fail "install over what is there"
install --remove || fail "uninstall: $(cat "$folder/log")"
grep -q 'holds something else' "$folder/log" || fail "says nothing of a file that stays: $(cat "$folder/log")"
rm "$at/include/powerinfer2/mine.h"
install --remove || fail "uninstall of nothing"
find "$root" ! -type d >"$folder/left"
find "$root" -name '*powerinfer2*' >>"$folder/left"
[ -s "$folder/left" ] && fail "left behind: $(cat "$folder/left")"
echo "$(wc -l <"$folder/declared") functions, $failures failures"
[ "$failures" = 0 ]
