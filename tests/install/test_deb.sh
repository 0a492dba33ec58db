#!/bin/sh
# Goal:   `make deb` makes a package of what is built: complete, owned by root, with what it needs named, nothing enabled.
# Method: makes it, reads it with dpkg-deb, runs what is inside; scripts/fresh_deb.sh installs it in an empty system.
set -u
sources=${1:?usage: test_deb.sh SOURCES BUILD}
build=${2:?usage: test_deb.sh SOURCES BUILD}
for tool in dpkg-deb dpkg-shlibdeps gzip strip; do
    command -v $tool >/dev/null || { echo "skipped: no $tool"; exit 77; }
done
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
failures=0
fail() {
    failures=$((failures + 1))
    echo "FAILED: $*"
}
package=$(BUILD=$build "$sources/scripts/deb.sh") || { echo "FAILED: deb.sh"; exit 1; }
case $package in /*) ;; *) package=$sources/$package ;; esac
dpkg-deb --info "$package" >"$folder/info" || fail "no package: $package"
for line in '^ Package: powerinfer2$' '^ Depends: .*libpcre2-8-0.*libutf8proc' '^ Recommends: libmicrohttpd' \
    "^ Version: $("$build/powerinfer2" --version | cut -d ' ' -f 2)\$" "^ Architecture: $(dpkg --print-architecture)\$"; do
    grep -q "$line" "$folder/info" || fail "no $line in: $(cat "$folder/info")"
done
grep -qE ' (preinst|postinst|prerm|postrm|conffiles)' "$folder/info" && fail "it has scripts or settings"
dpkg-deb --contents "$package" >"$folder/contents"
grep -v ' root/root ' "$folder/contents" && fail "these are not root's"
grep -E '^[-d](..[sS]|.....[sS]|....w|.......w)' "$folder/contents" && fail "these have rights that they should not have"
grep -E ' \./(etc|var|usr/local)/' "$folder/contents" && fail "these lie where a package of files should have none"
dpkg-deb --extract "$package" "$folder/root" || fail "cannot be extracted"
(cd "$folder/root" && dpkg-deb --control "$package" "$folder/control" && md5sum --quiet -c "$folder/control/md5sums") ||
    fail "sums are not those of the files"
"$folder/root/usr/bin/powerinfer2" --version >/dev/null || fail "the program does not run"
gzip -dc "$folder/root/usr/share/man/man1/powerinfer2.1.gz" | grep -q '^\.TH POWERINFER2' || fail "no manual page"
unit=$folder/root/usr/lib/systemd/system/powerinfer2.service
for line in '^DynamicUser=yes' '^ProtectSystem=strict' '^NoNewPrivileges=yes' '^CapabilityBoundingSet=$'; do
    grep -q "$line" "$unit" || fail "no $line in the unit"
done
if command -v systemd-analyze >/dev/null; then
    sed -i "s|/usr/bin/powerinfer2|$folder/root/usr/bin/powerinfer2|" "$unit"
    systemd-analyze verify --man=no "$unit" >"$folder/log" 2>&1 || fail "the unit: $(cat "$folder/log")"
    grep -i 'powerinfer2.service' "$folder/log" && fail "the unit is complained about"
fi
echo "$(wc -l <"$folder/contents") files, $failures failures"
[ "$failures" = 0 ]
