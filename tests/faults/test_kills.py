"""Processes are killed for real, at random instants, until the run is finished; it ends as if nothing had happened."""

import os
import random
import signal
import time

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


def kill_until_finished(folder, seconds, kills):
    """Kill a search and what goes on with it up to ``kills`` times; returns the seconds after which each was killed."""
    done = []
    code = None
    while code != 0:
        begun = (folder / "runs" / "run" / "manifest.json").exists()
        arguments = ("resume", "runs/run") if begun else command.search_arguments()
        after = round(random.uniform(0.1, seconds / 2), 2) if len(done) < kills else None
        code = command.Forked(folder, *arguments, seconds=SECONDS).ended(after)
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
        done = kill_until_finished(folder, seconds, kills=8)
        count += len(done)
        print("run", run, "killed after", done, "s; in all", count, flush=True)
        assert command.results(folder) == expected
    print(f"{count} kills of the process that searches, each run ended with the undisturbed table")


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.skipif(not os.path.isdir("/proc"), reason="looks for processes in /proc")
def test_workers_and_parents_that_are_killed_at_random(tmp_path):
    deaths = {"worker": 0, "parent": 0}
    for run in range(12):
        folder = tmp_path / str(run)
        folder.mkdir()
        process = command.search(folder, 0.5, **{"per-gpu": 2, "sampler": "random"})
        for _ in range(8):
            time.sleep(random.uniform(0.5, 12))
            if process.poll() is not None:
                break
            victims = command.workers_of(process.pid)
            if victims and random.random() < 0.6:
                os.kill(random.choice(victims), signal.SIGKILL)
                deaths["worker"] += 1
            else:
                process.kill()
                assert "Traceback" not in process.stderr.read()
                deaths["parent"] += 1
                if not (folder / "runs" / "run" / "manifest.json").exists():
                    process = command.search(folder, 0.5, **{"per-gpu": 2, "sampler": "random"})
                else:
                    process = command.go_on(folder, 0.5)
        process.wait()
        process.stderr.close()
        command.finish(folder)
        rows = command.results(folder)
        # A candidate that cost three workers counts as failed; the others are complete.
        failed = [row for row in rows if row["state"] == "failed"]
        assert all("workers died of it" in row["error"] for row in failed)
        command.check(
            [row for row in rows if row not in failed], 6 - sum(row["phase"] == "search" for row in failed)
        )
        print("run", run, "with", deaths, "so far")
