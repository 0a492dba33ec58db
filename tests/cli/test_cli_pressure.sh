#!/bin/sh
# Goal:   a neighbour that takes the memory of our control group, and a limit that is lowered while a run
#         goes on, kill nobody: weights are given back, and the text is that of the undisturbed run, dense
#         and with experts. (That weights return is test_memory_relief's: a fast run ends before.)
#         A group below ours that lacks memory of its own limit takes none from us.
# Method: a synthetic model in a version 1 memory group. The neighbour takes memory, and the limit sinks, as
#         far as there is room: how fast is then no question, and beside --keep-memory one of them fails. Waits
#         are of the run's own processor time, so that a busy machine changes nothing, and what is disturbed is
#         ended when it has gone on for a while: its text is the beginning of the undisturbed one's.
. "$(dirname "$0")/cli_support.sh"
skip() {
    echo "SKIPPED: $*"
    exit 77
}
[ "$(id -u)" = 0 ] || skip "a memory cgroup needs root"
[ "${PI2_TEST_PRESET:-release}" = release ] || skip "a sanitizer's memory fits no budget"
command -v python3 >/dev/null || skip "no python3"

expect 0 synth --layers 22 --embedding 1024 --ffn 4096 --heads 8 --vocab 4000 --tied -o "$folder/dense.gguf" -q
expect 0 synth --architecture qwen3moe --layers 10 --embedding 1024 --heads 8 --vocab 4000 --tied --experts 16 \
    --experts-used 4 --expert-ffn 768 -o "$folder/experts.gguf" -q
for name in dense experts; do expect 0 prepare -m "$folder/$name.gguf" -o "$folder/$name.pi2" -q; done

cat >"$folder/check.py" <<'PYTHON'
import contextlib, json, os, signal, subprocess, sys, time
program, folder, comparison = sys.argv[1:]
sys.dont_write_bytecode = True
sys.path.insert(0, comparison)
from comparison import machine

def skip(text):
    print("SKIPPED:", text)
    sys.exit(77)

try:
    group = machine.MemoryGroup(f"powerinfer2-pressure-{os.getpid()}")
except (machine.CommandFailed, OSError) as error:
    skip(f"no memory cgroup can be made: {error}")
if group.version != 1:
    group.remove()
    skip("the memory controller is not of version 1")
failures = []
MB = 1000000
NEIGHBOUR = """import sys, time
def number(name):
    with open(sys.argv[1] + "/memory." + name) as file:
        return int(file.read())
def cached():
    with open(sys.argv[1] + "/memory.stat") as file:
        stat = dict(line.split() for line in file)
    return int(stat["total_inactive_file"]) + int(stat["total_active_file"])
taken, end = [], time.monotonic() + float(sys.argv[2])
while len(taken) < 100 and time.monotonic() < end:
    if number("limit_in_bytes") - number("usage_in_bytes") + cached() > 6500000:
        taken.append(bytearray(b"x") * 1000000)
    else:
        time.sleep(0.005)
time.sleep(0.3)
sys.exit(0 if len(taken) == 100 else 3)
"""

def enter():
    with open(os.path.join(group.folder, "cgroup.procs"), "w", encoding="ascii") as procs:
        procs.write(str(os.getpid()))

def start(command):
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=enter)

def usage():
    """Bytes of the group that cannot be dropped: the files of a neighbour that ended stay charged to it."""
    with open(os.path.join(group.folder, "memory.usage_in_bytes"), encoding="ascii") as file:
        used = int(file.read())
    with open(os.path.join(group.folder, "memory.stat"), encoding="ascii") as file:
        stat = dict(line.split() for line in file)
    return used - int(stat["total_inactive_file"]) - int(stat["total_active_file"])

def computed(process):
    """Seconds of its threads."""
    try:
        with open(f"/proc/{process.pid}/stat", encoding="ascii") as file:
            fields = file.read().rsplit(")", 1)[1].split()
    except OSError:
        return 0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

def let_compute(process, seconds):
    until, end = computed(process) + seconds, time.monotonic() + 20
    while process.poll() is None and time.monotonic() < end and computed(process) < until:
        time.sleep(0.01)

def run(model, threads, *options):
    tokens = {"dense": "300", "experts": "600"}[model]
    return start([program, "run", "-m", os.path.join(folder, model + ".pi2"), "-c", "1024", "-n", tokens,
                  "--temp", "0", "--ignore-eos", "--draft-max", "0", "-t", threads, "-p",
                  "the of and a in is it you that he was for on are with as i his they be at " * 6, "--json",
                  *options])

def finish(name, process, want=None, ends=True):
    """ends: here, after what it has; want: the undisturbed run, whose tokens it has so far."""
    if ends:
        process.send_signal(signal.SIGINT)
    try:
        out, err = process.communicate(timeout=100)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        failures.append(f"{name}: it hangs")
        return None
    if process.returncode not in ((0, 130) if ends else (0,)):
        failures.append(f"{name}: exit code {process.returncode}: {err.decode()[-300:]}")
        return None
    got = json.loads(out)
    io = got["io"]
    print(f"{name}: given back {io['bytes_given_back'] / 1e6:.1f} MB in {io['give_backs']} steps, taken again "
          f"{io['bytes_taken_again'] / 1e6:.1f} MB, {len(got['tokens'])} tokens")
    if want and (not got["tokens"] or got["tokens"] != want["tokens"][:len(got["tokens"])]):
        failures.append(f"{name}: other tokens")
    return got

def settled(process):
    """Waits until the run holds its weights: until its memory has stopped to grow."""
    end, last, since = time.monotonic() + 30, 120 * MB, None
    while process.poll() is None and time.monotonic() < end and (since is None or computed(process) < since + 0.4):
        time.sleep(0.02)
        if usage() > last + MB:
            last, since = usage(), computed(process)

def beside_neighbour(name, model, want, *options):
    kills = group.kills()
    group.limit(260 * MB)
    process = run(model, "1", "--memory", "225M", *options)
    settled(process)
    neighbour = start([sys.executable, "-c", NEIGHBOUR, group.folder, "40" if want else "4"])
    neighbour.communicate()
    is_served = neighbour.returncode == 0 and process.poll() is None # while the run went on
    let_compute(process, 0.3)
    got = finish(name, process, want)
    if group.kills() != kills:
        failures.append(f"{name}: somebody was killed")
    return got, is_served

def under_lowered_limit(name, model, want):
    kills = group.kills()
    group.limit(260 * MB)
    process = run(model, "1", "--memory", "225M")
    settled(process)
    target, limit = 130 * MB, 260 * MB
    path = os.path.join(group.folder, "memory.limit_in_bytes")
    end = time.monotonic() + 30
    while limit > target and process.poll() is None and time.monotonic() < end:
        lower = max(target, limit - 8 * MB, usage() + 4 * MB)
        if lower < limit:
            with contextlib.suppress(OSError):
                machine.MemoryGroup._write(path, str(lower))
                limit = lower
        let_compute(process, 0.08)
    if limit > target and process.poll() is None:
        failures.append(f"{name}: the limit stays at {limit}")
    let_compute(process, 0.5)
    group.limit(260 * MB)
    got = finish(name, process, want)
    if group.kills() != kills:
        failures.append(f"{name}: somebody was killed")
    return got

def above_one_that_runs_out(name):
    """Groups below ours with limits of their own: what they lack is no lack of ours."""
    below = os.path.join(group.folder, "below")
    group.limit(None)
    process = run("dense", "1", "--memory", "225M")
    settled(process)
    os.mkdir(below)
    with open(os.path.join(below, "memory.limit_in_bytes"), "w", encoding="ascii") as file:
        file.write("20000000")
    command = 'echo $$ >"$1/cgroup.procs" && exec "$2" -c "bytes(range(256)) * 200000"'
    for _ in range(4):
        subprocess.run(["sh", "-c", command, "sh", below, sys.executable], check=False, timeout=30)
    got = finish(name, process)
    os.rmdir(below)
    if got and got["io"]["give_backs"]:
        failures.append(f"{name}: weights were given back without need")

try:
    for model in ("dense", "experts"):
        group.limit(None)
        want = finish(f"{model}, undisturbed", run(model, "2"), ends=False)
        if not want:
            continue
        if want["io"]["give_backs"]:
            failures.append(f"{model}: weights were given back without need")
        got, is_served = beside_neighbour(f"{model}, beside a neighbour", model, want)
        if not is_served:
            failures.append(f"{model}: the neighbour did not get its memory")
        if got and not got["io"]["give_backs"]:
            failures.append(f"{model}: beside a neighbour: {got['io']}")
        got = under_lowered_limit(f"{model}, under a lowered limit", model, want)
        if got and not got["io"]["give_backs"]:
            failures.append(f"{model}: under a lowered limit: {got['io']}")
    above_one_that_runs_out("dense, above a group that runs out")
    before = len(failures)
    got, is_served = beside_neighbour("experts, --keep-memory", "experts", None, "--keep-memory")
    is_beaten = not is_served or len(failures) > before
    del failures[before:] # the run was killed, or the neighbour
    if not is_beaten or (got and got["io"]["give_backs"]):
        failures.append("--keep-memory: both went on, so this test shows nothing")
finally:
    group.remove()
for failure in failures:
    print("FAILED:", failure)
sys.exit(1 if failures else 0)
PYTHON
python3 "$folder/check.py" "$program" "$folder" "$(dirname "$0")/../../bench"
code=$?
[ "$failures" = 0 ] || exit 1
exit $code
