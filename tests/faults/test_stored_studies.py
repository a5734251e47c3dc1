"""Studies whose stored texts were changed, in a database or in a journal of version 0.1.0.

Digests are left out, as in files that have none: each reader must end in one of se-nas's own errors, or in rows.
"""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from least_manifest import empty_run
from mutations import TRIED, mutated

from se_nas.errors import RunError, SeNasError
from se_nas.run import JOURNAL, STUDY, RunFolder, refuses_mapped_writes, rows_from_json
from se_nas.run.study_file import SEALS
from se_nas.study import database
from se_nas.study.storage import StudyStore

JOURNAL_OF_0_1_0 = Path(__file__).parent.parent / "run" / "data" / "v0.1.0-stopped" / JOURNAL
OBJECTIVES = ("accuracy", "params")
TEXTS = {
    "study_user_attributes": "value_json",
    "study_system_attributes": "value_json",
    "trial_user_attributes": "value_json",
    "trial_system_attributes": "value_json",
    "trial_params": "distribution_json",
}
"""Tables with a column of JSON each."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of three trials, of which one is a baseline, one is complete and one runs."""
    path = tmp_path_factory.mktemp("study") / "run"
    folder = empty_run(path)
    with closing(StudyStore.create(folder, OBJECTIVES)) as store:
        store.spend(1.5)
        for number, key in enumerate("abc"):
            trial = store.ask()
            trial.suggest_categorical("stage0.reduction", (None, 4, 16))
            store.describe(
                trial.number,
                key=key,
                description="no SE",
                position="standard",
                widths=[0, number],
                phase="search",
                state="running",
                seed=0,
                epochs_planned=1,
                started="2026-11-27T20:00:00+00:00",
            )
            if number < 2:
                store.finish(number, [60.0, 1.0], state="complete", accuracy=60.0, num_params=1)
    return folder


def read(folder):
    """What the rest of the program asks of a study first."""
    with closing(StudyStore.open(folder)) as store:
        rows = store.rows()
        assert (store.search_ended is None) or isinstance(store.search_ended, str)
        assert store.spent >= 0.0
        assert store.num_evaluated() <= len(rows)
        store.front_size, store.values_by_key()
    written = [row.to_json() for row in rows_from_json(rows, "the study")]
    assert [row.to_json() for row in RunFolder.open(folder.path).rows()] == written
    json.dumps(written, allow_nan=False)


def texts(file):
    with closing(sqlite3.connect(file)) as connection:
        return {
            f"{table} {own}": json.loads(text)
            for table, column in TEXTS.items()
            for own, text in connection.execute(f"SELECT rowid, {column} FROM {table}")
        }


@pytest.mark.timeout(0)
def test_a_database(folder, tmp_path):
    folder, whole = RunFolder(shutil.copytree(folder.path, tmp_path / "run")), tmp_path / "whole.db"
    shutil.copy(folder.path / STUDY, whole)
    with closing(sqlite3.connect(whole)) as connection, connection:
        for table in ("study_system_attributes", "trial_system_attributes"):
            connection.execute(f"DELETE FROM {table} WHERE key = ?", [SEALS])
    shutil.copy(whole, folder.path / STUDY)
    read(folder)
    document = texts(whole)
    assert {name.partition(" ")[0] for name in document} == set(TEXTS) - {"trial_system_attributes"}

    tried = set()

    @settings(**TRIED)
    @given(mutated(document))
    def holds(text):
        tried.add(text)
        try:
            changed = json.loads(text)
        except ValueError:
            return
        shutil.copy(whole, folder.path / STUDY)
        with closing(sqlite3.connect(folder.path / STUDY)) as connection, connection:
            for name, value in changed.items() if isinstance(changed, dict) else ():
                table, _, own = name.partition(" ")
                if table in TEXTS:
                    stored = json.dumps(value)
                    connection.execute(
                        f"UPDATE {table} SET {TEXTS[table]} = ? WHERE rowid = ?", [stored, own]
                    )
        try:
            read(folder)
        except SeNasError:
            return

    holds()
    print(f"{len(tried)} different studies")


@pytest.fixture
def run(folder, tmp_path):
    """A run without its study."""
    return RunFolder(
        shutil.copytree(folder.path, tmp_path / "run", ignore=shutil.ignore_patterns("study.db*"))
    )


def journal_lines():
    return [json.loads(line) for line in JOURNAL_OF_0_1_0.read_text().splitlines()[:60]]


def write_journal(run, document):
    for path in run.path.glob("study.*"):
        path.unlink()
    listed = document if isinstance(document, list) else [document]
    (run.path / JOURNAL).write_text("".join(json.dumps(line) + "\n" for line in listed))


@pytest.mark.parametrize(
    ("op_code", "field", "value"),
    [
        (4, "system_attrs", None),
        (4, "user_attrs", None),
        (4, "user_attrs", [1]),
        (4, "params", None),
        (3, "system_attr", {"study:metric_names": 1}),
        (3, "system_attr", {"study:metric_names": ["speed"]}),
        (8, "user_attr", {"accuracy": "60"}),
        (8, "user_attr", {"state": []}),
    ],
)
def test_a_journal_whose_line_has_another_type(run, op_code, field, value):
    lines = journal_lines()
    # Without the line that finishes it, the first trial is settled by what its attributes say.
    lines = [line for line in lines if not (line["op_code"] == 6 and line["state"] == 1)]
    named = [
        line for line in lines if line["op_code"] == op_code and (op_code != 8 or [*line[field]] == [*value])
    ]
    named[-1][field] = value
    write_journal(run, lines)
    with pytest.raises(RunError, match=r"study\.(journal|db) is damaged: ."):
        read(run)


@pytest.mark.timeout(0)
def test_a_journal(run):
    lines = journal_lines()
    write_journal(run, lines)
    read(run)

    tried = set()

    @settings(**TRIED)
    @given(mutated(lines))
    def holds(text):
        tried.add(text)
        try:
            changed = json.loads(text)
        except ValueError:
            return
        write_journal(run, changed)
        try:
            read(run)
        except SeNasError:
            return

    holds()
    print(f"{len(tried)} different studies")


MOUNTS = """\
proc /proc proc rw 0 0
/dev/sda1 / ext4 rw,relatime 0 0
/dev/sdb1 {0} btrfs rw,subvol=/home 0 0
/dev/sdc1 {0}/my\\040runs xfs rw 0 0
"""


@pytest.mark.parametrize(
    ("name", "expected"),
    [("run/study.db", True), ("my runs/run/study.db", False), ("my/study.db", True), ("../study.db", False)],
)
def test_file_systems_that_copy_on_write_are_known_from_where_they_are_mounted(tmp_path, name, expected):
    listed, disk = tmp_path / "mounts", tmp_path / "disk"
    listed.write_text(MOUNTS.format(disk))
    assert refuses_mapped_writes(disk / name, listed) == expected
    assert not refuses_mapped_writes(disk / name, tmp_path / "no such list")


def test_a_study_where_files_are_copied_on_write_has_no_shared_memory_and_undoes_what_was_begun(
    folder, tmp_path, monkeypatch
):
    """As a process leaves it that was killed, or met the end of its quota, in the middle of a write."""
    monkeypatch.setattr(database, "refuses_mapped_writes", lambda path: True)
    folder, path = RunFolder(shutil.copytree(folder.path, tmp_path / "run")), tmp_path / "killed"
    with closing(StudyStore.open(folder)) as store:
        expected = store.rows()
        assert not (folder.path / f"{STUDY}-shm").exists()
    shutil.copytree(folder.path, path)
    with closing(sqlite3.connect(folder.path / STUDY)) as connection:
        connection.execute("PRAGMA journal_mode = TRUNCATE")
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("UPDATE trial_user_attributes SET value_json = zeroblob(100000)")
        for name in (STUDY, f"{STUDY}-journal"):
            shutil.copy(folder.path / name, path / name)
        connection.rollback()
    assert (path / STUDY).read_bytes() != (folder.path / STUDY).read_bytes()
    assert [row.to_json() for row in RunFolder.open(path).rows()] == [
        row.to_json() for row in rows_from_json(expected, "the study")
    ]
    with closing(StudyStore.open(RunFolder.open(path))) as store:
        assert store.rows() == expected
