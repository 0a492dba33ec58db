#!/bin/sh
# fresh_deb.sh FOLDER [MODEL]: the package of `make deb` in an empty Debian 12, as root: installed, asked, removed.
#
# debootstrap makes the system in FOLDER and keeps it for the next call. What is there after the removal is compared
# with what was there before. MODEL: otherwise the default one.
set -eu
cd "$(dirname "$0")/.."
root=${1:?usage: fresh_deb.sh FOLDER [MODEL]}
model=${2:-$(scripts/model.sh)}
mkdir -p "$root"
root=$(cd "$root" && pwd)
if [ ! -f "$root/base/.complete" ]; then
    mirror=$(apt-get indextargets --format '$(SITE)|$(ORIGIN)|$(RELEASE)' 'Created-By: Packages' |
        awk -F'|' '$2 == "Debian" && $3 !~ /security/ { print $1; exit }')
    debootstrap --variant=minbase bookworm "$root/base" "$mirror" >"$root/debootstrap.log" 2>&1 || {
        tail -5 "$root/debootstrap.log" >&2
        exit 1
    }
    touch "$root/base/.complete"
fi
rm -rf "$root/system"
cp -a "$root/base" "$root/system"
cp /etc/resolv.conf "$root/system/etc/resolv.conf"
cp "$(scripts/deb.sh)" "$root/system/srv/powerinfer2.deb"
cp "$model" "$root/system/srv/model.gguf"
cat >"$root/system/srv/session.sh" <<'SESSION'
set -eu
export DEBIAN_FRONTEND=noninteractive
list() { find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /srv -o -path /tmp -o -path /var/lib/apt \
    -o -path /var/lib/dpkg -o -path /var/cache -o -path /var/log -o -path /run -o -name __pycache__ \) -prune -o -print |
    sort; }
apt-get -q update >/srv/log 2>&1
list >/srv/before
echo '$ apt-get install ./powerinfer2.deb'
apt-get -q install -y --no-install-recommends /srv/powerinfer2.deb libmicrohttpd12 curl >>/srv/log 2>&1 || { tail -5 /srv/log; exit 1; }
powerinfer2 --version
echo '$ powerinfer2 run'
powerinfer2 run -m /srv/model.gguf --memory 64M -c 256 --temp 0 -p "Name three things that a plant needs." -q
powerinfer2 serve -m /srv/model.gguf --memory 80M -c 256 --port 18080 -q &
server=$!
trap 'kill $server 2>/dev/null || true' EXIT
for try in 1 2 3 4 5 6 7 8 9 10; do curl -sf localhost:18080/health >/dev/null && break; sleep 1; done
echo '$ curl localhost:18080/v1/chat/completions'
curl -sS localhost:18080/v1/chat/completions -d '{"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8}'
echo
kill $server
wait $server
trap - EXIT
test -e /usr/lib/systemd/system/powerinfer2.service
test -z "$(find /etc/systemd -name 'powerinfer2*')"
echo '$ apt-get purge powerinfer2'
apt-get -q purge -y powerinfer2 libmicrohttpd12 curl >>/srv/log 2>&1
apt-get -q autoremove -y --purge >>/srv/log 2>&1
rm -rf /root/.cache/powerinfer2
list >/srv/after
find / -xdev -name '*powerinfer2*' -not -path '/srv/*' -not -path '/proc/*' >/srv/left
# What the system makes of any package that comes and goes, is not ours.
diff /srv/before /srv/after | grep '^[<>]' | grep -vE '/root/.cache$|/etc/(ld.so.cache|ssl|ca-certificates)|/etc/ldap' >>/srv/left || true
if [ -s /srv/left ]; then echo "left behind:"; cat /srv/left; exit 1; fi
echo "nothing is left behind"
SESSION
unshare --mount sh -c 'mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" && exec chroot "$0" env -i HOME=/root \
    LANG=C.UTF-8 TERM=dumb PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin bash /srv/session.sh' \
    "$root/system" </dev/null
