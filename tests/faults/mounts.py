"""Disks of their own: a tmpfs whose size and mode can be changed while it is in use, and a folder with a quota."""

import contextlib
import os
import shutil
import subprocess

import pytest


@contextlib.contextmanager
def mounted(path, size):
    """A disk of so many bytes; the test is skipped where none may be mounted."""
    path.mkdir()
    done = _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", path)
    if done.returncode != 0:
        pytest.skip(f"a tmpfs cannot be mounted: {done.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def remount(path, options):
    """Change it; whether that was allowed. Its size cannot become smaller than what it holds."""
    return _mount("-o", f"remount,{options}", path).returncode == 0


@contextlib.contextmanager
def with_quota(path, size):
    """A folder that may hold so many bytes of a disk with room for more; the test is skipped where there is none.

    That is a subvolume of btrfs, whose quotas need neither users nor more than a usual kernel.
    """
    tool = shutil.which("mkfs.btrfs")
    if tool is None:
        pytest.skip("a quota needs mkfs.btrfs, which is not installed")
    image, disk = path.with_name(f"{path.name}.image"), path.with_name(f"{path.name}.disk")
    image.touch()
    os.truncate(image, 256 << 20)
    disk.mkdir()
    subprocess.run([tool, "-q", image], check=True, capture_output=True)
    done = _mount("-o", "loop", image, disk)
    if done.returncode != 0:
        pytest.skip(f"a disk with quotas cannot be mounted: {done.stderr.strip()}")
    try:
        subprocess.run(["btrfs", "quota", "enable", disk], check=True, capture_output=True)
        subprocess.run(["btrfs", "subvolume", "create", disk / "limited"], check=True, capture_output=True)
        assert limit(disk / "limited", size)
        yield disk / "limited"
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def limit(path, size):
    """Change its quota; whether that was allowed."""
    done = subprocess.run(["btrfs", "qgroup", "limit", str(size), path], capture_output=True)
    return done.returncode == 0


def used(path):
    """Bytes of the files in it."""
    return sum(file.stat().st_blocks * 512 for file in path.rglob("*") if file.is_file())


def _mount(*arguments):
    return subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True)
