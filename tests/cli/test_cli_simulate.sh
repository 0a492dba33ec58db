#!/bin/sh
# Goal:   "simulate" prints what a described device would do beside what was published of it, as a table and as JSON; a
#         description that is none is refused by name; the descriptions that come along can be read.
# Method: the fuzzer's seed as the description, changed in single places; examples/simulate with few tokens.
. "$(dirname "$0")/cli_support.sh"
command -v python3 >/dev/null || { echo "no python3, which changes descriptions here"; exit 77; }

seed="$(dirname "$0")/../fuzz/seeds/description/small.json"
expect 0 simulate --device "$seed"
grep -q "1 published figures; half of them" "$folder/out" || fail "no summary: $(cat "$folder/out")"
grep -q "assumed: x" "$folder/out" || fail "nothing is assumed: $(cat "$folder/out")"
expect 0 simulate --device "$seed" "$seed" --json --seed 3 --policy heat
[ "$(json published_figures)" = 2 ] || fail "figures: $(cat "$folder/out")"

# change PLACE VALUE MESSAGE: the description with the place set to the value is refused so; "-": the place is gone.
change() {
    python3 - "$seed" "$1" "$2" >"$folder/changed.json" <<'PYTHON'
import json, sys
value = json.load(open(sys.argv[1]))
place = value
*path, last = sys.argv[2].split(".")
for name in path:
    place = place[int(name)] if isinstance(place, list) else place[name]
if sys.argv[3] == "-":
    del place[last]
else:
    place[last] = json.loads(sys.argv[3])
json.dump(value, sys.stdout)
PYTHON
    expect_error "$4" "$3" simulate --device "$folder/changed.json"
}
change device.threads - "device: 'threads' is missing" 3
change device.threads 2.5 "'threads' must be a whole number" 3
change device.threads 0 "'threads' is 0, it must be from 1 to 64" 2
change device.tread 1 "'tread' is no member that is known" 3
change device.reads '[]' "'reads' must be an array" 3
change device.reads '[[1]]' "pairs of bytes" 3
change model.active 2 "'active' is 2" 2
change model.layers '"many"' "'layers' must be a whole number" 3
change runs '[]' "'runs' must be an array" 3
change runs.0.of '"speed"' "'of' must be tokens_per_second" 3
change runs.0.published 0 "'published' must be a number above 0" 3
change runs.0.name 5 "run 1: 'name' must be a text" 3
change runs.1.policy '"best"' "'best' is no policy" 2
change runs.1.memory_bytes -1 "'memory_bytes' is -1" 2
change model '"x"' "must be an object" 3
change name - "'name' must be a text" 3
head -c 300 "$seed" >"$folder/cut.json"
expect_error 3 "no JSON: line" simulate --device "$folder/cut.json"
head -c 1100000 /dev/zero >"$folder/long.json"
expect_error 3 "at most 1048576 bytes" simulate --device "$folder/long.json"
expect_error 5 "No such file" simulate --device "$folder/none.json"
expect_error 2 "no description" simulate

checks=$((checks + 1))
python3 - "$(dirname "$0")/../../examples/simulate" "$folder" <<'PYTHON' || fail "examples"
import glob, json, os, sys
files = glob.glob(os.path.join(sys.argv[1], "*.json"))
assert len(files) >= 8, files
for path in files: # as they are they take minutes
    value = json.load(open(path))
    assert value["assumed"] and all("published" in run for run in value["runs"]), path
    value["model"].update(layers=2, neurons=value["model"]["neurons"] // 8)
    for run in value["runs"]:
        run.pop("memory_bytes", None)
        run.update(tokens=2, warm_tokens=1, hot_share=0.1 if not run.get("without_cache") else 0)
    json.dump(value, open(os.path.join(sys.argv[2], "example-" + os.path.basename(path)), "w"))
PYTHON
expect 0 simulate --device "$folder"/example-*.json --json
finish
