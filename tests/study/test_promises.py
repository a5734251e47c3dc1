"""What a search says about its budget before, during and after, with epochs whose time a test sets."""

import re
from types import SimpleNamespace

import pytest
from small_cases import SEARCH

from se_nas.errors import ConfigError
from se_nas.run import RunFolder
from se_nas.run.manifest import Budget
from se_nas.study import resume, search
from se_nas.study import schedule as module
from se_nas.study.config import SearchConfig
from se_nas.study.continuation import is_spent, resume_command
from se_nas.study.plan import resolve
from se_nas.study.progress import Progress


class Told(Progress):
    """Keeps what it is told."""

    def __init__(self):
        self.messages = []

    def message(self, text):
        self.messages.append(text)


@pytest.fixture
def epoch(monkeypatch):
    """Sets the seconds that an epoch seems to take."""

    def set_to(seconds):
        monkeypatch.setattr(module, "measure_step_time", lambda *_: SimpleNamespace(epoch=seconds))

    return set_to


@pytest.fixture
def config(tmp_path):
    def make(**changes):
        return SearchConfig(
            **{**SEARCH, "epochs": None, "compile": "off", "runs": str(tmp_path / "runs"), **changes}
        )

    return make


def described(plan, label):
    return [text for name, text in plan.describe() if name == label]


def test_a_plan_prints_the_numbers_that_fit(config, epoch):
    epoch(20.0)
    plan = resolve(config(budget="20m"))
    (budget,) = described(plan, "budget")
    # 1,176 s less those of planning are 54 trainings of 21.5 s: candidates, and half as many, a tenth longer.
    candidates = plan.forecast.candidates
    finals = plan.division.final_trainings(candidates)
    assert 30 <= candidates <= 35
    assert budget.startswith(
        f"20.0 min, 3 final seeds: about {candidates} candidates and {finals} final trainings fit (search 12."
    )
    assert "(an epoch takes 20.0 s here)" in described(plan, "training")[0]
    assert described(plan, "note") == []


def test_a_short_budget_is_said_with_the_one_that_would_do(config, epoch):
    epoch(100.0)
    plan = resolve(config(budget="20m"))
    assert plan.forecast.candidates == 4
    (note,) = described(plan, "note")
    assert note == "the budget is short: 4 candidates fit; 8 need about --budget 30m."
    assert resolve(config(budget="30m")).forecast.candidates >= 8


def test_trials_that_do_not_fit_are_said(config, epoch):
    epoch(20.0)
    (note,) = described(resolve(config(budget="20m", trials=100)), "note")
    assert re.match(r"the budget is short: 3\d candidates fit; 100 need about --budget", note)


def test_a_budget_that_the_recipe_cannot_use_lengthens_the_schedule(config, epoch):
    epoch(1.0)
    plan = resolve(config(budget="90m"))
    assert plan.recipe.epochs == 30
    assert plan.forecast.candidates >= 100
    (note,) = described(plan, "note")
    assert "train for 30; --epochs 3 keeps the recipe's schedule" in note
    assert resolve(config(budget="2h", epochs=3)).recipe.epochs == 3


def test_time_that_nothing_can_use_is_said(config, epoch):
    epoch(1.0)
    notes = described(resolve(config(budget="2h", trials=5, epochs=1)), "note")
    assert any("of the budget will be left over: all 5 candidates fit in less" in note for note in notes)


def test_a_plan_without_two_candidates_is_refused_before_anything_is_written(config, epoch, tmp_path):
    epoch(1769.0)
    with pytest.raises(
        ConfigError, match=r"budget of 6\.0 min is too short.* 1,769\.0 s.*not even one fits"
    ) as refusal:
        search(config(budget="6m"))
    assert list(tmp_path.iterdir()) == []
    # What the message offers is enough.
    _, eight, two = [words.split()[0].rstrip(",") for words in str(refusal.value).split("--budget ")]
    assert resolve(config(budget=eight)).forecast.candidates >= 8
    assert resolve(config(budget=two)).forecast.candidates >= 2


def test_force_begins_all_the_same_and_the_way_on_is_long_enough(config, epoch):
    epoch(1769.0)
    run = search(config(budget="0.01s"), force=True)
    assert not run.front
    assert (
        RunFolder.open(run.path).manifest.stop_reason
        == "the search's share of the budget is spent (0 candidates)"
    )
    budget = resume_command(RunFolder.open(run.path), budget=0.01).rpartition("--budget ")[2]
    assert resolve(config(budget=budget)).forecast.candidates >= 8


def test_a_spent_budget_is_said_and_nothing_is_done(config):
    run = search(config(trials=1, epochs=1, final_seeds=0))
    folder = RunFolder.open(run.path)
    (row,) = folder.rows()
    # Less than another training is left.
    budget = Budget(seconds=1000.0, spent=980.0 - 0.5 * row.seconds)
    folder.update_manifest(budget=budget)
    assert is_spent(folder, 1000.0)
    assert not is_spent(folder, 1000.0 + row.seconds)
    before = (run.path / "manifest.json").read_bytes()
    told = Told()
    assert resume(run.path, budget="1000s", progress=told).path == run.path
    (message,) = told.messages
    assert message.startswith("the budget is spent: the run has taken ")
    assert f"se-nas resume {run.path} --budget " in message
    assert (run.path / "manifest.json").read_bytes() == before
