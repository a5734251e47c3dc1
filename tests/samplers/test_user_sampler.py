"""What becomes of exceptions in a user's own sampler, when it is made and while it suggests."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from small_cases import SEARCH

from se_nas.cli import USER_ERROR, main
from se_nas.errors import ConfigError
from se_nas.run import RunFolder
from se_nas.samplers.registry import make_sampler
from se_nas.samplers.user_sampler import UsersSampler
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


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (":x", r"sampler is ':x'; it must be package\.module:Class"),
        ("optuna.samplers:", r"sampler is 'optuna\.samplers:'; it must be package\.module:Class"),
        ("optuna.samplers:BaseSampler", r"'optuna\.samplers:BaseSampler' failed with TypeError: .* abstract"),
        (f"{__name__}:Demanding", r":Demanding' failed with TypeError: .*missing 1 required .*'folder'"),
        (f"{__name__}:Broken", r":Broken' failed with OSError: no licence \(__init__, line \d+\)"),
    ],
)
def test_a_sampler_that_cannot_be_made_is_explained(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_sampler(name, seed=0, choices={"x": (0, 1)})


def test_a_module_that_breaks_on_import_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "halved.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ConfigError, match=r"'halved:X' failed with ZeroDivisionError: .* \(<module>, line 1\)"
    ):
        make_sampler("halved:X", seed=0, choices={"x": (0, 1)})


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
    assert manifest["status"] == "interrupted"
    assert "CmaEsSampler" in manifest["stop_reason"]


def test_a_bug_of_ours_does_not_leave_a_run_that_seems_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug(self: Any) -> None:
        raise AssertionError("ours")

    monkeypatch.setattr("se_nas.study.suggestions.Suggestions.next", bug)
    with pytest.raises(AssertionError, match="ours"):
        search(SearchConfig(**SEARCH, runs=str(tmp_path), name="bug", trials=1))
    manifest = RunFolder.open(tmp_path / "bug").manifest
    assert (manifest["status"], manifest["stop_reason"]) == ("interrupted", "AssertionError: ours")
