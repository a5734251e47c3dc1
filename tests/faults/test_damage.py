"""What becomes of a run folder whose files were damaged, deleted, linked elsewhere or left half written."""

import os
import random
import shutil
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import pytest
from small_cases import SEARCH, table

import se_nas
from se_nas.errors import RunError
from se_nas.report import ParetoReport
from se_nas.report.run import Run
from se_nas.run import RunFolder
from se_nas.study import resume, search
from se_nas.study.claim import claimed
from se_nas.study.progress import Progress

RESULT = ("number", "key", "seed", "phase", "state", "accuracy", "loss", "num_params", "epochs")


def results(path):
    return [{name: row[name] for name in RESULT} for row in table(path)]


class Heard(Progress):
    """Stops the search at an epoch of a trial, and keeps what is said."""

    def __init__(self, trial=None):
        self.trial, self.messages = trial, []

    def message(self, text):
        self.messages.append(text)

    def epoch(self, row, metrics):
        if row["number"] == self.trial:
            os.kill(os.getpid(), 2)


@pytest.fixture(autouse=True)
def no_report(monkeypatch):
    monkeypatch.setattr(Run, "write_report", lambda run: run.path)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The results of a finished run of three trials, and the folder of one that stopped in the middle of the second."""
    base = tmp_path_factory.mktemp("runs")
    config = {
        **SEARCH,
        "runs": str(base),
        "trials": 3,
        "final_seeds": 0,
        "epochs": 2,
        "objectives": "accuracy,params",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "write_report", lambda run: run.path)
        whole = search(se_nas.SearchConfig(**config, name="whole"))
        stopped = search(se_nas.SearchConfig(**config, name="stopped"), Heard(trial=1))
    return results(whole.path), stopped.path


@pytest.fixture
def stopped(runs, tmp_path):
    return shutil.copytree(runs[1], tmp_path / "run")


DAMAGE = {
    "half": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "random": lambda content: random.randbytes(len(content)),
    "one bit": lambda content: content[:5000] + bytes([content[5000] ^ 1]) + content[5001:],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_candidate_whose_state_is_damaged_is_trained_anew(runs, stopped, damage):
    [state] = (stopped / "checkpoints").glob("*.state")
    state.write_bytes(DAMAGE[damage](state.read_bytes()))
    heard = Heard()
    resume(stopped, progress=heard)
    assert results(stopped) == runs[0]
    [said] = [text for text in heard.messages if "starts over" in text]
    assert f"set aside as {state.name}.damaged" in said
    assert (stopped / "checkpoints" / f"{state.name}.damaged").exists()


def test_a_table_that_was_deleted_is_read_from_the_study_and_written_again(runs, stopped):
    before = results(stopped)
    (stopped / "trials.json").unlink()
    assert results(stopped) == before
    assert len(ParetoReport.load(stopped).rows) == len(before) == 2
    resume(stopped)
    assert (stopped / "trials.json").exists()
    assert results(stopped) == runs[0]


def test_a_study_that_is_missing_is_not_begun_anew(stopped):
    (stopped / "study.db").unlink()
    with pytest.raises(RunError, match=r"study\.db lacks 2 trials that trials\.json has, from trial 0 on"):
        resume(stopped)


@pytest.mark.parametrize("damage", ["half", "empty", "random"])
def test_a_study_that_is_damaged_is_named(stopped, damage):
    file = stopped / "study.db"
    file.write_bytes(DAMAGE[damage](file.read_bytes()))
    for action in (lambda: RunFolder.open(stopped).rows(), lambda: resume(stopped)):
        with pytest.raises(RunError, match=r"study\.db (is damaged|cannot be used|lacks 2 trials)"):
            action()


def execute(statement):
    def act(folder):
        with closing(sqlite3.connect(folder / "study.db", isolation_level=None)) as connection:
            connection.execute(statement)

    return act


REFUSED = {
    "a page is lost": lambda folder: os.truncate(folder / "study.db", 8192),
    "another program's file": lambda folder: (folder / "study.db").write_bytes(bytes(8192)),
    "another schema": execute("UPDATE alembic_version SET version_num = 'v9'"),
    "other objectives": execute("UPDATE study_directions SET direction = 'MINIMIZE'"),
    "a trial is missing": execute("UPDATE trials SET number = 7 WHERE number = 1"),
    "a row is not what was written": execute("UPDATE trial_user_attributes SET value_json = '{}'"),
    "fewer trials than in the table": execute("DELETE FROM trials"),
}


def opened():
    """Paths of what this process has open."""
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            yield os.readlink(descriptor)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc to see what is open")
@pytest.mark.parametrize("damage", REFUSED)
def test_a_study_that_is_refused_is_not_kept_open(stopped, damage):
    """Closed later, by whatever collects it, it would take the log of the file that was put in its place along."""
    REFUSED[damage](stopped)
    with pytest.raises(RunError) as kept:
        resume(stopped)
    assert "study.db" in str(kept.value)
    assert [path for path in opened() if path.startswith(f"{stopped}/study.db")] == []


@pytest.mark.parametrize("name", ["study.db-wal", "study.db-shm"])
def test_a_folder_where_sqlite_needs_a_file_is_named(stopped, name):
    (stopped / name).unlink(missing_ok=True)
    (stopped / name).mkdir()
    with pytest.raises(RunError, match=f"{name} is a folder"):
        resume(stopped)


@pytest.mark.parametrize("name", ["checkpoints", "correct", "study.db", "report.html", "checkpoints/a.state"])
def test_links_inside_a_run_folder_are_refused(stopped, tmp_path, name):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept.state").write_text("someone's")
    target = stopped / name
    if target.is_dir():
        shutil.rmtree(target)
    target.unlink(missing_ok=True)
    target.symlink_to(elsewhere)
    with pytest.raises(RunError, match=f"{name} is a link"):
        resume(stopped)
    assert (elsewhere / "kept.state").exists()


def test_a_run_folder_may_itself_be_a_link(stopped, tmp_path):
    (tmp_path / "link").symlink_to(stopped)
    assert RunFolder.open(tmp_path / "link").rows()


def test_what_a_killed_process_had_begun_to_write_is_deleted(runs, stopped):
    left = [
        stopped / ".manifest.json.0123abcd",
        stopped / "checkpoints" / ".KEY-s0.safetensors.ab12_9xy",
        stopped / "correct" / ".1.npz.01234567",
    ]
    kept = [stopped / ".DS_Store", stopped / "notes.txt"]
    for path in (*left, *kept):
        path.parent.mkdir(exist_ok=True)
        path.write_text("half")
    resume(stopped)
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in kept)
    assert results(stopped) == runs[0]


def test_two_searches_at_the_same_instant_take_different_folders(tmp_path):
    config = se_nas.SearchConfig(**SEARCH, runs=str(tmp_path / "new" / "runs"))
    with claimed(config) as one, claimed(config) as other:
        assert (one.name, other.name) == ("test_resnet-digits-1", "test_resnet-digits-2")
        (tmp_path / "new" / "runs" / one.name / "manifest.json").write_text("{}")
    assert [path.name for path in (tmp_path / "new" / "runs").iterdir()] == [one.name]


def test_a_search_that_does_not_begin_leaves_no_folder(tmp_path):
    with pytest.raises(se_nas.errors.SeNasError):
        search(se_nas.SearchConfig(**{**SEARCH, "data": "nowhere"}, runs=str(tmp_path / "runs")))
    assert list(tmp_path.iterdir()) == []
