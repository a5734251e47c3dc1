"""Disks of their own: a tmpfs whose size and mode can be changed while it is in use."""

import contextlib
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


def used(path):
    """Bytes of the files in it."""
    return sum(file.stat().st_blocks * 512 for file in path.rglob("*") if file.is_file())


def _mount(*arguments):
    return subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True)
