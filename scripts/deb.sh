#!/bin/sh
# deb.sh: makes $BUILD/powerinfer2_VERSION_ARCH.deb of what is built in $BUILD (default: build), and prints its path.
#
# One package: program, libraries, headers, manual page, completions, and a systemd unit that nothing enables. It has
# no scripts of its own: installing and removing is what dpkg does with files.
set -eu
cd "$(dirname "$0")/.."
build=${BUILD:-build}
for tool in dpkg-deb dpkg-shlibdeps gzip; do
    command -v $tool >/dev/null || { echo "deb.sh: no $tool here: install dpkg-dev" >&2; exit 1; }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
mkdir -m 755 "$root"
umask 022
DESTDIR=$root prefix=/usr BUILD=$build scripts/install.sh 2>"$work/log" || { cat "$work/log" >&2; exit 1; }
strip --strip-unneeded "$root"/usr/bin/powerinfer2 "$root"/usr/lib/libpowerinfer2.so.*.*.*
strip --strip-debug "$root"/usr/lib/libpowerinfer2.a
gzip -9n "$root"/usr/share/man/man1/powerinfer2.1
docs=$root/usr/share/doc/powerinfer2
rm -f "$docs/LICENSE"
cat packaging/copyright LICENSE >"$docs/copyright"
gzip -9nc CHANGELOG.md >"$docs/changelog.gz"
install -D -m 644 packaging/powerinfer2.service "$root/usr/lib/systemd/system/powerinfer2.service"
mkdir -p "$root/usr/share/zsh/vendor-completions" # Debian's own place
mv "$root"/usr/share/zsh/site-functions/_powerinfer2 "$root/usr/share/zsh/vendor-completions/"
rmdir "$root/usr/share/zsh/site-functions"

version=$("$root/usr/bin/powerinfer2" --version | cut -d ' ' -f 2)
architecture=$(dpkg --print-architecture)
mkdir -p "$work/debian" "$root/DEBIAN"
printf 'Source: powerinfer2\n\nPackage: powerinfer2\nArchitecture: %s\n' "$architecture" >"$work/debian/control"
(cd "$work" && dpkg-shlibdeps -O --ignore-missing-info -lroot/usr/lib root/usr/bin/powerinfer2 \
    root/usr/lib/libpowerinfer2.so) >"$work/depends" 2>"$work/log" || { cat "$work/log" >&2; exit 1; }
needs=$(sed 's/^shlibs:Depends=//' "$work/depends")
# What the program loads only where it is used, by the name of the package that has the file.
http=$(dpkg -S "$(sed -n 's/^PI2_MICROHTTPD_LIBRARY:FILEPATH=//p' "$build/CMakeCache.txt" | xargs -r readlink -f)" \
    2>/dev/null | sed 's/:.*//; q') || http=''
cat >"$root/DEBIAN/control" <<CONTROL
Package: powerinfer2
Version: $version
Architecture: $architecture
Maintainer: the authors of powerinfer2 <powerinfer2@localhost>
Installed-Size: $(du -ks --exclude=DEBIAN "$root" | cut -f 1)
Depends: $needs
Recommends: ${http:+$http, }libcurl4 | libcurl3-gnutls
Section: science
Priority: optional
Description: runs language models that are larger than memory
 Keeps a part of a model's weights in memory and streams the rest from disk
 while it computes, within the memory that it is given, to the same text as
 when everything fits. On the command line, as a server for OpenAI's,
 Anthropic's and Ollama's clients, and as a library.
CONTROL
echo 'activate-noawait ldconfig' >"$root/DEBIAN/triggers"
(cd "$root" && find usr -type f -exec md5sum {} +) >"$root/DEBIAN/md5sums"
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
export SOURCE_DATE_EPOCH
package=$build/powerinfer2_${version}_$architecture.deb
dpkg-deb --root-owner-group -Zxz -z2 --build "$root" "$package" >/dev/null
echo "$package"
