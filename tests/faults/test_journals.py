"""Runs of version 0.1.0: their journals are read wherever they were cut, and copied once."""

import json
import random
import shutil
from pathlib import Path

import pytest
from optuna.trial import TrialState
from small_cases import table

from se_nas.report.run import Run
from se_nas.run import RunFolder
from se_nas.study import resume
from se_nas.study.attributes import BASELINE, ROW
from se_nas.study.database import Database
from se_nas.study.journal import copy_journal

DATA = Path(__file__).parent.parent / "run" / "data"
RUNS = ("v0.1.0-finished", "v0.1.0-stopped")
BASELINES = {"plain", "all_se_16", "last_stage"}


def copied(name, target, cut=None, torn=0):
    """A run of version 0.1.0 whose journal ends after ``cut`` lines and ``torn`` bytes of the next, and its trials."""
    folder = RunFolder(shutil.copytree(DATA / name, target / name))
    lines = folder.journal.read_bytes().splitlines(keepends=True)
    cut = len(lines) if cut is None else cut
    folder.journal.write_bytes(b"".join(lines[:cut]) + (lines[cut][:torn] if torn else b""))
    made = copy_journal(folder, folder.path / "study.db")
    return folder, Database.open(folder.path / "study.db").trials() if made else None


@pytest.mark.parametrize("name", RUNS)
def test_a_whole_journal_gives_the_table_of_its_run(tmp_path, name):
    folder, trials = copied(name, tmp_path)
    recorded = json.loads((folder.path / "trials.json").read_text())
    rows = [row.to_json() for row in folder.rows()]
    for row, was in zip(rows, recorded, strict=True):
        assert {name: row[name] for name in was if name not in ("started", "finished")} == {
            name: value for name, value in was.items() if name not in ("started", "finished")
        }
    assert [trial.number for trial in trials] == list(range(len(trials)))
    assert (folder.path / "study.journal").exists()
    assert not copy_journal(folder, folder.path / "study.db")


def check_cut(name, target, cut, torn=0):
    folder, trials = copied(name, target, cut, torn)
    if trials is None:
        # The study was not yet there.
        assert cut < 1
        return
    recorded = {row["number"]: row for row in json.loads((folder.path / "trials.json").read_text())}
    for trial in trials:
        row = trial.user_attrs.get(ROW)
        if trial.state == TrialState.RUNNING:
            assert row["widths"] == recorded[trial.number]["widths"]
        elif trial.state == TrialState.COMPLETE and row is not None:
            assert row["accuracy"] == recorded[trial.number]["accuracy"]
            assert trial.values[0] == row["accuracy"]
        elif trial.state == TrialState.WAITING:
            assert ROW not in trial.user_attrs
            assert trial.params == {}
    # A baseline that had been queued is queued still, or has a row.
    lines = (folder.path / "study.journal").read_text().splitlines()
    queued = {
        entry["user_attrs"][BASELINE]
        for line in lines[:cut]
        if (entry := json.loads(line))["op_code"] == 4 and BASELINE in entry.get("user_attrs", {})
    }
    assert queued == {trial.user_attrs.get(BASELINE) for trial in trials} - {None}
    assert all(trial.state != TrialState.FAIL for trial in trials if BASELINE in trial.user_attrs)


@pytest.mark.parametrize("name", RUNS)
def test_a_journal_that_was_cut_somewhere(tmp_path, name):
    number = len((DATA / name / "study.journal").read_bytes().splitlines())
    for cut in (0, 1, 2, *random.sample(range(3, number), 6)):
        print(name, "cut after line", cut)
        check_cut(name, tmp_path / f"{cut}", cut)
    for cut in random.sample(range(1, number), 3):
        print(name, "torn in line", cut)
        check_cut(name, tmp_path / f"torn-{cut}", cut, torn=random.randint(1, 40))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", RUNS)
def test_a_journal_that_was_cut_anywhere(tmp_path, name):
    number = len((DATA / name / "study.journal").read_bytes().splitlines())
    for cut in range(number):
        check_cut(name, tmp_path / f"{cut}", cut)
    print(f"{number} cuts")


def test_a_stopped_run_goes_on_beside_the_lock_of_a_killed_process(tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "write_report", lambda run: run.path)
    path = shutil.copytree(DATA / "v0.1.0-stopped", tmp_path / "old")
    (path / "study.journal.lock").write_text("")
    journal = (path / "study.journal").read_bytes()
    before = table(path)
    resume(path, trials=6)
    rows = table(path)
    assert [row["key"] for row in rows[:5]] == [row["key"] for row in before]
    assert [row["accuracy"] for row in rows[:5]] == [row["accuracy"] for row in before]
    assert len(rows) == 6
    assert (path / "study.journal").read_bytes() == journal
    assert {row["baseline"] for row in rows} >= BASELINES
