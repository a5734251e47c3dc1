"""The sampler that a configuration names, checked and made."""

from __future__ import annotations

import subprocess
import sys

import optuna
import pytest

from se_nas.errors import ConfigError
from se_nas.samplers.user_sampler import UsersSampler
from se_nas.study.sampler_choice import check_sampler, named_sampler

CHOICES = {"stage0": (0, 8, 16), "stage1": (0, 8)}
made: list[str] = []


class Mine(optuna.samplers.RandomSampler):
    """A user's sampler that shows when it is made."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        made.append("Mine")


def test_a_users_class_is_checked_without_being_made() -> None:
    check_sampler(f"{__name__}:Mine", CHOICES)
    assert made == []
    assert isinstance(named_sampler(f"{__name__}:Mine", seed=0, choices=CHOICES), UsersSampler)
    assert made == ["Mine"]


def test_a_shipped_one_is_not_wrapped() -> None:
    check_sampler("tpe", CHOICES)
    assert isinstance(named_sampler("tpe", seed=0, choices=CHOICES), optuna.samplers.TPESampler)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tpee", r"sampler is 'tpee'; allowed: pareto, tpe, .*, grid or package\.module:Class\. .*'tpe'"),
        ("optuna.samplers:NoSuch", "'optuna.samplers:NoSuch' cannot be imported: AttributeError: "),
        ("json:loads", r"'json:loads' is not a subclass of optuna\.samplers\.BaseSampler"),
    ],
)
def test_a_wrong_name_is_explained_by_both(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_sampler(name, CHOICES)
    with pytest.raises(ConfigError, match=message):
        named_sampler(name, seed=0, choices=CHOICES)


def test_a_grid_that_cannot_be_listed_is_refused_when_it_is_checked() -> None:
    with pytest.raises(ConfigError, match="sampler is 'grid', but the space has 1,048,576 points"):
        check_sampler("grid", {f"p{i}": (0, 1) for i in range(20)})


def test_scipys_optimisers_are_imported_by_what_computes_alone() -> None:
    heavy = "[m for m in ('scipy.optimize', 'scipy.special') if m in sys.modules]"
    code = f"import sys, se_nas.study.session; print({heavy})"
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True, text=True
    )
    assert found.stdout.strip() == "[]"
