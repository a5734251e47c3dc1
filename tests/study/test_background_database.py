"""Writing by a thread: everything arrives, in order and in whole transactions; errors are raised; ends are urgent."""

from __future__ import annotations

import threading
import time

import pytest
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from se_nas.errors import RunError
from se_nas.study import background_database
from se_nas.study.background_database import BackgroundDatabase
from se_nas.study.database import USER_ATTRIBUTES, Database


class Held:
    """A database whose writes a test holds up, and counts."""

    directions = (StudyDirection.MAXIMIZE,)

    def __init__(self):
        self.gate, self.begun, self.writes, self.error = threading.Event(), threading.Event(), [], None
        self.closed = False

    def save(self, trials, attributes=()):
        self.begun.set()
        assert self.gate.wait(60)
        self.writes.append(([(t.number, t.user_attrs) for t in trials], [item[1:] for item in attributes]))
        if self.error is not None:
            raise self.error

    def saved(self, number):
        return None

    def close(self):
        self.closed = True


def trial(number, state=TrialState.RUNNING, **attributes):
    values = [1.0] if state == TrialState.COMPLETE else None
    made = create_trial(state=state, values=values, user_attrs=attributes)
    made.number = number
    return made


@pytest.fixture
def held(monkeypatch):
    monkeypatch.setattr(background_database, "PAUSE", 0.0)
    database = Held()
    yield database
    database.gate.set()


def test_what_gathers_while_the_disk_is_busy_is_one_write(held):
    database = BackgroundDatabase(held)
    database.save([trial(0, a=1)])
    assert held.begun.wait(60)
    database.save([trial(0, a=2), trial(1)], [(USER_ATTRIBUTES, "spent", 1.0)])
    database.save([trial(1, b=3)], [(USER_ATTRIBUTES, "spent", 2.0)])
    assert database.saved(0).user_attrs == {"a": 2}
    assert database.saved(1).user_attrs == {"b": 3}
    assert database.saved(2) is None
    held.gate.set()
    database.flush()
    assert held.writes == [([(0, {"a": 1})], []), ([(0, {"a": 2}), (1, {"b": 3})], [("spent", 2.0)])]
    database.close()
    assert held.closed


def test_what_is_being_written_is_known(held):
    database = BackgroundDatabase(held)
    database.save([trial(0, a=1)])
    assert held.begun.wait(60)
    assert database.saved(0).user_attrs == {"a": 1}
    held.gate.set()
    database.close()
    assert len(held.writes) == 1


def test_an_end_is_written_at_once(held, monkeypatch):
    monkeypatch.setattr(background_database, "PAUSE", 3600.0)
    held.gate.set()
    database = BackgroundDatabase(held)
    database.save([trial(0)])
    database.save([trial(0, TrialState.COMPLETE)])
    assert held.begun.wait(60)
    # A flush, and the end, wait no hour either.
    database.save([trial(1)])
    database.flush()
    database.save([trial(2)])
    database.close()
    assert [number for write, _ in held.writes for number, _ in write][-2:] == [1, 2]


@pytest.mark.parametrize("call", ["save", "flush", "close"])
def test_an_error_is_raised_once_by_what_comes_next(held, call):
    held.error = RunError("the disk is full")
    database = BackgroundDatabase(held)
    database.save([trial(0)])
    held.gate.set()
    if call == "save":
        while database._error is None:
            time.sleep(0.001)
    with pytest.raises(RunError, match="the disk is full"):
        database.save([]) if call == "save" else getattr(database, call)()
    if call != "close":
        held.error = None
        database.close()
    assert held.closed


def test_a_study_that_was_written_in_the_background_is_read_as_it_was(tmp_path):
    path = tmp_path / "study.db"
    file = Database.open(path, [StudyDirection.MAXIMIZE])
    assert file.trials() == []
    file.attributes()
    database = BackgroundDatabase(file)
    for number in range(20):
        database.save([trial(number, a=number)])
        database.save([trial(number, TrialState.COMPLETE, a=number)], [(USER_ATTRIBUTES, "spent", number)])
    database.close()
    again = Database.open(path)
    assert [(t.number, t.state, t.user_attrs) for t in again.trials()] == [
        (number, TrialState.COMPLETE, {"a": number}) for number in range(20)
    ]
    assert again.attributes()[0]["spent"] == 19
    again.close()
