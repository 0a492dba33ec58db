#!/bin/sh
# tarball.sh: makes build-arm64/powerinfer2-VERSION-aarch64-linux.tar.gz of the static program, and prints its path.
#
# What is inside needs nothing of the system that it is unpacked on but Linux on 64-bit ARM. The same sources make the
# same bytes. The program is looked at and run (under qemu) before it is packed.
set -eu
cd "$(dirname "$0")/.."
build=${BUILD:-build-arm64}
program=$build/powerinfer2
refuse() {
    echo "tarball.sh: $*" >&2
    exit 1
}
headers=$(LC_ALL=C aarch64-linux-gnu-readelf -hlW "$program") || refuse "no program: $program"
echo "$headers" | grep -q 'Machine: *AArch64' || refuse "$program is not for 64-bit ARM"
if echo "$headers" | grep -qE ' (INTERP|DYNAMIC) '; then refuse "$program needs shared libraries"; fi
# Pages of 16 and 64 KB: no segment may need a finer alignment of addresses.
segments=$(echo "$headers" | awk '$1 == "LOAD" { print $NF }')
[ -n "$segments" ] || refuse "$program has no segments"
for alignment in $segments; do
    [ $((alignment % 65536)) -eq 0 ] || refuse "a segment of $program is aligned to $alignment bytes only"
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
umask 022
version=$(qemu-aarch64 "$program" --version | cut -d ' ' -f 2)
name=powerinfer2-$version-aarch64-linux
folder=$work/$name
mkdir -m 755 "$folder"
aarch64-linux-gnu-strip --strip-all -o "$folder/powerinfer2" "$program"
qemu-aarch64 "$folder/powerinfer2" manual >"$folder/powerinfer2.1"
cp LICENSE README.md docs/install.md "$folder"
# The licences of what is linked in.
for package in libc6-dev-arm64-cross libpcre2-dev libutf8proc-dev libjansson-dev libxxhash-dev; do
    copyright=$build/sysroot/usr/share/doc/$package/copyright
    [ -f "$copyright" ] || copyright=/usr/share/doc/$package/copyright
    printf '==== %s (Debian)\n\n' "$package"
    cat "$copyright" || refuse "no licence of $package"
    echo
done >"$folder/LICENSES-OF-LIBRARIES"
chmod 644 "$folder"/[!p]* "$folder"/powerinfer2.1
chmod 755 "$folder/powerinfer2"
stamp=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$stamp" -C "$work" -cf "$work/tar" "$name"
gzip -9nc "$work/tar" >"$build/$name.tar.gz"
echo "$build/$name.tar.gz"
