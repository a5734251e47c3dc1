"""The sampler that a configuration names: one that ships, or a class of the user's."""

from __future__ import annotations

from optuna.samplers import BaseSampler

from se_nas.plugins import Plugins
from se_nas.samplers.registry import SAMPLERS, Choices, make_sampler
from se_nas.samplers.user_sampler import check_sampler_class, make_users_sampler

NAMES = Plugins(option="sampler", built_in=SAMPLERS, form="package.module:Class")


def check_sampler(name: str, choices: Choices) -> None:
    """Refuse a name that leads to no usable sampler. A class of the user's is imported and not made.

    Raises:
        ConfigError: there is no such sampler, or it cannot take the space.
    """
    found = NAMES.load(name)
    if name in SAMPLERS:
        make_sampler(name, seed=0, choices=choices)
    else:
        check_sampler_class(name, found)


def named_sampler(name: str, *, seed: int, choices: Choices) -> BaseSampler:
    """The sampler of that name, seeded.

    Raises:
        ConfigError: there is no such sampler, or it cannot be made.
    """
    found = NAMES.load(name)
    if name in SAMPLERS:
        return make_sampler(name, seed=seed, choices=choices)
    return make_users_sampler(name, found, seed=seed)
