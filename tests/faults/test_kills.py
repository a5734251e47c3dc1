"""Processes are killed for real, at random instants, until the run is finished; it ends as if nothing had happened."""

import os
import random
import time
from collections import Counter

import command
import pytest

SECONDS = 0.2
"""What a training takes."""
RUNS = int(os.environ.get("KILLED_RUNS", "40"))
"""Runs that the slow test kills, several times each."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Table and duration of a run of one candidate at a time that nothing stopped."""
    folder = tmp_path_factory.mktemp("undisturbed")
    # The first waits for what all others find imported.
    command.Forked(folder, "--version", seconds=0).ended()
    began = time.monotonic()
    command.Forked(folder, *command.search_arguments(), seconds=SECONDS).ended()
    return command.results(folder), time.monotonic() - began


def kill_until_finished(folder, seconds, kills, search=None, **settings):
    """Kill a search and what goes on with it up to ``kills`` times; returns the seconds after which each was killed."""
    search = search or command.search_arguments()
    done = []
    code = None
    while code != 0:
        begun = (folder / "runs" / "run" / "manifest.json").exists()
        arguments = ("resume", "runs/run") if begun else search
        after = round(random.uniform(0.1, seconds / 2), 2) if len(done) < kills else None
        code = command.Forked(folder, *arguments, seconds=SECONDS, **settings).ended(after)
        if code:
            done.append(after)
    return done


def test_a_search_that_is_killed_at_random_ends_with_the_undisturbed_table(undisturbed, tmp_path):
    expected, seconds = undisturbed
    command.check(expected, 6)
    done = kill_until_finished(tmp_path, seconds, kills=3)
    print("killed after", done, "s")
    assert command.results(tmp_path) == expected


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_many_searches_that_are_killed_at_random(undisturbed, tmp_path):
    expected, seconds = undisturbed
    count = 0
    for run in range(RUNS):
        folder = tmp_path / str(run)
        folder.mkdir()
        done = kill_until_finished(folder, seconds, kills=12)
        count += len(done)
        print("run", run, "killed after", done, "s; in all", count, flush=True)
        assert command.results(folder) == expected
    print(f"{count} kills of the process that searches, each run ended with the undisturbed table")


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("timeout", [None, "30m"], ids=["in this process", "in another process"])
def test_searches_in_a_pack_that_are_killed_at_random(tmp_path, timeout):
    """Three places in one process, trained for real; every architecture of the space is evaluated."""
    space = tmp_path / "space.yaml"
    space.write_text("granularity: stage\nreduction: [16]\n")
    images = command.write_images(tmp_path / "images", 80)
    options = {"trainer": "default", "space": space, "trials": 100, "epochs": 4, "final-seeds": 0}
    if timeout is not None:
        options["candidate-timeout"] = timeout
    search = command.search_arguments(**options, sampler="random", data=images)

    def folder(name):
        (tmp_path / name).mkdir()
        return tmp_path / name

    def readings(path):
        rows = sorted(command.results(path), key=lambda row: row["key"])
        return [
            {name: row[name] for name in ("key", "seed", "state", "accuracy", "num_params")} for row in rows
        ]

    quiet, began = folder("quiet"), time.monotonic()
    command.Forked(quiet, *search, seconds=0, places=3).ended()
    seconds, count = time.monotonic() - began, 0
    for run in range(RUNS // 4):
        path = folder(str(run))
        done = kill_until_finished(path, seconds / 4, kills=12, search=search, places=3)
        count += len(done)
        print("run", run, "killed after", done, "s; in all", count, flush=True)
        assert readings(path) == readings(quiet)
    print(f"{count} kills of packs, each run ended with the undisturbed readings")


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.skipif(not os.path.isdir("/proc"), reason="looks for processes in /proc")
def test_workers_that_are_killed_at_random(tmp_path):
    """Three processes train at a time."""
    announced, trials, kills = tmp_path / "announced", max(RUNS // 2, 4), RUNS
    announced.mkdir()
    given = command.search_arguments(**{"trials": trials, "per-gpu": 3})
    killed = Counter()
    with command.start(tmp_path, *given, seconds=1.0, TRAINED_BY=str(announced)) as process:
        while process.poll() is None and killed.total() < kills:
            time.sleep(random.uniform(0.0, 1.0))
            command.kill_a_worker(process, announced, killed)
        errors = process.stderr.read()
    print(f"{killed.total()} workers killed, of {len(killed)} trainings")
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    # Of one that had just sent its result nothing is said.
    assert kills // 2 <= errors.count("died (exit code -9)") <= killed.total()
    command.check(command.results(tmp_path), trials)
