#!/bin/sh
# Goal:   -hf and --model-url end with the model's own bytes in the cache, or with one line that says why not, whatever
#         the server does; tokens go to their own server alone and are told nowhere.
# Method: download_server.py, which breaks off, lies, redirects, changes and refuses, as the repository's name says.
. "$(dirname "$0")/cli_support.sh"
command -v python3 >/dev/null || { echo "skipped: no python3, which is the server here"; exit 77; }
run run -hf u/none -p a --offline
if grep -q 'without libcurl' "$folder/err"; then echo "skipped: built without libcurl"; exit 77; fi
tiny m layers=2 context=256
unset HF_TOKEN LLAMA_ARG_HF_REPO http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY
LLAMA_CACHE=$folder/models POWERINFER2_RETRY_SECONDS=0.002
export LLAMA_CACHE POWERINFER2_RETRY_SECONDS
mkfifo "$folder/life" "$folder/port"
python3 "$(dirname "$0")/download_server.py" "$folder/m.gguf" "$folder/log" <"$folder/life" >"$folder/port" &
exec 7>"$folder/life" # its end is the server's
read -r port <"$folder/port"
HF_ENDPOINT=http://127.0.0.1:$port
export HF_ENDPOINT
asked() { grep -c "$1" "$folder/log"; } # asked PATTERN: how many requests were so

# comes REPOSITORY [OPTIONS...]: the model is fetched, and is right.
comes() {
    repository=$1
    shift
    expect 0 run -hf "$repository" -p a -n 1 -t 1 -c 64 "$@"
    file=$folder/models/u_${repository#u/}_m-Q4_K_M.gguf
    cmp -s "$folder/m.gguf" "$file" || fail "$repository: other bytes in $(ls "$folder/models")"
}
# refused CODE TEXT REPOSITORY [OPTIONS...]: nothing is kept under the model's name.
refused() {
    refused_code=$1 refused_text=$2
    shift 2
    run run -hf "$@" -p a -n 1 -t 1 -c 64
    checks=$((checks + 1))
    [ "$code" = "$refused_code" ] || fail "$1: exit code $code, not $refused_code: $(cat "$folder/err")"
    grep -q "$refused_text" "$folder/err" || fail "$1: no '$refused_text' in $(cat "$folder/err")"
    [ "$(grep -vc 'tried again\|downloading ' "$folder/err")" = 1 ] || fail "$1: not one line: $(cat "$folder/err")"
    ls "$folder/models" | grep "u_${1#u/}_.*gguf\$" && fail "$1: something was kept"
}

comes u/good
comes u/good # from the cache
[ "$(asked 'u/good')" = 2 ] || fail "what is in the cache was asked for again: $(cat "$folder/log")"
comes u/good --offline
[ "$(asked 'u/good')" = 2 ] || fail "--offline asks"
expect 0 run -hf u/good:q8_0 -p a -n 1 -t 1 -c 64
[ -f "$folder/models/u_good_m-Q8_0.gguf" ] || fail "no m-Q8_0.gguf: $(ls "$folder/models")"
expect 0 run -hf u/byname -hff m-IQ4_XS.gguf -p a -n 1 -t 1 -c 64
[ "$(asked 'api/models/u/byname')" = 0 ] || fail "a file that is named needs no list"
expect 3 run -hf u/split -p a -n 1 -t 1 -c 64 # they are three times the same file here
[ "$(ls "$folder/models" | grep -c '^u_split_sub_p-Q4_0-0000[123]-of-00003.gguf$')" = 3 ] || fail "not all parts came"
expect 0 run --model-url "$HF_ENDPOINT/u/direct/by-url.gguf?download=true" -p a -n 1 -t 1 -c 64
cmp -s "$folder/m.gguf" "$folder/models/by-url.gguf" || fail "--model-url: $(ls "$folder/models")"
# A file of the same name that lies elsewhere is another one.
expect 0 run --model-url "$HF_ENDPOINT/u/direct/by-url.gguf?token=hidden" -p a -n 1 -t 1 -c 64
[ "$(asked 'u/direct/')" = 1 ] || fail "what is in the cache was asked for again: $(cat "$folder/log")"
expect_error 5 "came from $HF_ENDPOINT/u/direct/by-url.gguf" run --model-url "$HF_ENDPOINT/u/next/by-url.gguf" -p a
grep -r hidden "$folder/models" && fail "a secret is kept"

# What breaks is gone on with, from where it was.
comes u/breaks
grep -q 'u/breaks/.*range=bytes=[1-9]' "$folder/log" || fail "nothing was gone on with"
grep 'u/breaks/res' "$folder/log" | tail -1 | grep -q 'range=None' && fail "it began anew"
# Where nobody has ever answered, a machine without a network soon says so.
expect 5 run --model-url http://127.0.0.1:1/m.gguf -p a -n 1
grep -q '^powerinfer2: http://127.0.0.1:1/m.gguf: cannot be reached' "$folder/err" ||
    fail "what cannot be reached: $(cat "$folder/err")"
[ "$(grep -c 'tried again' "$folder/err")" = 2 ] || fail "tries of what cannot be reached: $(cat "$folder/err")"
refused 5 "broke off" u/dies
[ -s "$folder/models/u_dies_m-Q4_K_M.gguf.downloadInProgress" ] || fail "what had come is lost"
cp "$folder/m.gguf" "$folder/models/u_whole_m-Q4_K_M.gguf.downloadInProgress" # killed before its last step
printf '"one"' >"$folder/models/u_whole_m-Q4_K_M.gguf.downloadInProgress.etag"
comes u/whole
head -c 1000 "$folder/m.gguf" >"$folder/models/u_unknown_m-Q4_K_M.gguf.downloadInProgress" # of what, nothing tells
comes u/unknown
grep 'u/unknown/' "$folder/log" | grep -q 'range=bytes' && fail "what nobody knows was gone on with"
for kind in changes changes-rudely chunked busy broken redirects; do comes u/$kind; done

# Links that lie in the cache, which others may write to, lead nobody to write over a file elsewhere.
printf 'mine' >"$folder/mine"
for end in downloadInProgress.etag downloadInProgress; do
    ln -s "$folder/mine" "$folder/models/u_linked_m-Q4_K_M.gguf.$end"
    ln -sf "$folder/mine" "$folder/models/manifest=u_linked=default.file"
    [ $end = downloadInProgress ] || comes u/linked
    rm -f "$folder/models/u_linked_m-Q4_K_M.gguf"
done
refused 5 "cannot be written" u/linked
rm "$folder/models/u_linked_m-Q4_K_M.gguf.downloadInProgress"
ln "$folder/mine" "$folder/models/u_linked_m-Q4_K_M.gguf.downloadInProgress"
refused 2 "is in the way" u/linked
[ "$(cat "$folder/mine")" = mine ] || fail "a link in the cache was followed"

# What is wrong is not kept.
refused 5 "SHA-256" u/other
refused 5 "SHA-256" u/short
refused 5 "another length" u/wrong-size
refused 5 "no GGUF file but text/html" u/html
refused 5 "empty" u/empty
refused 5 "room for" u/huge
refused 5 "404" u/gone
refused 5 "4000 seconds" u/busy-for-long
refused 5 "circle" u/circle
refused 5 "no list of files" u/nolist
refused 5 "HF_TOKEN" u/private
refused 2 "none of its files is Q2_K; it has: .*m-Q8_0.gguf" u/good2:Q2_K
refused 2 "none of its files is Q4_K; " u/good2:Q4_K
refused 5 "not in the cache" u/never --offline
[ "$(asked 'never')" = 0 ] || fail "--offline asks"
for name in nonsense ../x a/../b /a a/b/c "a/b:../../c" "a b/c" "a/b:c/d" ""; do refused 2 "is not USER/REPO" "$name"; done
expect_error 2 "exclude each other" run -p a -m x -hf a/b
expect_error 2 "of which -hf" run -p a --hf-file x -m y
expect_error 2 "names no file" run -p a --model-url http://127.0.0.1:$port/
long=$(printf '%04000d' 0)
expect_error 2 "address can have 3071" run -p a --model-url "$HF_ENDPOINT/u/long/m.gguf?token=$long"
[ "$(asked 'u/long/')" = 0 ] || fail "a part of an address was asked"
expect_error 5 "ftp" run -p a --model-url ftp://127.0.0.1/x.gguf
# A name from a list cannot leave the cache.
expect 0 run -hf u/hostile -p a -n 1 -t 1 -c 64
[ -f "$folder/models/u_hostile_.._.._evil-Q4_K_M.gguf" ] || fail "hostile: $(ls "$folder/models")"
[ "$(find "$folder" -name '*evil*' | wc -l)" = 1 ] || fail "hostile: $(find "$folder" -name '*evil*')"

# A token goes to the server that it is for, and into no message.
HF_TOKEN=hf_secret
export HF_TOKEN
comes u/private
grep 'u/private/resolve' "$folder/log" | grep -q 'token=Bearer hf_secret' || fail "the token was not sent"
grep '/cdn/' "$folder/log" | grep -q secret && fail "the token went to another server"
expect 0 run --model-url "http://localhost:$port/u/elsewhere/m.gguf" -p a -n 1 -t 1 -c 64
grep 'u/elsewhere' "$folder/log" | grep -q 'token=None' || fail "somebody else's server got the token"
for kind in gone dies html; do
    run run -hf u/$kind -p a -n 1 -t 1
    grep -q 'hf_secret\|hidden' "$folder/err" && fail "a secret is told: $(cat "$folder/err")"
done
# Who is asked to end while it downloads ends with the download, also where the signal was not for both.
"$program" run -hf u/slow -p a -n 1 -t 1 -c 64 >/dev/null 2>"$folder/err" 7>&- &
slow=$!
part=$folder/models/u_slow_m-Q4_K_M.gguf.downloadInProgress
tries=0
while [ ! -s "$part" ] && [ $tries -lt 200 ]; do sleep 0.05; tries=$((tries + 1)); done
kill -TERM $slow
wait $slow
[ $? = 130 ] || fail "a signal while it downloads: $(cat "$folder/err")"
comes u/slow
grep 'u/slow/res' "$folder/log" | tail -1 | grep -q 'range=bytes' || fail "after the signal it began anew"
# Another process fetches it: one of the two gives way.
python3 -c 'import fcntl, sys
file = open(sys.argv[1], "a")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()' \
    "$folder/models/u_held_m-Q4_K_M.gguf.downloadInProgress" <"$folder/life" >"$folder/port" 7>&- &
read -r held <"$folder/port"
refused 5 "another process" u/held
[ "$held" = held ] || fail "nothing was held"
exec 7>&-
wait
finish
