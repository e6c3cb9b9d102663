"""Small disks of our own, for root: an ext4 in a file, whose power can be cut, and one of memory, which gets full."""

import contextlib
import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

from benchmarks.faults.harness import Skipped

SHUTDOWN = 0x8004587D
"""FS_IOC_SHUTDOWN of Linux (EXT4_IOC_SHUTDOWN): the file system stops as if the machine had."""

WITHOUT_LOG = 2
"""What is in memory, the journal included, does not get to the disk."""


def _run(*command: str | Path) -> None:
    program = shutil.which(str(command[0]), path=f"{os.environ.get('PATH', '')}:/sbin:/usr/sbin")
    if program is None:
        raise Skipped(f"no program {command[0]} here")
    done = subprocess.run([program, *map(str, command[1:])], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Skipped(f"{command[0]} failed: {done.stderr.strip()[-200:]}")


class PowerCut:
    """An ext4 file system in a file, mounted on a folder, whose power can be cut."""

    def __init__(self, folder: Path, megabytes: int = 128) -> None:
        if os.geteuid():
            raise Skipped("needs root, to mount a file system")
        self.image, self.at = folder / "disk.img", folder / "disk"
        self.at.mkdir()
        with self.image.open("wb") as file:
            file.truncate(megabytes << 20)
        _run("mkfs.ext4", "-q", "-F", self.image)

    def mount(self) -> None:
        """Mount it; the journal is replayed."""
        _run("mount", "-o", "loop", self.image, self.at)

    def unmount(self) -> None:
        """Unmount it."""
        _run("umount", self.at)

    def cut(self) -> None:
        """Cut the power."""
        descriptor = os.open(self.at, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, SHUTDOWN, struct.pack("I", WITHOUT_LOG))
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def memory_disk(folder: Path, n_bytes: int) -> Iterator[Path]:
    """Mount a file system of memory of so many bytes on a new folder; see `grow`."""
    if os.geteuid():
        raise Skipped("needs root, to mount a file system")
    folder.mkdir()
    _run("mount", "-t", "tmpfs", "-o", f"size={n_bytes}", "tmpfs", folder)
    try:
        yield folder
    finally:
        _run("umount", folder)


def grow(folder: Path, n_bytes: int) -> None:
    """Give a file system of memory another size."""
    _run("mount", "-o", f"remount,size={n_bytes}", folder)


def unmount_below(folder: Path) -> None:
    """Unmount what a test that was killed has left mounted."""
    mounts = Path("/proc/mounts")
    lines = mounts.read_text().splitlines() if mounts.exists() else []
    for at in (line.split()[1] for line in reversed(lines)):
        if Path(at).is_relative_to(folder):
            _run("umount", "-l", at)
