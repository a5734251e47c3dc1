"""Everything at once: kills, signals, windows of a full disk and jumps of the clock, until the time is up.

    CHAOS_SECONDS=1800 pytest tests/faults/test_chaos.py -m slow -s

The space is so small that every architecture of it is evaluated, so the table does not depend on who was faster.
"""

import contextlib
import os
import random
import signal
import subprocess
import time
from collections import Counter

import command
import mounts
import pytest
from wall_clock import COMPILER, WallClock

SECONDS = float(os.environ.get("CHAOS_SECONDS", "120"))
GAP = 4.0
"""Seconds between two disturbances, on average, once candidates are trained."""
SPACE = "granularity: stage\nreduction: [4, 16]\n"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
ROOM = "400m"
SAME = ("key", "seed", "phase", "state", "error", "accuracy", "loss", "num_params", "epochs")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(4 * SECONDS + 3600)]


@pytest.fixture
def disk(tmp_path):
    with mounts.mounted(tmp_path / "disk", ROOM) as path:
        yield path


def rows_of(folder):
    rows = [{name: row[name] for name in SAME} for row in command.results(folder)]
    return sorted(rows, key=lambda row: (row["key"], row["seed"]))


class Chaos:
    """A search of four workers on a disk, and what befalls it."""

    def __init__(self, folder, disk, options, seconds):
        self.disk, self.options, self.seconds = disk, options, seconds
        self.counts, self.ends = Counter(), Counter()
        self.trained_by, self.log = folder / "trained-by", folder / "log"
        self.trained_by.mkdir()
        self.killed = Counter()
        self.clock = WallClock(folder) if COMPILER else None
        self.environment = {"TRAINED_BY": str(self.trained_by)}
        if self.clock is not None:
            self.environment |= self.clock.environment

    def start(self):
        self.killed.clear()
        with self.log.open("w") as errors:
            settings = {"seconds": self.seconds, "errors": errors, **self.environment}
            if (self.disk / "runs" / "run" / "manifest.json").exists():
                return command.start(self.disk, "resume", "runs/run", **settings)
            given = [word for name, value in self.options.items() for word in (f"--{name}", value)]
            return command.start(self.disk, "search", *given, **settings)

    def run(self, seconds):
        """Disturb the search for a time; it may end before."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            process = self.start()
            self.counts["starts"] += 1
            if random.random() < 0.8:
                self.wait_for_training(process, until)
            while process.poll() is None and time.monotonic() < until:
                time.sleep(random.expovariate(1 / GAP))
                self.disturb(process)
            if time.monotonic() >= until and process.poll() is None:
                process.kill()
            if self.ended(process) == 0:
                return

    def wait_for_training(self, process, until):
        while process.poll() is None and time.monotonic() < until:
            if command.trained(process, self.trained_by):
                return
            time.sleep(0.5)

    def ended(self, process):
        """The exit code; nothing but what the disturbances explain may have ended it."""
        code = process.wait()
        errors = self.log.read_text()
        assert "Traceback" not in errors, errors
        self.ends[code] += 1
        if code == 2:
            assert "cannot be written" in errors, errors
            assert "Make room on that disk." in errors, errors
        else:
            stopped = {sign * number for number in SIGNALS for sign in (1, -1)}
            assert code in {0, -signal.SIGKILL} or code % 128 in stopped or code in stopped, (code, errors)
        return code

    def disturb(self, process):
        kinds = {
            self.worker: 40,
            self.parent: 3,
            self.signal: 3,
            self.full_disk: 6,
            self.jump: 40 if COMPILER else 0,
        }
        [kind] = random.choices(list(kinds), list(kinds.values()))
        kind(process)

    def worker(self, process):
        before = self.killed.total()
        command.kill_a_worker(process, self.trained_by, self.killed)
        self.counts["workers killed"] += self.killed.total() - before

    def parent(self, process):
        self.counts["parents killed"] += 1
        process.kill()

    def signal(self, process):
        self.counts["signals"] += 1
        process.send_signal(random.choice(SIGNALS))

    def full_disk(self, process):
        self.counts["windows of a full disk"] += 1
        mounts.remount(self.disk, f"size={max(mounts.used(self.disk), 4096)}")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(random.uniform(1, 30))
        assert mounts.remount(self.disk, f"size={ROOM}")

    def jump(self, process):
        self.counts["jumps of the clock"] += 1
        self.clock.set(random.choice([-1, 1]) * random.choice([10, 3600, 86400, 400 * 86400]))


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="looks for processes in /proc")
def test_a_search_of_four_workers_survives_everything_at_once(tmp_path, disk):
    images, space = command.write_images(tmp_path / "images", 30), tmp_path / "space.yaml"
    space.write_text(SPACE)
    recipe = tmp_path / "config.yaml"
    recipe.write_text("recipe: {preset: tiny, batch_size: 16, precision: fp32}\n")
    options = {
        **command.OPTIONS,
        "config": recipe,
        "data": images,
        "space": space,
        "trials": 1000,
        "final-seeds": 0,
        "epochs": 3,
        "sampler": "random",
        "trainer": "golden_trainer:train_with_rests",
    }
    quiet = tmp_path / "quiet"
    quiet.mkdir()
    with command.search(quiet, 0, **options) as process:
        errors = process.stderr.read()
    assert process.returncode == 0, errors
    expected = rows_of(quiet)
    print(len(expected), "candidates")
    chaos = Chaos(tmp_path, disk, {**options, "per-gpu": 4}, seconds=SECONDS / 80)
    chaos.run(SECONDS)
    print(dict(chaos.counts), "ended with", dict(chaos.ends))
    command.finish(disk)
    found = rows_of(disk)
    assert [row for row in found if row not in expected] == []
    assert found == expected
