"""`ParetoSampler`: an Optuna sampler for noisy accuracy against exactly known costs.

Noisy expected hypervolume improvement (Daulton et al., NeurIPS 2021) under the Gaussian process of `_gp`, exact
in the known objectives (`se_nas.pareto`), over every point of the space or by local search.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from se_nas.errors import ConfigError
from se_nas.samplers._grid import Array, Grid, Index, Params, choices_of
from se_nas.samplers._observations import DUPLICATE, PARTIAL, History, read
from se_nas.samplers._proposer import Proposal, Proposer

__all__ = ["DUPLICATE", "MODEL", "PARTIAL", "ParetoSampler"]

INITIAL = 3
"""Points of the initial design unless another number is asked for."""
MOST_UNSEEN = 16
"""Simultaneous proposals of others that are worked out first."""
MODEL = "se_nas:model"
"""System attribute of a trial: the source of its proposal and what the model expected of it."""


class ParetoSampler(BaseSampler):
    """Proposes points of a finite space by expected hypervolume improvement; works with any Optuna study.

    Args:
        known: number of an objective → function of the trial's params dict that gives its exact value. It is
            called once per point, and for all points at the first suggestion if there are at most 131,072. If
            it has a method ``batch`` (from a list of params dicts to as many numbers), that is called instead.
        seed: makes proposals depend only on the study's history (with one worker).
        repeats: whether another reading of the same params may be proposed if it promises more than any new
            point. False: params are asked for twice only when nothing else is left.
        key: what makes params equal, from a params dict (``batch`` as above). None: the params themselves.
        initial: number of points of the initial design, or the first params dicts, in order.
        space: parameter name → its choices or Optuna's distribution, if known beforehand. Without it the first
            trial is drawn at random, and the space consists of the parameters that all finished trials share.
        feasible: tells from a params dict (``batch`` as above) whether it may be proposed.
        prior: cheap estimate of the first modelled objective from a params dict; how far to trust it is
            learned.

    Raises:
        ConfigError: an option is invalid, or a parameter of the study is continuous.
    """

    def __init__(
        self,
        *,
        known: Mapping[int, Callable[..., Any]] | None = None,
        seed: int | None = None,
        repeats: bool = False,
        key: Callable[[Params], Hashable] | None = None,
        initial: int | Sequence[Mapping[str, Any]] | None = None,
        space: Mapping[str, Sequence[Any]] | None = None,
        feasible: Callable[..., Any] | None = None,
        prior: Callable[..., Any] | None = None,
    ) -> None:
        if not isinstance(known, Mapping | None):
            raise ConfigError(
                f"known is {known!r}; it must map numbers of objectives to functions, such as {{1: cost}}."
            )
        known = dict(known or {})
        for column, function in known.items():
            if not isinstance(column, int) or isinstance(column, bool) or column < 0:
                raise ConfigError(
                    f"known has the key {column!r}; it must be the number of an objective, from 0."
                )
            if not callable(function):
                raise ConfigError(f"known[{column}] is {function!r}; it must be a function of a params dict.")
        for name, given in (("key", key), ("feasible", feasible), ("prior", prior)):
            if given is not None and not callable(given):
                raise ConfigError(f"{name} is {given!r}; it must be a function of a params dict.")
        listed = isinstance(initial, Sequence) and all(isinstance(point, Mapping) for point in initial)
        count = isinstance(initial, int) and not isinstance(initial, bool) and initial >= 1
        if not (initial is None or listed or count):
            raise ConfigError(
                f"initial is {initial!r}; it must be a number of points from 1, or a list of params."
            )
        if seed is not None and (not isinstance(seed, Integral) or seed < 0):
            raise ConfigError(f"seed is {seed!r}; it must be an integer from 0, or None.")
        if not isinstance(space, Mapping | None):
            raise ConfigError(f"space is {space!r}; it must map names of parameters to their choices.")
        seed = None if seed is None else int(seed)
        self._known, self._seed, self._repeats, self._key = known, seed, repeats, key
        self._listed = [] if initial is None or isinstance(initial, int) else list(initial)
        self._initial = INITIAL if initial is None else initial if isinstance(initial, int) else 0
        self._feasible, self._prior = feasible, prior
        self._entropy = int(np.random.SeedSequence(seed).generate_state(1)[0])
        self._given = None if space is None else {name: _distribution(name, v) for name, v in space.items()}
        self._intersections: dict[tuple[int, int], IntersectionSearchSpace] = {}
        self._proposers: dict[str, Any] = {}
        self._lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.RLock())

    def reseed_rng(self) -> None:
        """Nothing to do: draws depend on the trial's number, so no two trials have the same."""

    @property
    def known(self) -> Mapping[int, Callable[..., Any]]:
        """The known objectives, by number."""
        return self._known

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The parameters that all finished trials share (or those given as ``space``), ordered by name."""
        self._signs(study)
        if self._given is not None:
            return dict(self._given)
        intersection = self._intersections.setdefault(
            _identity(study), IntersectionSearchSpace(include_pruned=True)
        )
        found = intersection.calculate(study)
        if not found:
            # Nothing has finished, but a trial that failed after its last parameter shows the space.
            failed = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
            found = max((t.distributions for t in failed), key=len, default={})
        return {name: found[name] for name in sorted(found)}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The next point; empty while the space is unknown, or if the trial's params are given."""
        fixed = trial.system_attrs.get("fixed_params", {})
        if not search_space or search_space.keys() <= fixed.keys():
            return {}
        with self._lock:
            proposer, signs = self._prepared(study, search_space)
            trials = study._storage.get_all_trials(study._study_id, deepcopy=False)
            history = read(trials, proposer.grid, signs, trial.number)
            others = [
                (number, read(trials, proposer.grid, signs, number, as_of=began))
                for number, began in history.unseen[-MOST_UNSEEN:]
            ]
            proposal = proposer.propose(
                history, trial.number, fixed=proposer.grid.choices_in(fixed), others=others
            )
        study._storage.set_trial_system_attr(trial._trial_id, MODEL, _record(proposal))
        return proposer.grid.params(proposal.row[None])[0]

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A random value, or that of ``initial``: before the space is known, and for what only some trials have."""
        choices = choices_of(param_name, param_distribution)
        if trial.number < len(self._listed):
            value = self._listed[trial.number].get(param_name)
            if any(value == choice and type(value) is type(choice) for choice in choices):
                return value
        seed = np.random.default_rng([self._entropy, 2, trial.number, *param_name.encode()]).integers(2**31)
        return RandomSampler(seed=int(seed)).sample_independent(study, trial, param_name, param_distribution)

    def predict(self, study: Study, params: Sequence[Mapping[str, Any]]) -> tuple[Array, Array]:
        """What the model believes after the trials so far.

        Args:
            params: n points of the space.

        Returns:
            Means and deviations (n, n_objectives) of the true objectives, in the study's units; the deviation
            of a known one is 0.

        Raises:
            ConfigError: a point is not in the space, or the study has no finished trial.
        """
        with self._lock:
            proposer, history = self._current(study)
            return proposer.predict(history, _rows(proposer.grid, params))

    def contrast(
        self,
        study: Study,
        plus: Sequence[Mapping[str, Any]],
        minus: Sequence[Mapping[str, Any]],
        objective: int = 0,
    ) -> tuple[float, float]:
        """Mean and deviation of a modelled objective's average over ``plus`` less that over ``minus``.

        Raises:
            ConfigError: a point is not in the space, the objective is not modelled, or no trial has finished.
        """
        with self._lock:
            proposer, history = self._current(study)
            if objective in self._known or not 0 <= objective < len(study.directions):
                raise ConfigError(
                    f"objective {objective} is not modelled; contrasts are of modelled objectives."
                )
            rows = _rows(proposer.grid, plus), _rows(proposer.grid, minus)
            return proposer.contrast(history, *rows, objective)

    def _current(self, study: Study) -> tuple[Proposer, History]:
        """The proposer and the history of all trials of the study."""
        trials = study.get_trials(deepcopy=False)
        space = self.infer_relative_search_space(study, trials[-1]) if trials else {}
        if space:
            proposer, signs = self._prepared(study, space)
            history = read(trials, proposer.grid, signs, len(trials))
            if len(history.rows):
                return proposer, history
        raise ConfigError("the study has no finished trial yet: there is nothing to predict from.")

    def _signs(self, study: Study) -> Array:
        """(n_objectives,) 1 for an objective that the study maximises, -1 for one that it minimises."""
        directions = study.directions
        if len(directions) > 3:
            raise ConfigError(f"the study has {len(directions)} objectives; ParetoSampler takes 1 to 3.")
        for column in self._known:
            if column >= len(directions):
                raise ConfigError(
                    f"known has the objective {column}; the study has objectives 0 to {len(directions) - 1}."
                )
        return np.array([1.0 if d == StudyDirection.MAXIMIZE else -1.0 for d in directions])

    def _prepared(self, study: Study, search_space: dict[str, BaseDistribution]) -> tuple[Proposer, Array]:
        """The proposer of this study and space, kept between proposals with its known functions and fits."""
        signs = self._signs(study)
        current = (_identity(study), search_space, tuple(signs))
        if self._proposers.get("of") != current:
            grid = Grid(
                {name: choices_of(name, distribution) for name, distribution in search_space.items()},
                known=self._known,
                feasible=self._feasible,
                prior=self._prior,
                key=self._key,
            )
            proposer = Proposer(
                grid,
                signs,
                entropy=self._entropy,
                repeats=self._repeats,
                initial=self._initial,
                listed=self._first_rows(grid),
            )
            self._proposers = {"of": current, "proposer": proposer}
        return self._proposers["proposer"], signs

    def _first_rows(self, grid: Grid) -> list[Index]:
        """The initial points that the user listed."""
        rows = []
        for params in self._listed:
            row = grid.row(params)
            if row is None:
                raise ConfigError(
                    f"initial has the point {dict(params)!r}, which is not in the space {grid.names}."
                )
            rows.append(row)
        return rows


def _identity(study: Study) -> tuple[int, int]:
    """Studies of different storages may have the same name and number."""
    return id(study._storage), study._study_id


def _rows(grid: Grid, points: Sequence[Mapping[str, Any]]) -> Index:
    rows = []
    for point in points:
        row = grid.row(point)
        if row is None:
            raise ConfigError(f"the point {dict(point)!r} is not in the space {grid.names}.")
        rows.append(row)
    if not rows:
        raise ConfigError("no point was given; predictions and contrasts need at least one.")
    return np.array(rows, dtype=np.int64).reshape(-1, len(grid.names))


def _distribution(name: str, choices: Any) -> BaseDistribution:
    if isinstance(choices, BaseDistribution):
        return choices
    if isinstance(choices, str) or not isinstance(choices, Iterable):
        raise ConfigError(f"space has {name!r}: {choices!r}; it must be a list of choices.")
    values = tuple(choices)
    if not values:
        raise ConfigError(f"space has the parameter {name!r} without a choice; it needs at least one.")
    return CategoricalDistribution(values)


def _record(proposal: Proposal) -> dict[str, Any]:
    """What the model expected, ready for JSON."""
    return {
        "source": proposal.source,
        "improvement": proposal.improvement,
        "mean": None if proposal.mean is None else list(proposal.mean),
        "sd": None if proposal.sd is None else list(proposal.sd),
    }
