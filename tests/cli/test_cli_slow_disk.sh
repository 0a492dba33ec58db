#!/bin/sh
# Goal:   a disk throttled to 500 MB/s (UFS at random) and 250 MB/s (eMMC), and one that stalls for
#         seconds, change nothing of the text; the throttle is not passed; a stall is told with file and
#         offset, and waited for. Both read methods. A machine profile that is measured under the throttle
#         knows no faster disk, although the throttle lets short bursts pass.
# Method: a synthetic model in a blkio group of version 1; for the stall the throttle falls to 4 KB/s while
#         the run goes on, and is lifted once the run has told it.
. "$(dirname "$0")/cli_support.sh"
skip() {
    echo "SKIPPED: $*"
    exit 77
}
[ "$(id -u)" = 0 ] || skip "a blkio cgroup needs root"
[ "${PI2_TEST_PRESET:-release}" = release ] || skip "a sanitizer's memory fits no budget"
[ -d /sys/fs/cgroup/blkio ] || skip "no blkio controller of version 1"
command -v python3 >/dev/null || skip "no python3"

expect 0 synth --layers 12 --embedding 1024 --ffn 4096 --heads 8 --vocab 4000 --tied -o "$folder/model.gguf" -q
expect 0 prepare -m "$folder/model.gguf" -o "$folder/model.pi2" -q

cat >"$folder/check.py" <<'PYTHON'
import json, os, subprocess, sys, threading, time
program, folder = sys.argv[1:]
cluster = os.path.join(folder, "model.pi2")

def skip(text):
    print("SKIPPED:", text)
    sys.exit(77)

device = os.stat(cluster).st_dev
link = os.path.realpath(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
if os.path.exists(os.path.join(link, "partition")):  # a partition is throttled by its disk
    link = os.path.dirname(link)
if not os.path.exists(os.path.join(link, "dev")):
    skip(f"{folder} lies on no block device")
with open(os.path.join(link, "dev"), encoding="ascii") as file:
    disk = file.read().strip()
group = f"/sys/fs/cgroup/blkio/powerinfer2-slow-{os.getpid()}"
try:
    os.mkdir(group)
except OSError as error:
    skip(f"no blkio cgroup can be made: {error}")
failures = []

def throttle(rate):  # bytes a second; 0: none
    with open(os.path.join(group, "blkio.throttle.read_bps_device"), "w", encoding="ascii") as file:
        file.write(f"{disk} {rate}")

def enter():
    with open(os.path.join(group, "cgroup.procs"), "w", encoding="ascii") as procs:
        procs.write(str(os.getpid()))

def command(tokens, *options):
    return [program, "run", "-m", cluster, "-c", "128", "-n", str(tokens), "--temp", "0", "--ignore-eos",
            "--draft-max", "0", "--raw", "-p", "bako mirena", "--json", *options]

def value(case, done, want):
    if done.returncode:
        failures.append(f"{case}: exit code {done.returncode}: {done.stderr[-400:]}")
        return None
    got = json.loads(done.stdout)
    if got["tokens"] != want[:len(got["tokens"])]:
        failures.append(f"{case}: other tokens")
    return got

def check_rate(rate, method, budget, want):
    throttle(rate)
    begin = time.monotonic()
    done = subprocess.run(command(8, "--memory", str(budget), "--read-method", method), capture_output=True,
                          text=True, preexec_fn=enter, timeout=120)
    seconds = time.monotonic() - begin
    case = f"{rate // 1000000} MB/s, {method}"
    got = value(case, done, want)
    if not got:
        return
    read = got["io"]["bytes_read"]
    if got["io"]["read_method"] != method:
        skip(f"{folder} cannot be read with {method}")
    # Slices of 100 ms may be used in advance; whoever passes the throttle reads beside it.
    if read > rate * (seconds + 0.5) or read < 2 * os.path.getsize(cluster):
        failures.append(f"{case}: {read} bytes in {seconds:.2f} s")
    print(f"{case}: {read / 1e6:.0f} MB in {seconds:.2f} s")

def check_profile(rate):
    throttle(rate)
    subprocess.run([program, "machine", "-m", cluster, "--quick", "--force", "-q", "--profile",
                    os.path.join(folder, "machine.profile")], preexec_fn=enter, timeout=120, check=True)
    shown = json.loads(subprocess.run([program, "machine", "--json", "-q", "--profile",
                                       os.path.join(folder, "machine.profile")], capture_output=True, text=True,
                                      timeout=60, check=True).stdout)
    speeds = [item["value"] for item in shown["measurements"] if item["what"] == "disk"]
    print(f"{rate // 1000000} MB/s: {len(speeds)} disk speeds of the profile, up to {max(speeds) / 1e6:.0f} MB/s")
    if not speeds or max(speeds) > 1.5 * rate:
        failures.append(f"{rate // 1000000} MB/s: the profile says {max(speeds) / 1e6:.0f} MB/s")

def check_stall(method, budget, want):
    throttle(40000000)
    run = subprocess.Popen(command(8, "--memory", str(budget), "--read-method", method), stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, text=True, preexec_fn=enter)
    guard = threading.Timer(60, run.kill)
    guard.start()
    time.sleep(0.5)
    throttle(4096)
    told = ""
    for line in run.stderr:
        told += line
        if cluster in line and " s" in line:
            break
    throttle(0)
    output, rest = run.communicate()
    guard.cancel()
    done = subprocess.CompletedProcess(run.args, run.returncode, output, told + rest)
    if value(f"stall, {method}", done, want) and (cluster not in told or "byte" not in told):
        failures.append(f"stall, {method}: nothing tells it: {told + rest}")
    print(f"stall, {method}: {told.strip()}")

try:
    done = subprocess.run(command(8), capture_output=True, text=True, timeout=120)
    whole = value("in memory", done, json.loads(done.stdout)["tokens"])
    least = whole["memory"]["peak_bytes"] - 60000000
    check_profile(250000000)
    for method in ("io_uring", "pread"):
        for rate in (500000000, 250000000):
            check_rate(rate, method, least, whole["tokens"])
        check_stall(method, least, whole["tokens"])
finally:
    os.rmdir(group)
for failure in failures:
    print("FAILED:", failure)
sys.exit(1 if failures else 0)
PYTHON
python3 "$folder/check.py" "$program" "$folder"
code=$?
[ "$failures" = 0 ] || code=1
exit $code
