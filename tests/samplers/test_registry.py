"""What every shipped sampler holds to, by its name alone, and what is said of a name that is none."""

from __future__ import annotations

import math
import warnings
from typing import Any

import optuna
import pytest

from se_nas import ParetoSampler
from se_nas.errors import ConfigError
from se_nas.samplers.registry import MAX_GRID, SAMPLERS, make_sampler

CHOICES: dict[str, tuple[Any, ...]] = {"stage0": (0, 8, 16), "stage1": (0, 8), "gate": ("sigmoid", "none")}
CLASSES = {
    "pareto": ParetoSampler,
    "tpe": optuna.samplers.TPESampler,
    "nsga2": optuna.samplers.NSGAIISampler,
    "nsga3": optuna.samplers.NSGAIIISampler,
    "gp": optuna.samplers.GPSampler,
    "random": optuna.samplers.RandomSampler,
    "qmc": optuna.samplers.QMCSampler,
    "grid": optuna.samplers.GridSampler,
}


def drawn(
    name: str, seed: int, trials: int = 12, choices: dict[str, tuple[Any, ...]] = CHOICES
) -> list[dict]:
    """The points of a study with accuracy against a cost, by ask and tell as the search runs it."""
    sampler = make_sampler(name, seed=seed, choices=choices)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    for _ in range(trials):
        trial = study.ask()
        values = [trial.suggest_categorical(key, given) for key, given in choices.items()]
        size = sum(value for value in values if isinstance(value, int))
        study.tell(trial, (50.0 + math.sqrt(size), float(size)))
    return [trial.params for trial in study.trials]


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def test_every_name_is_tested_here() -> None:
    assert set(CLASSES) == set(SAMPLERS)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_name_gives_its_sampler(name: str) -> None:
    assert isinstance(make_sampler(name, seed=0, choices=CHOICES), CLASSES[name])


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_point_is_one_of_the_space(name: str) -> None:
    points = drawn(name, seed=0)
    assert len(points) == 12
    for point in points:
        assert point.keys() == CHOICES.keys()
        assert all(point[key] in given for key, given in CHOICES.items())


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_seed_decides_the_points(name: str) -> None:
    wide = {f"p{i}": (0, 1, 2, 3) for i in range(4)}
    assert drawn(name, 1, choices=wide) == drawn(name, 1, choices=wide) != drawn(name, 2, choices=wide)


def test_the_grid_is_the_whole_space_without_repetition() -> None:
    points = {tuple(point.items()) for point in drawn("grid", seed=0, trials=12)}
    assert len(points) == 3 * 2 * 2


def test_a_name_that_is_none_lists_the_others() -> None:
    with pytest.raises(
        ConfigError, match=r"sampler is 'tpee'; allowed: pareto, tpe, .*, grid\. Did you mean 'tpe'"
    ):
        make_sampler("tpee", seed=0, choices=CHOICES)


def test_a_grid_that_cannot_be_listed_is_refused() -> None:
    with pytest.raises(ConfigError, match=f"at most {MAX_GRID:,} are allowed"):
        make_sampler("grid", seed=0, choices={f"p{i}": (0, 1) for i in range(20)})
