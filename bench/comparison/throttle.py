"""A disk that reads no faster than a given rate, for the processes of one group (cgroup version 1, blkio; root)."""
import os


def disk_of(path):
    """MAJOR:MINOR of the disk that a file lies on: a partition is throttled by its disk."""
    device = os.stat(path).st_dev
    link = os.path.realpath(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
    if os.path.exists(os.path.join(link, "partition")):
        link = os.path.dirname(link)
    with open(os.path.join(link, "dev"), encoding="ascii") as file:
        return file.read().strip()


class DiskGroup:
    """A context manager: `set_rate` bounds what processes that called `enter` read from the disk of `path`."""

    def __init__(self, path):
        self.disk = disk_of(path)
        self.folder = f"/sys/fs/cgroup/blkio/powerinfer2-throttle-{os.getpid()}"

    def _write(self, name, text):
        with open(os.path.join(self.folder, name), "w", encoding="ascii") as file:
            file.write(text)

    def __enter__(self):
        os.mkdir(self.folder)
        return self

    def __exit__(self, *_):
        os.rmdir(self.folder)

    def set_rate(self, bytes_a_second):
        """0: as fast as the disk is."""
        self._write("blkio.throttle.read_bps_device", f"{self.disk} {int(bytes_a_second)}")

    def enter(self):
        """In a child between fork and exec (preexec_fn)."""
        self._write("cgroup.procs", str(os.getpid()))
