#!/bin/sh
# Goal:   bench/hidden adds up what overlaps: of a device's spans, the threads' less what they wait for, and reads, in
#         passes of one token alone; a timeline without such passes is refused.
# Method: a timeline that is made up.
set -eu
command -v python3 >/dev/null || { echo "skipped: no python3"; exit 77; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/trace" <<'END'
{"traceEvents":[
{"ph":"M","pid":1,"tid":1,"name":"thread_name","args":{"name":"tokens"}},
{"ph":"M","pid":1,"tid":2,"name":"thread_name","args":{"name":"compute thread 1"}},
{"ph":"M","pid":1,"tid":3,"name":"thread_name","args":{"name":"device mock:0"}},
{"ph":"X","pid":1,"tid":1,"name":"16 tokens from 0","ts":0,"dur":1000},
{"ph":"X","pid":1,"tid":1,"name":"token 16","ts":1000,"dur":10000},
{"ph":"X","pid":1,"tid":2,"name":"L0 gate","ts":500,"dur":4500},
{"ph":"X","pid":1,"tid":2,"name":"waits for extent 3","ts":4000,"dur":1000},
{"ph":"X","pid":1,"tid":3,"name":"L0 hot gate+up","ts":2000,"dur":8000},
{"ph":"b","pid":1,"tid":0,"id":"0x1","name":"read","ts":3000},
{"ph":"e","pid":1,"tid":0,"id":"0x1","name":"read","ts":5000}
]}
END
"$1/bench/hidden" "$folder/trace" --layers >"$folder/out"
for line in '1 passes, 10.0 ms' 'devices, threads 8.0 ms 3.0 ms 2.0 ms 66.7 %' 'devices, reading 8.0 ms 2.0 ms 2.0 ms 100.0 %' \
    'threads, reading 3.0 ms 2.0 ms 1.0 ms 50.0 %' 'all three at once: 1.0 ms' \
    'device: hot gate+up 8.0 ms 3.0 ms 2.0 ms 66.7 %'; do
    tr -s ' ' <"$folder/out" | sed 's/^ //' | grep -qxF "$line" || { cat "$folder/out"; echo "missing: $line"; exit 1; }
done
sed '/"token 16"/d' "$folder/trace" >"$folder/none"
if "$1/bench/hidden" "$folder/none" 2>"$folder/err"; then echo "a timeline without tokens is taken"; exit 1; fi
grep -q 'no such pass' "$folder/err"
