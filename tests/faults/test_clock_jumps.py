"""A wall clock that jumps, by a day or by years, changes nothing but the times of day that are shown."""

import random
from datetime import UTC, datetime, timedelta

import command
import pytest
from small_cases import SEARCH, table
from wall_clock import COMPILER, WallClock

import se_nas
from se_nas.report import ParetoReport
from se_nas.report.history import progress
from se_nas.report.run import Run
from se_nas.run import RunFolder
from se_nas.study import search, storage, whole_trials
from se_nas.study.phases import trainings

JUMPS = (-400 * 86400, -3600, -10, 10, 3600, 400 * 86400)
OF_THE_CLOCK = ("seconds", "started", "finished", "elapsed", "curve")


class Jumping(datetime):
    """A day and years ahead or behind, anew each time it is asked."""

    @classmethod
    def now(cls, zone=None):
        return datetime.now(zone) + timedelta(seconds=random.choice(JUMPS))


def searched(path):
    settings = {**SEARCH, "objectives": "accuracy,params", "trainer": "golden_trainer:train", "keep": "none"}
    given = {"trials": 5, "final_seeds": 1, "budget": "1h", "epochs": 2}
    return search(se_nas.SearchConfig(**settings | given, runs=str(path), name="run")).path


def results(path):
    return [{name: value for name, value in row.items() if name not in OF_THE_CLOCK} for row in table(path)]


@pytest.fixture
def no_report(monkeypatch):
    monkeypatch.setattr(Run, "write_report", lambda run: run.path)


def test_times_of_day_that_jump_change_neither_table_nor_durations(tmp_path, monkeypatch, no_report):
    expected = results(searched(tmp_path / "quiet"))

    def jumping():
        return Jumping.now(UTC).isoformat(timespec="seconds")

    monkeypatch.setattr(whole_trials, "datetime", Jumping)
    monkeypatch.setattr(storage, "now", jumping)
    monkeypatch.setattr(trainings, "now", jumping)
    path = searched(tmp_path / "jumping")
    assert results(path) == expected
    rows = table(path)
    days = {row["finished"][:10] for row in rows}
    assert len(days) > 1
    elapsed = [row["elapsed"] for row in rows]
    assert elapsed == sorted(elapsed)
    assert 0 < elapsed[-1] <= RunFolder.open(path).manifest.budget.spent < 600
    points = progress(ParetoReport.load(path))
    assert [point.seconds for point in points] == [row["elapsed"] for row in rows if row["phase"] == "search"]


@pytest.mark.slow
@pytest.mark.skipif(COMPILER is None, reason="needs a C compiler")
@pytest.mark.parametrize("jump", JUMPS)
def test_a_clock_that_is_set_while_a_search_runs_changes_nothing(tmp_path, jump):
    clock = WallClock(tmp_path)
    with command.start(
        tmp_path, *command.search_arguments(budget="1h", **{"candidate-timeout": "10m"}), **clock.environment
    ) as process:
        for line in process.stderr:
            if line.startswith("search"):
                break
        clock.set(jump)
        errors = process.stderr.read()
    assert process.returncode == 0, errors
    rows = command.results(tmp_path)
    command.check(rows, 6)
    assert RunFolder.open(tmp_path / "runs" / "run").manifest.budget.spent < 1800
