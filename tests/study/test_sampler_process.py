"""A sampler in a process of its own suggests what it suggests here, and gives up without harm."""

from __future__ import annotations

import io
import logging
import os
import pickle
import signal

import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState

from se_nas.errors import ConfigError
from se_nas.samplers.pareto_sampler import MODEL, ParetoSampler
from se_nas.study import sampler_process
from se_nas.study.sampler_process import SamplerProcess, answer

SPACE = {f"x{number}": [0, 1, 2] for number in range(4)}


def cost(params):
    return float(sum(params.values()))


def unsendable():
    """A known cost that no other process can be given."""
    return lambda params: cost(params)


def sampler(known=cost):
    return ParetoSampler(known={1: known}, seed=3, space=SPACE, repeats=True)


def searched(used, trials, ahead=2):
    """Parameters and predictions of trials of which two are always pending; some fail, one is queued."""
    with_others = optuna.create_study(directions=["maximize", "minimize"], sampler=used)
    with_others.enqueue_trial(dict.fromkeys(SPACE, 1))
    found, pending = [], []
    for number in range(trials):
        trial = with_others.ask()
        params = {name: trial.suggest_categorical(name, choices) for name, choices in SPACE.items()}
        found.append((params, trial.storage.get_trial(trial._trial_id).system_attrs.get(MODEL)))
        pending.append((trial, params))
        if len(pending) > ahead:
            ended, given = pending.pop(0)
            if number % 7 == 5:
                with_others.tell(ended, state=TrialState.FAIL)
            else:
                with_others.tell(ended, [given["x0"] - 0.3 * given["x2"] ** 2, cost(given)])
    return found


@pytest.fixture
def process():
    made = []

    def make(used):
        made.append(SamplerProcess(used, optuna.create_study(directions=["maximize", "minimize"]).directions))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_it_suggests_what_the_sampler_suggests_here(process):
    other = process(sampler())
    asked, here = [], sampler()
    here_alone = other._sampler.sample_relative
    other._sampler.sample_relative = lambda *args: asked.append(1) or here_alone(*args)
    assert searched(other, 14) == searched(here, 14)
    assert not asked


def test_it_ends_with_the_process_that_asks_and_ctrl_c_does_not_reach_it(process):
    other = process(sampler())
    running = other._process
    assert os.getsid(running.pid) != os.getsid(0)
    assert len(searched(other, 4)) == 4
    # What the system does with the pipe of a process that was killed.
    running.stdin.close()
    assert running.wait(60) == 0
    other.close()
    # Suggestions go on here.
    assert len(searched(other, 3)) == 3


def test_if_it_dies_suggestions_go_on_here(process, caplog):
    other = process(sampler())
    other._process.send_signal(signal.SIGKILL)
    other._process.wait()
    with caplog.at_level(logging.WARNING):
        assert searched(other, 8) == searched(sampler(), 8)
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1
    assert "the process for them failed" in caplog.text


def test_what_cannot_be_sent_is_computed_here(process, caplog):
    with caplog.at_level(logging.WARNING):
        other = process(sampler(unsendable()))
    assert other._process is None
    assert "the process for them failed" in caplog.text
    assert searched(other, 8) == searched(sampler(), 8)


def test_an_error_of_the_sampler_is_raised_here(process):
    wrong = ParetoSampler(
        known={1: cost}, seed=3, space={**SPACE, "y": list(range(2000))}, initial=[{"x0": 9}]
    )
    with pytest.raises(ConfigError, match="which is not in the space"):
        searched(process(wrong), 3)


def test_it_is_told_only_what_has_changed():
    """A trial that was forgotten, because it was not begun, is forgotten there too."""
    study = optuna.create_study(directions=["maximize", "minimize"])
    distributions = {name: CategoricalDistribution(choices) for name, choices in SPACE.items()}
    for value in range(3):
        params = dict.fromkeys(SPACE, value)
        study.add_trial(
            optuna.create_trial(params=params, distributions=distributions, values=[value % 2, cost(params)])
        )
    trials = study.get_trials()
    proposed = [optuna.create_trial(state=TrialState.RUNNING) for _ in range(2)]
    for trial in proposed:
        trial.number = 3
    questions, answers = io.BytesIO(), io.BytesIO()
    for content in (
        (sampler(), study.directions),
        (4, [*trials, proposed[0]], 3, distributions),
        (4, [proposed[1]], 3, distributions),
        (3, [], 2, distributions),
    ):
        questions.write(pickle.dumps(content))
    questions.seek(0)
    with pytest.raises(EOFError):
        answer(questions, answers)
    answers.seek(0)
    first, second, third = (pickle.load(answers) for _ in range(3))
    assert first == second
    assert third["params"].keys() == SPACE.keys()


def test_a_process_that_does_not_end_is_killed(process, monkeypatch):
    monkeypatch.setattr(sampler_process, "END_SECONDS", 0.0)
    other = process(sampler())
    running = other._process
    other.close()
    assert running.returncode == -signal.SIGKILL
