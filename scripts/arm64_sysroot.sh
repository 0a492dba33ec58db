#!/bin/sh
# arm64_sysroot.sh: the libraries of the arm64 build, unpacked below build-arm64/sysroot.
#
# Debian's own arm64 packages are downloaded with a private apt state and unpacked
# without being installed, so the machine's packages and architectures stay as they are
# and root is not needed.
set -eu
cd "$(dirname "$0")/.."
sysroot=$PWD/build-arm64/sysroot
state=$PWD/build-arm64/apt
[ -f "$sysroot/.complete" ] && [ ! scripts/arm64_sysroot.sh -nt "$sysroot/.complete" ] && exit 0

packages='libpcre2-8-0 libpcre2-16-0 libpcre2-32-0 libpcre2-posix3 libpcre2-dev libutf8proc2
    libutf8proc-dev libjansson4 libjansson-dev libxxhash0 libxxhash-dev liburing2 liburing-dev
    libcmocka0 libcmocka-dev'
rm -rf "$sysroot" "$state"
mkdir -p "$sysroot" "$state/lists/partial" "$state/cache/archives/partial"
: >"$state/status"
run_apt() {
    apt-get -q -o Acquire::Retries=2 -o Acquire::http::Timeout=30 -o APT::Architecture=arm64 -o APT::Architectures::=arm64 \
        -o Dir::State="$state" -o Dir::State::lists="$state/lists" \
        -o Dir::State::status="$state/status" -o Dir::Cache="$state/cache" \
        -o APT::Sandbox::User=root "$@"
}
echo "arm64_sysroot.sh: fetching Debian's arm64 libraries" >&2
# A source that has nothing for arm64 may fail; the download below tells whether it matters.
run_apt update >"$state/log" 2>&1 || true
# shellcheck disable=SC2086 # the list is meant to be split
(cd "$state/cache" && run_apt download $packages) >>"$state/log" 2>&1 || {
    tail -20 "$state/log" >&2
    echo "arm64_sysroot.sh: apt-get could not download the arm64 libraries" >&2
    exit 1
}
for package in "$state"/cache/*.deb; do dpkg-deb -x "$package" "$sysroot"; done
touch "$sysroot/.complete"
