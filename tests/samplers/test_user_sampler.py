"""What becomes of exceptions in a user's own sampler, when it is made and while it suggests."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from small_cases import SEARCH

from se_nas.cli import USER_ERROR, main
from se_nas.errors import ConfigError
from se_nas.run import RunFolder
from se_nas.samplers.user_sampler import UsersSampler, check_sampler_class, make_users_sampler
from se_nas.study import SearchConfig, search

RandomSampler = optuna.samplers.RandomSampler


class Demanding(RandomSampler):
    def __init__(self, folder: str) -> None:
        super().__init__()


class Broken(RandomSampler):
    def __init__(self, seed: int) -> None:
        raise OSError("no licence")


class Asks(RandomSampler):
    def sample_independent(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("my bug")


class Infers(RandomSampler):
    def infer_relative_search_space(self, *args: Any, **kwargs: Any) -> Any:
        return {}["gone"]


class Learns(RandomSampler):
    def after_trial(self, *args: Any, **kwargs: Any) -> None:
        raise ZeroDivisionError("division by zero")


class Begins(RandomSampler):
    def before_trial(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError


class Outside(RandomSampler):
    def sample_independent(self, *args: Any, **kwargs: Any) -> Any:
        return 7


class Beyond(RandomSampler):
    def infer_relative_search_space(self, *args: Any, **kwargs: Any) -> Any:
        return {"x": optuna.distributions.CategoricalDistribution((0, 1))}

    def sample_relative(self, *args: Any, **kwargs: Any) -> Any:
        return {"x": 7}


class Seedless(RandomSampler):
    def __init__(self) -> None:
        super().__init__()


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (optuna.samplers.BaseSampler, "'mine:It' is abstract: it lacks infer_relative_search_space, sample_"),
        (json.loads, r"'mine:It' is not a subclass of optuna\.samplers\.BaseSampler"),
        (Demanding, "'mine:It' cannot be made from a seed or from nothing: missing a required .*'folder'"),
    ],
)
def test_a_class_that_is_no_sampler_is_refused_before_it_is_made(cls: Any, message: str) -> None:
    for act in (
        lambda: check_sampler_class("mine:It", cls),
        lambda: make_users_sampler("mine:It", cls, seed=0),
    ):
        with pytest.raises(ConfigError, match=message):
            act()


def test_checking_makes_nothing_and_making_says_what_it_raised() -> None:
    assert check_sampler_class("mine:It", Broken) is Broken
    with pytest.raises(
        ConfigError, match=r"'mine:It' failed with OSError: no licence \(__init__, line \d+\)"
    ):
        make_users_sampler("mine:It", Broken, seed=0)


def test_a_users_sampler_gets_the_seed_if_it_takes_one() -> None:
    def drawn(seed: int) -> list[int]:
        study = optuna.create_study(sampler=make_users_sampler("mine:It", RandomSampler, seed=seed))
        return [study.ask().suggest_categorical("x", tuple(range(20))) for _ in range(8)]

    assert drawn(1) == drawn(1) != drawn(2)
    assert isinstance(make_users_sampler("mine:It", Seedless, seed=1), UsersSampler)


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (Begins, r"failed with NotImplementedError: "),
        (Infers, r"failed with KeyError: 'gone' \(infer_relative_search_space, line \d+\)"),
        (Asks, r"failed with RuntimeError: my bug \(sample_independent, line \d+\)"),
        (Learns, r"failed with ZeroDivisionError: division by zero \(after_trial, line \d+\)"),
        (Outside, r"failed with ValueError: '7' not in \(0, 1\)"),
        (Beyond, r"failed with ValueError: '7' not in \(0, 1\)"),
    ],
)
def test_what_a_sampler_raises_is_told_with_its_name(cls: type[RandomSampler], message: str) -> None:
    study = optuna.create_study(sampler=UsersSampler("mine:It", cls()))
    with pytest.raises(ConfigError, match=f"sampler 'mine:It' {message}"):
        study.optimize(lambda trial: float(trial.suggest_categorical("x", (0, 1))), n_trials=1)


def test_a_sampler_that_works_suggests_the_same_as_without() -> None:
    def drawn(sampler: optuna.samplers.BaseSampler) -> list[Any]:
        study = optuna.create_study(sampler=sampler)
        study.optimize(lambda trial: trial.suggest_categorical("x", tuple(range(20))), n_trials=15)
        return [trial.params["x"] for trial in study.trials]

    plain = drawn(optuna.samplers.TPESampler(seed=3, multivariate=True, n_startup_trials=5))
    inner = optuna.samplers.TPESampler(seed=3, multivariate=True, n_startup_trials=5)
    assert drawn(UsersSampler("mine:It", inner)) == plain


def test_a_search_whose_sampler_raises_ends_in_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "fifty.py").write_text(
        "def train(model, context):\n    context.report(1, accuracy=50.0)\n    return {'accuracy': 50.0}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    options = "search --backbone test_resnet --objectives accuracy,macs --epochs 1 --trials 5 --device cpu"
    own = f"--trainer fifty:train --sampler optuna.samplers:CmaEsSampler --name own --runs {tmp_path}"
    monkeypatch.setattr(sys, "argv", ["se-nas", *options.split(), *own.split()])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == USER_ERROR
    message = capsys.readouterr().err
    assert "error: sampler 'optuna.samplers:CmaEsSampler' failed with " in message
    manifest = RunFolder.open(tmp_path / "own").manifest
    assert manifest.status == "interrupted"
    assert "CmaEsSampler" in manifest.stop_reason


def test_a_bug_of_ours_does_not_leave_a_run_that_seems_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug(self: Any) -> None:
        raise AssertionError("ours")

    monkeypatch.setattr("se_nas.study.suggestions.Suggestions.next", bug)
    with pytest.raises(AssertionError, match="ours"):
        search(SearchConfig(**SEARCH, runs=str(tmp_path), name="bug", trials=1))
    manifest = RunFolder.open(tmp_path / "bug").manifest
    assert (manifest.status, manifest.stop_reason) == ("interrupted", "AssertionError: ours")
