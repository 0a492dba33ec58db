"""The engines compared: how each is set up, and one run of each under a memory group."""
import json
import os
import re
import subprocess

from .machine import CommandFailed, call

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


class Engine:
    """One engine in one configuration; `measure` gives samples of tokens per second."""

    def __init__(self, name, file):
        self.name, self.file = name, file

    def command(self, test):
        raise NotImplementedError

    def parse(self, stdout):
        """The record of llama-bench's JSON (and ours): one object a test."""
        return json.loads(stdout[stdout.index("["):])[-1]

    def measure(self, group, test, limit, timeout):
        group.limit(limit)
        result = group.run(self.command(test), timeout)
        record = {"engine": self.name, "outcome": result["outcome"], "peak": result["peak"],
                  "max_rss": result["max_rss"], "process_bytes_read": result["bytes_read"],
                  "seconds": result["seconds"]}
        if result["outcome"] == "ok":
            try:
                parsed = self.parse(result["stdout"])
                record["tokens_per_second"] = parsed["samples_ts"][-1]
                for key in ("bytes_per_token", "hit_rate", "peak_bytes"):
                    if key in parsed:
                        record[key] = parsed[key]
            except (ValueError, KeyError, IndexError) as error:
                record["outcome"] = f"unreadable output ({error})"
        elif result["outcome"] == "failed":
            record["why"] = result["stderr"].strip().splitlines()[-1:]
        return record


def test_arguments(test):
    """llama-bench's flags of one test: {"kind": "prefill" or "decode", "tokens"}."""
    if test["kind"] == "prefill":
        return ["-p", str(test["tokens"]), "-n", "0"]
    return ["-p", "0", "-n", str(test["tokens"])]


class LlamaBench(Engine):
    """llama-bench inside the Debian folder; the model's folder is mounted for it alone."""

    def __init__(self, name, file, root, options, threads):
        super().__init__(name, file)
        self.root, self.options, self.threads = root, options, threads

    def command(self, test):
        folder, name = os.path.split(self.file)
        script = ('mount --bind "$1" "$0/mnt" && mount -t proc proc "$0/proc" && '
                  'root=$0 && shift && exec chroot "$root" "$@"')
        # A batch no longer than the prompt: its buffers then leave more memory to the page cache.
        size = str(test["tokens"] if test["kind"] == "prefill" else 64)
        batch = ["-b", size, "-ub", size]
        return ["unshare", "--mount", "sh", "-c", script, self.root, folder, "llama-bench",
                "-m", f"/mnt/{name}", "-t", str(self.threads), "-r", "1", "-o", "json",
                *batch, *test_arguments(test), *self.options]


class IkBench(Engine):
    """ik_llama.cpp's llama-bench, built by the reader; run where it lies."""

    def __init__(self, name, file, program, options, threads):
        super().__init__(name, file)
        self.program, self.options, self.threads = program, options, threads

    def command(self, test):
        return [self.program, "-m", self.file, "-t", str(self.threads), "-r", "1", "-o", "json",
                *test_arguments(test), *self.options]


class PowerInfer2(Engine):
    """This project's bench command, within --memory."""

    def __init__(self, file, program, threads, memory):
        super().__init__("powerinfer2", file)
        self.program, self.threads, self.memory = program, threads, memory

    def command(self, test):
        budget = ["--memory", str(self.memory), "-c", str(test["context"])] if self.memory else []
        return [self.program, "bench", "-m", self.file, "-t", str(self.threads), "-r", "1",
                "-o", "json", *test_arguments(test), *budget]


def prepare(program, model, folder):
    """Writes the cluster file of `model` once; returns its path."""
    target = os.path.join(folder, re.sub(r"\.gguf$", "", os.path.basename(model)) + ".pi2")
    if not os.path.exists(target):
        print(f"preparing {os.path.basename(target)}", flush=True)
        done = subprocess.run([program, "prepare", "-m", model, "-o", target],
                              stdin=subprocess.DEVNULL, check=False)
        if done.returncode:
            raise CommandFailed(f"powerinfer2 prepare failed on {model}")
    return target
