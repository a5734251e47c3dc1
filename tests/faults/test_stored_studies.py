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

from se_nas.errors import SeNasError
from se_nas.run import JOURNAL, STUDY, RunFolder, rows_from_json
from se_nas.study.database import SEALS
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


def texts(database):
    with closing(sqlite3.connect(database)) as connection:
        return {
            f"{table} {own}": json.loads(text)
            for table, column in TEXTS.items()
            for own, text in connection.execute(f"SELECT rowid, {column} FROM {table}")
        }


@pytest.mark.timeout(0)
def test_a_database(folder, tmp_path):
    whole = tmp_path / "whole.db"
    shutil.copy(folder.path / STUDY, whole)
    with closing(sqlite3.connect(whole)) as connection, connection:
        for table in ("study_system_attributes", "trial_system_attributes"):
            connection.execute(f"DELETE FROM {table} WHERE key = ?", [SEALS])
    shutil.copy(whole, folder.path / STUDY)
    read(folder)
    document = texts(whole)
    assert {name.partition(" ")[0] for name in document} == set(TEXTS) - {"trial_system_attributes"}

    @settings(**TRIED)
    @given(mutated(document))
    def holds(text):
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


@pytest.mark.timeout(0)
def test_a_journal(folder, tmp_path):
    lines = [json.loads(line) for line in JOURNAL_OF_0_1_0.read_text().splitlines()[:60]]
    run = RunFolder(
        shutil.copytree(folder.path, tmp_path / "run", ignore=shutil.ignore_patterns("study.db*"))
    )

    def write(document):
        for path in run.path.glob("study.*"):
            path.unlink()
        listed = document if isinstance(document, list) else [document]
        (run.path / JOURNAL).write_text("".join(json.dumps(line) + "\n" for line in listed))

    write(lines)
    read(run)

    @settings(**TRIED)
    @given(mutated(lines))
    def holds(text):
        try:
            changed = json.loads(text)
        except ValueError:
            return
        write(changed)
        try:
            read(run)
        except SeNasError:
            return

    holds()
