"""Samplers by name, and what is said of a name that is none."""

from __future__ import annotations

import optuna
import pytest

from se_nas.errors import ConfigError
from se_nas.samplers.registry import MAX_GRID, make_sampler

CHOICES = {"stage0": (0, 8, 16), "stage1": (0, 8)}


class Stubborn(optuna.samplers.RandomSampler):
    """A user's own sampler."""


class Seedless(optuna.samplers.RandomSampler):
    def __init__(self) -> None:
        super().__init__()


@pytest.mark.parametrize(
    ("name", "cls"),
    [
        ("tpe", optuna.samplers.TPESampler),
        ("nsga2", optuna.samplers.NSGAIISampler),
        ("nsga3", optuna.samplers.NSGAIIISampler),
        ("gp", optuna.samplers.GPSampler),
        ("random", optuna.samplers.RandomSampler),
        ("qmc", optuna.samplers.QMCSampler),
        ("grid", optuna.samplers.GridSampler),
        ("optuna.samplers:RandomSampler", optuna.samplers.RandomSampler),
        (f"{__name__}:Stubborn", Stubborn),
        (f"{__name__}:Seedless", Seedless),
    ],
)
def test_a_name_gives_its_sampler(name: str, cls: type) -> None:
    assert isinstance(make_sampler(name, seed=0, choices=CHOICES), cls)


def test_a_users_sampler_gets_the_seed() -> None:
    def drawn(seed: int) -> list[int]:
        study = optuna.create_study(sampler=make_sampler(f"{__name__}:Stubborn", seed=seed, choices=CHOICES))
        return [study.ask().suggest_categorical("stage0", tuple(range(20))) for _ in range(8)]

    assert drawn(1) == drawn(1) != drawn(2)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tpee", r"sampler is 'tpee'; allowed: pareto, tpe, .* package.module:Class.*tpe"),
        ("no_such_module:Sampler", "'no_such_module:Sampler' cannot be imported"),
        ("optuna.samplers:NoSuch", "'optuna.samplers:NoSuch' cannot be imported"),
        ("json:loads", "'json:loads' is no subclass of optuna.samplers.BaseSampler"),
    ],
)
def test_a_name_that_is_none_is_explained(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_sampler(name, seed=0, choices=CHOICES)


def test_a_grid_that_cannot_be_listed_is_refused() -> None:
    with pytest.raises(ConfigError, match=f"at most {MAX_GRID:,} are allowed"):
        make_sampler("grid", seed=0, choices={f"p{i}": (0, 1) for i in range(20)})
