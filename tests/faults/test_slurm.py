"""The script of docs/examples runs under Slurm: its time limit comes, it is requeued, and the study is finished."""

import os
import sys
import time
from pathlib import Path

import command
import pytest
from slurm_cluster import Slurm
from small_cases import table

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]
SCRIPT = Path(__file__).parents[2] / "docs" / "examples" / "workers.sbatch"
TRIALS, TASKS = 6, 2


@pytest.fixture
def slurm():
    cluster = Slurm()
    yield cluster
    cluster.remove()


def test_workers_are_requeued_at_their_time_limit_and_finish_the_study(
    slurm, tmp_path, postgres, database_url
):
    gate, runs = tmp_path / "gate", tmp_path / "runs"
    options = {name: value for name, value in command.OPTIONS.items() if name not in ("name", "runs")} | {
        "trials": TRIALS
    }
    # No training ends before the gate is there.
    environment = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), slurm.environment["PATH"]]),
        "PYTHONPATH": os.pathsep.join([str(command.TESTS), os.environ.get("PYTHONPATH", "")]),
        "STORAGE": database_url,
        "STUDY": "one",
        "RUNS": str(runs),
        "SEARCH": " ".join(map(str, command.words(options))),
        "GATE": str(gate),
        "SECONDS": "0",
        "OMP_NUM_THREADS": "1",
    }
    log = f"--output={tmp_path}/%a.log"
    slurm.run("sbatch", f"--array=0-{TASKS - 1}", log, SCRIPT, **environment)

    def wait_until(condition):
        until = time.monotonic() + 600
        while not condition(jobs := slurm.jobs("se-nas")):
            said = [(path.name, path.read_text()) for path in tmp_path.glob("*.log")]
            assert time.monotonic() < until, (jobs, said)
            time.sleep(1.0)

    def limit(minutes):
        for job in slurm.jobs("se-nas"):
            slurm.run("scontrol", "update", f"JobId={job['JobId']}", f"TimeLimit={minutes(job)}")

    wait_until(lambda jobs: training(postgres, database_url) == TASKS)
    # The signal is due two minutes before the limit, and Slurm looks twice a minute.
    limit(lambda job: minutes_of(job["RunTime"]) + 3)
    wait_until(lambda jobs: sum(int(job["Restarts"]) > 0 for job in jobs) == TASKS)
    limit(lambda job: 60)
    gate.touch()
    wait_until(lambda jobs: len(jobs) == TASKS and {job["JobState"] for job in jobs} == {"COMPLETED"})
    assert {(job["ExitCode"], job["Restarts"]) for job in slurm.jobs("se-nas")} == {("0:0", "1")}
    for path in tmp_path.glob("*.log"):
        assert "Traceback" not in path.read_text()
    command.check(table(runs / "one"), TRIALS)


def training(postgres, url):
    """How many trials of the database are in training."""
    database = url.rpartition("/")[2]
    if not postgres.sql("SELECT 1 FROM pg_tables WHERE tablename = 'trials'", database):
        return 0
    return postgres.sql("SELECT count(*) FROM trials WHERE state = 'RUNNING'", database)[0][0]


def minutes_of(duration):
    """Whole minutes of hours, minutes and seconds."""
    hours, minutes, _ = map(int, duration.split(":"))
    return 60 * hours + minutes
