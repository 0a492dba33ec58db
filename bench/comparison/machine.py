"""The machine: memory cgroups, the page cache, loop devices, and what the hardware can give."""
import atexit
import contextlib
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time


class CommandFailed(Exception):
    """A command of the set-up or of a probe failed; the text says which and how."""


def call(*command, **options):
    """Runs a command of the set-up and returns what it printed."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          check=False, **options)
    if done.returncode:
        raise CommandFailed(f"{' '.join(command)}: {done.stderr.strip()[-600:]}")
    return done.stdout


class PartBound:
    """Bounds of a run's two parts: until its stderr says that the timed part begins, and after."""

    def __init__(self, timed_part, begin):
        expression, self.before, self.after = timed_part
        self.expression = re.compile(expression)
        self.begin, self.began = begin, None

    def is_over(self, stderr, now):
        if self.began is None:
            size = os.fstat(stderr.fileno()).st_size
            text = os.pread(stderr.fileno(), 1 << 16, max(size - (1 << 16), 0))
            if self.expression.search(text.decode("utf-8", "replace")):
                self.began = now
        if self.began is None:
            return now - self.begin > self.before
        return now - self.began > self.after


class MemoryGroup:
    """A memory cgroup, of version 1 or 2, whose limit bounds one process and its page cache."""

    def __init__(self, name):
        own = {}
        with open("/proc/self/cgroup", encoding="ascii") as lines:
            for line in lines:
                _, controllers, path = line.rstrip("\n").split(":", 2)
                own[controllers] = path
        mounts = [line.split() for line in open("/proc/mounts", encoding="utf-8")]
        v1 = [m[1] for m in mounts if m[2] == "cgroup" and "memory" in m[3].split(",")]
        v2 = [m[1] for m in mounts if m[2] == "cgroup2"]
        self.version = 1 if v1 else 2
        if v1:
            parent = v1[0] + next(p for c, p in own.items() if "memory" in c.split(","))
            if not os.path.isdir(parent):
                parent = v1[0]
        elif v2:
            parent = v2[0] + own.get("", "/")
            # Processes may not sit in a group that passes controllers on, so use the root.
            if parent.rstrip("/") != v2[0]:
                parent = v2[0]
            with contextlib.suppress(OSError):
                self._write(os.path.join(parent, "cgroup.subtree_control"), "+memory")
        else:
            raise CommandFailed("no cgroup file system is mounted")
        self.folder = os.path.join(parent, name)
        os.makedirs(self.folder, exist_ok=True)

    @staticmethod
    def _write(path, text):
        with open(path, "w", encoding="ascii") as file:
            file.write(text)

    def _read(self, name):
        with open(os.path.join(self.folder, name), encoding="ascii") as file:
            return file.read()

    def limit(self, size):
        """Limits memory and page cache to `size` bytes (None: no limit), without swap."""
        if self.version == 1:
            text = str(size) if size else "-1"
            names = ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"]
            # The limit with swap may never be below the one without.
            for name in names + names:
                with contextlib.suppress(OSError):
                    self._write(os.path.join(self.folder, name), text)
            if size and int(self._read(names[0])) > size:
                raise CommandFailed(f"cannot limit {self.folder} to {size} bytes")
        else:
            self._write(os.path.join(self.folder, "memory.max"), str(size) if size else "max")
            with contextlib.suppress(OSError):
                self._write(os.path.join(self.folder, "memory.swap.max"), "0")

    def reset(self):
        """Gives back what the last process left in the page cache, and clears the peak."""
        if self.version == 1:
            with contextlib.suppress(OSError):
                self._write(os.path.join(self.folder, "memory.force_empty"), "0")
            with contextlib.suppress(OSError):
                self._write(os.path.join(self.folder, "memory.max_usage_in_bytes"), "0")

    def peak(self):
        with contextlib.suppress(OSError, ValueError):
            name = "memory.max_usage_in_bytes" if self.version == 1 else "memory.peak"
            return int(self._read(name))
        return None

    def kills(self):
        name = "memory.oom_control" if self.version == 1 else "memory.events"
        with contextlib.suppress(OSError):
            found = re.search(r"^oom_kill (\d+)", self._read(name), re.M)
            if found:
                return int(found.group(1))
        return 0

    def remove(self):
        for _ in range(20):
            try:
                os.rmdir(self.folder)
                return
            except OSError:
                time.sleep(0.1)

    def run(self, command, timeout, environment=None, timed_part=None):
        """Runs `command` inside the group. Returns a dict: outcome ("ok", "killed", "timeout",
        "failed"), stdout, stderr, seconds, bytes_read (from the disk, whole process), peak.

        timed_part is (regular expression, seconds before, seconds after): when the expression
        turns up on stderr, what is timed begins; each part has a bound of its own."""
        self.reset()
        kills_before = self.kills()
        inside = ["sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', self.folder, *command]
        begin = time.monotonic()
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            process = subprocess.Popen(inside, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                                       start_new_session=True, env=environment)
            timed_out = False
            bound = PartBound(timed_part, begin) if timed_part else None
            try:
                while True:
                    pid, status, usage = os.wait4(process.pid, os.WNOHANG)
                    if pid:
                        break
                    now = time.monotonic()
                    late = now - begin > timeout or (bound and bound.is_over(err, now))
                    if late and not timed_out:
                        timed_out = True
                        os.killpg(process.pid, signal.SIGKILL)
                    time.sleep(0.02)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                os.waitpid(process.pid, 0)
                raise
            process.returncode = os.waitstatus_to_exitcode(status)
            out.seek(0)
            err.seek(0)
            result = {"stdout": out.read(), "stderr": err.read()[-4000:],
                      "exit_status": process.returncode,
                      "seconds": round(time.monotonic() - begin, 3),
                      "bytes_read": usage.ru_inblock * 512, "peak": self.peak(),
                      "max_rss": usage.ru_maxrss * 1024}
        if bound and bound.began:
            result["timed_seconds"] = round(begin + result["seconds"] - bound.began, 3)
        if timed_out:
            result["outcome"] = "timeout"
        elif self.kills() > kills_before or process.returncode in (-9, 137):
            result["outcome"] = "killed"
        else:
            result["outcome"] = "failed" if process.returncode else "ok"
        return result


def drop_from_page_cache(*paths):
    """Drops clean pages of files; what was just written is flushed first."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def read_ahead_of(path):
    """KB of read-ahead of the disk that `path` lies on; None where the system does not tell."""
    number = os.stat(path).st_dev
    folder = f"/sys/dev/block/{os.major(number)}:{os.minor(number)}"
    for queue in ("queue", "../queue"):  # a partition's disk is the folder above
        with contextlib.suppress(OSError, ValueError):
            with open(os.path.join(folder, queue, "read_ahead_kb"), encoding="ascii") as file:
                return int(file.read())
    return None


class LoopImage:
    """An ext4 image on a loop device, whose read-ahead can be set without touching the machine's
    own disk. A context manager: mounted read-only inside, at `folder`."""

    def __init__(self, image, keep):
        self.image, self.keep = image, keep
        self.device = self.folder = None

    @staticmethod
    def make(image, size, fill):
        """Makes the image of `size` bytes; fill(folder) writes its files. Whole or not at all."""
        partial = image + ".partial"
        try:
            with open(partial, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, size)  # in one piece on the disk
            call("mkfs.ext4", "-q", "-m", "0", "-N", "16",
                 "-O", "^has_journal,^metadata_csum", "-E", "lazy_itable_init=0", partial)
            with LoopImage(partial, keep=True) as writable:
                call("mount", "-o", "remount,rw", writable.folder)
                fill(writable.folder)
            os.replace(partial, image)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(partial)

    @classmethod
    def copy_of(cls, path, folder):
        """A temporary image that holds a copy of `path`."""
        descriptor, image = tempfile.mkstemp(prefix="loop-", suffix=".ext4", dir=folder)
        os.close(descriptor)
        size = os.path.getsize(path)
        try:
            cls.make(image, size + size // 50 + (32 << 20), lambda to: shutil.copy(path, to))
        except BaseException:
            os.unlink(image)
            raise
        drop_from_page_cache(path)
        return cls(image, keep=False)

    def __enter__(self):
        try:
            # Flushed, since the loop device reads past the page cache.
            drop_from_page_cache(self.image)
            self.folder = tempfile.mkdtemp(prefix="loop-", dir=os.path.dirname(self.image))
            self.device = call("losetup", "--direct-io=on", "--find", "--show",
                               self.image).strip()
            call("mount", "-o", "ro", self.device, self.folder)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.folder and os.path.ismount(self.folder):
            subprocess.run(["umount", self.folder], check=False)
        if self.device:
            subprocess.run(["losetup", "--detach", self.device], check=False)
        if self.folder:
            os.rmdir(self.folder)
        self.folder = self.device = None
        if not self.keep:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.image)

    def set_read_ahead(self, kilobytes):
        """Holds for files that are opened from now on."""
        queue = f"/sys/block/{os.path.basename(self.device)}/queue/read_ahead_kb"
        with open(queue, "w", encoding="ascii") as file:
            file.write(str(kilobytes))


def disk_bandwidth(path, seconds=2):
    """Bytes per second that fio reads from `path`: io_uring, O_DIRECT, 1 MB, depth 16, into huge pages.

    In pages of 4 KB each read is 256 pieces of memory, which costs some disks half their speed.
    """
    huge_pages = {**os.environ, "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    text = call("fio", "--name=probe", f"--filename={path}", "--readonly", "--rw=read", "--bs=1M",
                "--ioengine=io_uring", "--iodepth=16", "--direct=1", "--time_based",
                f"--runtime={seconds}", "--output-format=json", env=huge_pages)
    return json.loads(text[text.index("{"):])["jobs"][0]["read"]["bw_bytes"]


def available_memory():
    """Bytes that a new process could have now."""
    with open("/proc/meminfo", encoding="ascii") as file:
        return int(re.search(r"^MemAvailable:\s*(\d+)", file.read(), re.M).group(1)) * 1024


def probe_cores(source, threads):
    """What machine_probe.c measures: memory bandwidth and int8 peak."""
    program = os.path.join(_probe_folder(), "machine_probe")
    if not os.path.exists(program):
        call("cc", "-std=c11", "-O3", "-march=native", "-pthread", source, "-o", program)
    return json.loads(call(program, str(threads)))


@functools.cache
def _probe_folder():
    folder = tempfile.mkdtemp(prefix="powerinfer2-probe-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def describe():
    """The machine in a few words, without names of hosts or folders."""
    text = open("/proc/cpuinfo", encoding="utf-8").read()
    found = re.search(r"^model name\s*:\s*(.*)$", text, re.M)
    name = found.group(1) if found else os.uname().machine
    family = re.search(r"^cpu family\s*:\s*(\d+)$", text, re.M)
    model = re.search(r"^model\s*:\s*(\d+)$", text, re.M)
    flags = set((re.search(r"^flags\s*:\s*(.*)$", text, re.M) or [None, ""])[1].split())
    sets = [label for flag, label in (("avx2", "AVX2"), ("avx_vnni", "AVX-VNNI"),
                                      ("avx512f", "AVX-512"),
                                      ("avx512_vnni", "AVX-512 VNNI")) if flag in flags]
    memory = int(re.search(r"^MemTotal:\s*(\d+)", open("/proc/meminfo").read(), re.M).group(1))
    return {"cpu": name, "family": int(family.group(1)) if family else None,
            "model": int(model.group(1)) if model else None, "instruction_sets": sets,
            "cores": os.cpu_count(), "memory_gb": round(memory / 1e6, 1),
            "kernel": os.uname().release.split("-")[0], "virtual": "hypervisor" in flags}
