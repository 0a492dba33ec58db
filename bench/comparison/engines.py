"""The engines compared: how each is set up, and one run of each under a memory group."""
import csv
import json
import os
import subprocess

from . import routing
from .machine import CommandFailed, call, drop_from_page_cache

PACKAGES = "llama.cpp-tools,llama.cpp-tools-extra"


def debian_mirror():
    """The Debian mirror that this machine's own apt uses."""
    lines = call("apt-get", "indextargets", "--format", "$(SITE)|$(ORIGIN)|$(RELEASE)",
                 "Created-By: Packages").splitlines()
    for line in lines:
        site, origin, release = line.split("|")
        if origin == "Debian" and "security" not in release:
            return site
    raise CommandFailed("apt knows no Debian mirror; run apt-get update, or give --mirror")


def set_up_llama(root, mirror):
    """Debian sid with llama.cpp's packages below `root`, made once."""
    if os.path.exists(os.path.join(root, "usr/bin/llama-bench")):
        return
    if os.geteuid() != 0:
        raise CommandFailed("setting up llama.cpp needs root (debootstrap); "
                            "or give a folder that has it with --llama-root")
    os.makedirs(root, exist_ok=True)
    print(f"setting up llama.cpp from Debian sid in {root} (some minutes)", flush=True)
    # An archived mirror's release file may have passed its date, so the packages come second.
    call("debootstrap", "--variant=minbase", "sid", root, mirror or debian_mirror())
    fresh = "Acquire::Check-Valid-Until=false"
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    for command in (["update"], ["install", "-y", "--no-install-recommends", *PACKAGES.split(",")]):
        call("chroot", root, "apt-get", "-q", "-o", fresh, *command, env=environment)


def llama_version(root):
    fields = call("chroot", root, "dpkg-query", "-W", "-f", "${Package} ${Version}\n",
                  "llama.cpp-tools", "libggml0")
    return ", ".join(fields.split("\n")[:2])


DECODE_BATCH = 64  # tokens of a batch, of both engines, where decoding is measured
REPACKED_TYPES = {2, 20, 12}  # Q4_0, IQ4_NL, Q4_K: what ggml rearranges on x86 for certain


class Engine:
    """One engine in one configuration; `measure` gives one record of tokens per second."""

    def __init__(self, name, file):
        self.name, self.file = name, file
        self.family = name.split(" ")[0].rstrip(",")

    def command(self, test):
        raise NotImplementedError

    def parse(self, stdout):
        """The record of llama-bench's JSON (and ours): one object a test."""
        return json.loads(stdout[stdout.index("["):])[-1]

    def before(self):
        """What must be set before a run of this configuration."""
        drop_from_page_cache(self.file)

    def certain_failure(self):
        """Why this configuration cannot run within the limit; None where it may."""
        return None

    def timed_part(self):
        """A regular expression that stderr matches when the timed part begins; None: unknown."""
        return None

    def fill(self, record, parsed, test):
        """Puts what an engine tells beyond its speed into the record."""

    def measure(self, group, test, limit, timeout, caps=None):
        """caps: (seconds until the timed part, seconds of it), for a run that is stopped early."""
        self.before()
        group.limit(limit)
        timed_part = self.timed_part()
        if caps and not timed_part:
            timeout = min(timeout, sum(caps))
        result = group.run(self.command(test), timeout,
                           timed_part=(timed_part, *caps) if caps and timed_part else None)
        record = {"engine": self.name, "outcome": result["outcome"], "peak": result["peak"],
                  "max_rss": result["max_rss"], "process_bytes_read": result["bytes_read"],
                  "seconds": result["seconds"], "tokens": test["tokens"]}
        if result["outcome"] == "ok":
            try:
                parsed = self.parse(result["stdout"])
                record["tokens_per_second"] = parsed["samples_ts"][-1]
                self.fill(record, parsed, test)
            except (ValueError, KeyError, IndexError) as error:
                record["outcome"] = f"unreadable output ({error})"
        elif result["outcome"] == "failed":
            record["why"] = result["stderr"].strip().splitlines()[-1:]
        elif result["outcome"] == "timeout" and result.get("timed_seconds"):
            record["slower_than"] = test["tokens"] / result["timed_seconds"]
        return record


def test_arguments(test):
    """llama-bench's flags of one test."""
    if test["kind"] == "prefill":
        return ["-p", str(test["tokens"]), "-n", "0"]
    return ["-p", "0", "-n", str(test["tokens"])]


class LlamaBench(Engine):
    """llama-bench inside the Debian folder; the model's folder is mounted for it alone.

    device  machine.LoopImage whose read-ahead is set before each run, or None
    needs   bytes that this configuration holds beside the page cache, for certain"""

    def __init__(self, name, file, root, options, threads, device=None, read_ahead=None,
                 needs=0, limit=None):
        super().__init__(name, file)
        self.root, self.options, self.threads = root, options, threads
        self.device, self.read_ahead = device, read_ahead
        self.needs, self.limit = needs, limit

    def before(self):
        if self.device:
            self.device.set_read_ahead(self.read_ahead)
        super().before()

    def certain_failure(self):
        if self.limit and self.needs > self.limit:
            return f"its own copy of the weights ({self.needs / 1e9:.2f} GB) exceeds the limit"
        return None

    def timed_part(self):
        return r"benchmark 1/1: (generation|prompt) run 1/1"

    def command(self, test):
        folder, name = os.path.split(self.file)
        script = ('mount --bind "$1" "$0/mnt" && mount -t proc proc "$0/proc" && '
                  'root=$0 && shift && exec chroot "$root" "$@"')
        # A batch no longer than the prompt: its buffers then leave more memory to the page cache.
        size = str(test["tokens"] if test["kind"] == "prefill" else DECODE_BATCH)
        batch = ["-b", size, "-ub", size]
        depth = ["-d", str(test["depth"])] if test["depth"] else []
        return ["unshare", "--mount", "sh", "-c", script, self.root, folder, "llama-bench",
                "-m", f"/mnt/{name}", "-t", str(self.threads), "-r", "1", "-o", "json",
                "--progress", *([] if test["warm_up"] else ["--no-warmup"]),
                *batch, *test_arguments(test), *depth, *self.options]


class IkBench(Engine):
    """ik_llama.cpp's llama-bench, built by the reader; run where it lies. It knows no depth, and
    its weights are there before its first run."""

    def __init__(self, name, file, program, options, threads):
        super().__init__(name, file)
        self.program, self.options, self.threads = program, options, threads

    def command(self, test):
        return [self.program, "-m", self.file, "-t", str(self.threads), "-r", "1", "-o", "json",
                "-w", "1" if test["warm_up"] else "0", *test_arguments(test), *self.options]


class PowerInfer2(Engine):
    """This project's bench command, within --memory.

    extra     further options, as an ablation gives them
    folder    where the table of tokens and the recorded routing go; None: neither is written,
              since small models lose a per cent by it"""

    def __init__(self, file, program, threads, memory, name="powerinfer2", extra=(), folder=None,
                 has_experts=False):
        super().__init__(name, file)
        self.program, self.threads, self.memory = program, threads, memory
        self.extra, self.folder, self.has_experts = list(extra), folder, has_experts
        self.routing_trace = None  # of an earlier run, for predictions
        self.statistics = None     # of a sparse model's neurons, for predictions

    def _path(self, name):
        return os.path.join(self.folder, name)

    def command(self, test):
        budget = ["--memory", str(self.memory), "-c", str(test["context"])] if self.memory else []
        # What the other engine's batch is, too: what its buffers do not take holds weights.
        if self.memory and test["kind"] == "decode":
            budget += ["-b", str(DECODE_BATCH)]
        depth = ["-d", str(test["depth"])] if test["depth"] else []
        written = ["--stats", self._path("stats.csv")] if self.folder else []
        if self.folder and self.has_experts:
            written += ["--record-trace", self._path("uses.trace")]
        if self.routing_trace:
            # For predictions alone: no engine begins with what an earlier run has shown.
            written += ["--routing-trace", self.routing_trace, "--hot-share", "0"]
        if self.statistics:
            written += ["--statistics", self.statistics]
        return [self.program, "bench", "-m", self.file, "-t", str(self.threads), "-r", "1",
                "-o", "json", *([] if test["warm_up"] else ["--no-warmup"]),
                *test_arguments(test), *depth, *budget, *written, *self.extra]

    def fill(self, record, parsed, test):
        for key in ("bytes_per_token", "hit_rate", "expert_hit_rate", "peak_bytes",
                    "predicted_ts"):
            if parsed.get(key) is not None:
                record[key] = parsed[key]
        if not self.folder:
            return
        if test["kind"] == "decode":
            record["token_ms"] = token_times(self._path("stats.csv"), test["tokens"])
        elif self.has_experts:
            uses = routing.read_trace(self._path("uses.trace"))
            record["experts_in_batch"] = routing.experts_of_prompt(uses, test["tokens"])


def token_times(path, tokens):
    """Milliseconds of the last `tokens` passes of one token in a table of --stats."""
    with open(path, encoding="ascii", newline="") as file:
        rows = [float(row["total_ms"]) for row in csv.DictReader(file) if row["tokens"] == "1"]
    return [round(value, 3) for value in rows[-tokens:]]


def llama_candidates(files, limit, options, test):
    """Every configuration of llama.cpp that a case allows, and ik_llama.cpp's if given.

    files  models.ModelFiles; options has llama_root, ik, threads"""
    def engine(name, flags, path, needs, device=None, read_ahead=None):
        return LlamaBench("llama.cpp " + name, path, options.llama_root, flags, options.threads,
                          device, read_ahead, needs, limit)

    sizes = files.header.weights(0)
    everything = sizes["fixed_bytes"] + sizes["expert_bytes"] * sizes["experts"]
    copied = files.header.bytes_of_types(REPACKED_TYPES)
    if files.image_only:
        places = [(", the disk's read-ahead" if limit else "", files.gguf, files.image,
                   files.disk_read_ahead)]
    else:
        places = [("", files.gguf, None, None)]
    if limit:
        places += [(f", {kb} KB read-ahead" if kb < 1024 else f", {kb // 1024} MB read-ahead",
                    files.file_in_image, files.image, kb) for kb in files.read_aheads]
    own_place = places[0]
    if files.has_experts():
        places.reverse()  # what is likely fastest first: it bounds the others' time
    found = []
    for place, path, device, kb in places:
        found += [engine("mmap, not repacked" + place, ["-lm", "mmap", "--repack", "0"], path, 0,
                         device, kb),
                  engine("mmap, repacked" + place, ["-lm", "mmap", "--repack", "1"], path, copied,
                         device, kb)]
    _, path, device, kb = own_place
    found += [engine("direct I/O, repacked", ["-lm", "dio", "--repack", "1"], path, everything,
                     device, kb),
              engine("direct I/O, not repacked", ["-lm", "dio", "--repack", "0"], path, everything,
                     device, kb)]
    if options.ik and test["depth"] <= 1:
        for name, flags in (("", []), (" repacked", ["-rtr", "1"])):
            found.append(IkBench("ik_llama.cpp" + name, files.gguf,
                                 os.path.join(options.ik, "llama-bench"), flags, options.threads))
    return found


def prepare(program, model, target, statistics=None, extra=()):
    """Makes the cluster file of `model` if there is none, or an outdated one; returns its path.
    statistics: of its neurons, by which their places are chosen. extra: further options"""
    done = subprocess.run([program, "prepare", "-m", model, "-o", target, *extra,
                           *(["--statistics", statistics] if statistics else [])],
                          stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise CommandFailed(f"powerinfer2 prepare failed on {os.path.basename(model)}")
    return target
