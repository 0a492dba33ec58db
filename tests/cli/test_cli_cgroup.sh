#!/bin/sh
# Goal:   under a memory cgroup of exactly --memory the real model is not killed, stays within the
#         budget, counts its reads rightly, and gives the text of the run that fits, whatever the
#         budget, the threads and the read method.
# Method: bench/comparison's memory group; model and cluster file dropped from the page cache
#         first; bytes read compared with what the kernel counts for the process.
. "$(dirname "$0")/cli_support.sh"
skip() {
    echo "SKIPPED: $*"
    exit 77
}
[ -n "${PI2_TEST_MODEL:-}" ] || skip "PI2_TEST_MODEL is not set: no real model"
[ "$(id -u)" = 0 ] || skip "a memory cgroup needs root"
[ "${PI2_TEST_PRESET:-release}" = release ] || skip "a sanitizer's memory fits no budget"
command -v python3 >/dev/null || skip "no python3"

cat >"$folder/check.py" <<'PYTHON'
import json, os, sys
program, model, folder, comparison = sys.argv[1:]
sys.dont_write_bytecode = True
sys.path.insert(0, comparison)
from comparison import machine
try:
    group = machine.MemoryGroup(f"powerinfer2-test-{os.getpid()}")
except (machine.CommandFailed, OSError) as error:
    print(f"SKIPPED: no memory cgroup can be made: {error}")
    sys.exit(77)
cluster = os.path.join(folder, "model.pi2")
base = [program, "run", "-m", model, "--cluster-file", cluster, "-c", "256", "-n", "24", "--temp",
        "0", "-p", "Name three things that a plant needs to grow, and say why.", "--json"]
failures = []

def answer(limit, *options):
    files = [model] + ([cluster] if os.path.exists(cluster) else [])
    machine.drop_from_page_cache(*files)
    try:
        group.limit(limit)
    except (machine.CommandFailed, OSError) as error:
        print(f"SKIPPED: the memory cgroup takes no limit: {error}")
        sys.exit(77)
    result = group.run(base + list(options), 120)
    if result["outcome"] != "ok":
        failures.append(f"{limit} {options}: {result['outcome']} {result['stderr'][-400:]}")
        return None
    value = json.loads(result["stdout"])
    value["kernel_bytes"] = result["bytes_read"]
    return value

try:
    whole = answer(None)
    if whole and not os.path.exists(cluster):
        group.run([program, "prepare", "-m", model, "-o", cluster], 120)
    for megabytes in (88, 64, 48):
        budget = megabytes * 1000000
        for threads in ("1", "2"):
            for method in ("io_uring", "pread"):
                case = f"{megabytes}M, {threads} threads, {method}"
                got = answer(budget, "--memory", str(budget), "-t", threads, "--read-method", method)
                if not (whole and got):
                    continue
                if got["tokens"] != whole["tokens"]:
                    failures.append(f"{case}: {got['text']!r} is not {whole['text']!r}")
                if got["memory"]["peak_bytes"] > budget:
                    failures.append(f"{case}: peak {got['memory']['peak_bytes']}")
                if got["io"]["give_backs"]:
                    failures.append(f"{case}: weights were given back, though nobody else wants memory")
                mine, kernel = got["io"]["bytes_read"], got["kernel_bytes"]
                # The program's own pages and the tokenizer are read too: at most some megabytes.
                if not 0.98 * mine <= kernel <= 1.02 * mine + 8e6:
                    failures.append(f"{case}: {mine} bytes read, the kernel counts {kernel}")
                print(f"{case}: peak {got['memory']['peak_bytes'] / 1e6:.1f} MB, read "
                      f"{mine / 1e6:.1f} MB (kernel {kernel / 1e6:.1f} MB)")
finally:
    group.remove()
for failure in failures:
    print("FAILED:", failure)
sys.exit(1 if failures or not whole else 0)
PYTHON
python3 "$folder/check.py" "$program" "$PI2_TEST_MODEL" "$folder" "$(dirname "$0")/../../bench"
code=$?
exit $code
