#!/bin/sh
# fresh_debian.sh FOLDER [ERRAND...]: `make run`, `make serve` with README.md's request, and `make test` of HEAD in an
# empty Debian 12, as root. ERRAND: run, serve, test; otherwise run, run, serve and test.
#
# debootstrap makes the system in FOLDER (kept for the next call only as far as the bare
# system goes: the clone and the cache are new each time). It gets this machine's resolver,
# certificates and pip settings, and otherwise nothing but git, make and a compiler.
set -eu
cd "$(dirname "$0")/.."
root=${1:?usage: fresh_debian.sh FOLDER [ERRAND...]}
shift
errands=${*:-run run serve test}
mkdir -p "$root"
root=$(cd "$root" && pwd)
base=$root/base
system=$root/system

if [ ! -f "$base/.complete" ]; then
    mirror=$(apt-get indextargets --format '$(SITE)|$(ORIGIN)|$(RELEASE)' 'Created-By: Packages' |
        awk -F'|' '$2 == "Debian" && $3 !~ /security/ { print $1; exit }')
    debootstrap --variant=minbase --include=git,make,gcc,libc6-dev,ca-certificates bookworm \
        "$base" "$mirror" >"$root/debootstrap.log" 2>&1 || {
        tail -5 "$root/debootstrap.log" >&2
        exit 1
    }
    touch "$base/.complete"
fi
rm -rf "$system"
cp -a "$base" "$system"
cp /etc/resolv.conf "$system/etc/resolv.conf"
git clone -q --no-hardlinks . "$system/srv/powerinfer2"

# What only this machine's network needs: certificates, and pip's options for them.
cp -aL /etc/ssl/certs/ca-certificates.crt "$system/etc/ssl/certs/ca-certificates.crt"
settings=$(env | grep -E '^(PIP_(CERT|INDEX_URL|DEFAULT_TIMEOUT)|SSL_CERT_FILE|REQUESTS_CA_BUNDLE)=' || true)
if [ -n "${PI2_FRESH_DATA:-}" ]; then mkdir -p "$system/srv/shared/data"; fi

# The private mount namespace ends with the command, and the mounts with it.
cat >"$system/srv/session.sh" <<'SESSION'
set -u
cd /srv/powerinfer2
if [ -d /srv/shared/data/text ]; then export PI2_TEST_DATA=/srv/shared/data; fi
echo '$ git log --oneline -1'; git log --oneline -1
serve() { # what README.md shows: the request in its own words, for as long as it takes to build
    { apt-get -q update && apt-get -q install -y --no-install-recommends curl; } >/srv/curl.log 2>&1 || {
        tail -5 /srv/curl.log
        return 1
    }
    if curl -s localhost:8080 >/dev/null; then echo "somebody else is on port 8080"; return 1; fi
    make serve &
    server=$!
    until curl -sf localhost:8080/health >/dev/null; do
        kill -0 $server 2>/dev/null || { echo "make serve ended"; return 1; }
        sleep 1
    done
    request=$(sed -n 's/^\$ \(curl .*chat\/completions .*\)/\1/p' README.md)
    printf '$ %s\n' "$request"
    reply=$(eval "$request")
    printf '%s\n' "$reply"
    kill $server # make ends its child too
    wait $server
    case $reply in *'1. Water\n2. Light\n3. Nutrients'*) ;; *) return 1 ;; esac
}
for errand in "$@"; do
    echo "\$ make $errand"
    case $errand in
    serve) time -p serve ;;
    *) time -p make "$errand" ;;
    esac
    echo "exit status $?"
done
SESSION
# shellcheck disable=SC2086 # one variable a word
unshare --mount sh -c '
    mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" && mount --rbind /sys "$0/sys" &&
    { [ -z "${PI2_FRESH_DATA:-}" ] || mount --bind "$PI2_FRESH_DATA" "$0/srv/shared/data"; } &&
    system=$0 && exec chroot "$system" env -i HOME=/srv LANG=C.UTF-8 TERM=dumb \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"' \
    "$system" $settings bash /srv/session.sh $errands </dev/null 2>&1 | tee "$root/transcript.log"
if grep -q '^exit status [1-9]' "$root/transcript.log"; then
    echo "fresh_debian.sh: a command failed; see $root/transcript.log" >&2
    exit 1
fi
