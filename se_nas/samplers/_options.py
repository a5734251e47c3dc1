"""What `ParetoSampler` was asked for, checked, and the proposer that it makes of this for a study."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.study import Study, StudyDirection

from se_nas.errors import ConfigError
from se_nas.samplers._grid import Array, Grid, Params
from se_nas.samplers._parameters import choices_of, telling_choices
from se_nas.samplers._proposer import Proposer

INITIAL = 3
"""Points of the initial design unless another number is asked for."""
MAX_OBJECTIVES = 3


@dataclass(frozen=True, kw_only=True)
class Options:
    """Those of `ParetoSampler`, which have the same names there, and ``entropy``, the seed of everything random.

    Raises:
        ConfigError: one is invalid.
    """

    known: dict[int, Callable[..., Any]]
    seed: int | None
    repeats: bool
    key: Callable[[Params], Hashable] | None
    initial: int | Sequence[Mapping[str, Any]] | None
    space: dict[str, BaseDistribution] | None
    feasible: Callable[..., Any] | None
    priors: list[Callable[..., Any]]
    evidence: dict[int, str]
    entropy: int = field(init=False)

    def __post_init__(self) -> None:
        for column, function in self.known.items():
            if not _is_number_from_0(column):
                raise ConfigError(
                    f"known has the key {column!r}; it must be the number of an objective, from 0."
                )
            if not callable(function):
                raise ConfigError(f"known[{column}] is {function!r}; it must be a function of a params dict.")
        for column, name in self.evidence.items():
            if not _is_number_from_0(column) or column in self.known:
                raise ConfigError(
                    f"evidence has the key {column!r}; it must be the number, from 0, of an objective that is not"
                    " known."
                )
            if not isinstance(name, str) or not name:
                raise ConfigError(f"evidence[{column}] is {name!r}; it must be the name of a user attribute.")
        initial = self.initial
        listed = isinstance(initial, Sequence) and all(isinstance(point, Mapping) for point in initial)
        if not (initial is None or listed or (_is_number_from_0(initial) and initial != 0)):
            raise ConfigError(
                f"initial is {initial!r}; it must be a number of points from 1, or a list of params."
            )
        if self.seed is not None and self.seed < 0:
            raise ConfigError(f"seed is {self.seed!r}; it must be an integer from 0, or None.")
        seed = np.random.SeedSequence(None if self.seed is None else int(self.seed))
        object.__setattr__(self, "entropy", int(seed.generate_state(1)[0]))

    @property
    def listed(self) -> list[Mapping[str, Any]]:
        """The first points, if the user listed them."""
        return [] if self.initial is None or isinstance(self.initial, int) else list(self.initial)

    def signs(self, study: Study) -> Array:
        """(n_objectives,) 1 for an objective that the study maximises, -1 for one that it minimises.

        Raises:
            ConfigError: the study has too many objectives, or lacks one of the options'.
        """
        directions = study.directions
        if len(directions) > MAX_OBJECTIVES:
            raise ConfigError(
                f"the study has {len(directions)} objectives; ParetoSampler takes 1 to {MAX_OBJECTIVES}."
            )
        for option, columns in (("known", self.known), ("evidence", self.evidence)):
            for column in columns:
                if column >= len(directions):
                    raise ConfigError(
                        f"{option} has the objective {column}; the study has objectives 0 to {len(directions) - 1}."
                    )
        return np.array([1.0 if d == StudyDirection.MAXIMIZE else -1.0 for d in directions])

    def proposer(self, space: Mapping[str, BaseDistribution], signs: Array) -> Proposer:
        """The proposer of studies over ``space`` with these directions.

        Raises:
            ConfigError: a point of ``initial`` is not in the space.
        """
        grid = Grid(
            {name: choices_of(name, distribution) for name, distribution in space.items()},
            known=self.known,
            feasible=self.feasible,
            priors=self.priors,
            key=self.key,
        )
        listed = []
        for params in self.listed:
            row = grid.row(params)
            if row is None:
                raise ConfigError(
                    f"initial has the point {dict(params)!r}, which is not in the space {grid.names}."
                )
            listed.append(row)
        count = INITIAL if self.initial is None else self.initial if isinstance(self.initial, int) else 0
        return Proposer(
            grid,
            signs,
            entropy=self.entropy,
            repeats=self.repeats,
            initial=count,
            listed=listed,
            telling=[telling_choices(distribution) for distribution in space.values()],
        )


class Proposers:
    """The proposer of the latest study and space, kept between proposals with its known functions and fits."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._kept: tuple[tuple[Any, ...], Proposer] | None = None

    def of(self, study: Study, space: dict[str, BaseDistribution]) -> tuple[Proposer, Array]:
        """The proposer of ``study`` over ``space``, and the signs of its objectives (`Options.signs`)."""
        signs = self._options.signs(study)
        current = (identity(study), space, tuple(signs))
        if self._kept is None or self._kept[0] != current:
            self._kept = current, self._options.proposer(space, signs)
        return self._kept[1], signs

    def latest(self, study: Study) -> Proposer | None:
        """The proposer that is kept, if it is of ``study``."""
        if self._kept is None or self._kept[0][0] != identity(study):
            return None
        return self._kept[1]


def identity(study: Study) -> tuple[int, int]:
    """Studies of different storages may have the same name and number."""
    return id(study._storage), study._study_id


def _is_number_from_0(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
