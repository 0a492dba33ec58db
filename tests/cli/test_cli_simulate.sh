#!/bin/sh
# Goal:   "simulate" prints what a described device would do beside what was published of it, as a table and as JSON; a
#         description that is none is refused; the descriptions that come along can be read.
# Method: the fuzzer's seed as the description; examples/simulate with few tokens. What of a description is refused, and
#         how, is in test_description_file: a process for each would take long under sanitizers.
. "$(dirname "$0")/cli_support.sh"
command -v python3 >/dev/null || { echo "no python3, which changes descriptions here"; exit 77; }

seed="$(dirname "$0")/../fuzz/seeds/description/small.json"
expect 0 simulate --device "$seed"
grep -q "1 published figures; half of them" "$folder/out" || fail "no summary: $(cat "$folder/out")"
grep -q "assumed: x" "$folder/out" || fail "nothing is assumed: $(cat "$folder/out")"
expect 0 simulate --device "$seed" "$seed" --json --seed 3 --policy heat
[ "$(json published_figures)" = 2 ] || fail "figures: $(cat "$folder/out")"

python3 - "$seed" "$folder" <<'PYTHON'
import json, sys
value = json.load(open(sys.argv[1]))
value["runs"][1]["policy"] = "best"
json.dump(value, open(sys.argv[2] + "/policy.json", "w"))
value["model"].update(layers=64, neurons=16384, experts=1)
value["runs"] = [{"name": str(i), "tokens": 70000, "warm_tokens": i, "hot_share": 0} for i in range(64)]
json.dump(value, open(sys.argv[2] + "/many.json", "w"))
PYTHON
head -c 300 "$seed" >"$folder/cut.json"
expect_error 3 "no JSON: line" simulate --device "$folder/cut.json"
expect_error 2 "run 2: runs up to it draw 1.4.*e+11 neurons" simulate --device "$folder/many.json"
expect_error 2 "'best' is no policy" simulate --device "$folder/policy.json"
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
