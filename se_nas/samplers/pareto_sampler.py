"""`ParetoSampler`: an Optuna sampler for noisy accuracy against exactly known costs.

Noisy expected hypervolume improvement (Daulton et al., NeurIPS 2021) under the Gaussian process of `_gp`, exact
in the known objectives (`se_nas.pareto`), over every point of the space or by local search.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence, Set
from copy import copy
from datetime import datetime
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from se_nas.arguments import checked
from se_nas.errors import ConfigError, nearest
from se_nas.samplers._grid import Array, Grid, Index, Params
from se_nas.samplers._interval import Interval
from se_nas.samplers._models import Learned
from se_nas.samplers._observations import (
    DUPLICATE,
    ENDED,
    MODEL,
    PARTIAL,
    History,
    proposed_params,
    read,
    unheard,
)
from se_nas.samplers._options import Options, Proposers, identity
from se_nas.samplers._parameters import as_distribution, asked_space, check_kind, choices_of
from se_nas.samplers._proposer import Proposal, Proposer
from se_nas.samplers._told import Told

__all__ = ["DUPLICATE", "MODEL", "PARTIAL", "Learned", "ParetoSampler"]

MOST_UNSEEN = 16
"""Simultaneous proposals of others that are worked out first."""


@checked
class ParetoSampler(BaseSampler):
    """Proposes points by expected hypervolume improvement; works with any Optuna study.

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
            trial is drawn at random, and the space consists of the parameters that earlier trials have asked for.
        feasible: tells from a params dict (``batch`` as above) whether it may be proposed.
        prior: cheap estimate of the first modelled objective from a params dict (``batch`` as above), such as what an
            earlier study found, or a list of them. Only its shape over the space counts. How far to trust each of
            them is learned; see `trust`.
        evidence: number of a modelled objective → name of a user attribute of the trials that tells more about
            it, such as the validation loss about accuracy. How far to believe it is learned, its sign included;
            readings without it count as they do alone.

    Parameters that only some trials ask for are searched as well: which ones depend on which choices is learned,
    and a point is what a trial can ask for. Known functions, ``key``, ``feasible`` and ``prior`` always get all
    parameters of the space; those that a trial will not ask for have their first choice.

    Raises:
        ConfigError: an option is invalid; a parameter of the study has a step and more than 1,000 values; ``space``
            names a parameter that no trial asks for or that trials ask for as another kind; or a known function gives
            other values than the trials were told.
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
        prior: Callable[..., Any] | Sequence[Callable[..., Any]] | None = None,
        evidence: Mapping[int, str] | None = None,
    ) -> None:
        self._options = Options(
            known=dict(known or {}),
            seed=seed,
            repeats=repeats,
            key=key,
            initial=initial,
            space=None if space is None else {name: as_distribution(name, v) for name, v in space.items()},
            feasible=feasible,
            priors=[] if prior is None else list(prior) if isinstance(prior, Sequence) else [prior],
            evidence=dict(evidence or {}),
        )
        self._told, self._warned = Told(), not evidence
        self._proposers = Proposers(self._options)
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
        return self._options.known

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The parameters that earlier trials asked for (or those given as ``space``), ordered by name."""
        self._options.signs(study)
        return dict(self._options.space) if self._options.space is not None else asked_space(study)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The next point; empty while the space is unknown, or if the trial's params are given.

        Empty too if ``space`` was given: `sample_independent` knows how the trial asks for a parameter.
        """
        fixed = trial.system_attrs.get("fixed_params", {})
        whole = self.infer_relative_search_space(study, trial)
        # What another sampler keeps from this one has its latest value (`PartialFixedSampler`).
        held = _latest(study, whole.keys() - search_space.keys())
        if search_space and search_space.keys() <= fixed.keys():
            return {}
        if not search_space or held is None:
            study._storage.set_trial_system_attr(trial._trial_id, MODEL, _record(None, {}))
            return {}
        with self._lock:
            proposer, signs = self._proposers.of(study, whole)
            given = proposer.grid.choices_in({**held, **fixed})
            readings = -1
            while True:
                trials = study._storage.get_all_trials(study._study_id, deepcopy=False)
                # Others who ask now work out what this trial gets, from what had ended when it began.
                history = self._read(trials, proposer, signs, trial.number, trial.datetime_start)
                # What had ended by then may be stored only now.
                if len(history.rows) == readings:
                    break
                readings = len(history.rows)
                self._refuse_unasked(proposer, history, trials)
                self._warn_of_missing(trials)
                others = [
                    (number, self._read(trials, proposer, signs, number, as_of=began))
                    for number, began in history.unseen[-MOST_UNSEEN:]
                ]
                proposal = proposer.propose(history, trial.number, fixed=given, others=others)
                if not len(history.pending) and not history.unseen:
                    break
        params = proposer.grid.params(proposal.row[None])[0]
        study._storage.set_trial_system_attr(trial._trial_id, MODEL, _record(proposal, params))
        return {} if self._options.space is not None else {name: params[name] for name in search_space}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The proposal's value if it is in range; before the space is known, that of ``initial``; else at random.

        Raises:
            ConfigError: the parameter has too many values, or ``space`` has another kind of it.
        """
        choices = choices_of(param_name, param_distribution)
        space, listed = self._options.space, self._options.listed
        if space is not None and param_name in space:
            check_kind(param_name, space[param_name], param_distribution)
        wanted = dict(listed[trial.number]) if trial.number < len(listed) else {}
        wanted |= proposed_params(trial)
        if param_name in wanted:
            value = wanted[param_name]
            if isinstance(choices, Interval):
                if isinstance(value, float) and choices.nearest(value) is not None:
                    return value
            elif any(value == choice and type(value) is type(choice) for choice in choices):
                return value
        entropy = [self._options.entropy, 2, trial.number, *param_name.encode()]
        seed = np.random.default_rng(entropy).integers(2**31)
        return RandomSampler(seed=int(seed)).sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Checks that trials ask for the parameters of ``space``, and that known functions give the told values.

        Raises:
            ConfigError: they do not.
        """
        with self._lock:
            proposer = self._proposers.latest(study)
            if state == TrialState.COMPLETE and values is not None:
                self._told.add(identity(study), trial, values)
                if proposer is not None:
                    self._told.check(identity(study), proposer.grid)
            space = self._options.space
            missing = space is not None and not space.keys() <= trial.params.keys()
            if proposer is not None and missing and state in ENDED:
                ended = copy(trial)
                ended.state, ended.values = state, values
                trials = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number]
                history = self._read([*trials, ended], proposer, self._options.signs(study), -1)
                self._refuse_unasked(proposer, history, trials)

    def _refuse_unasked(self, proposer: Proposer, history: History, trials: Sequence[FrozenTrial]) -> None:
        """Refuse a name in ``space`` that no trial asks for, once nothing is left that it may depend on."""
        never = np.flatnonzero((history.asked < 0).all(axis=0))
        if (
            self._options.space is None
            or not len(history.asked)
            or not len(never)
            or proposer.probe(history) is not None
        ):
            return
        name = proposer.grid.names[int(never[0])]
        others = {name for trial in trials for name in trial.params} - self._options.space.keys()
        raise ConfigError(
            f"space names {name!r}, and none of {len(history.asked)} trials with other values of the other parameters"
            f" has asked for it: take it out, or correct its name.{nearest(name, others)}"
        )

    def _warn_of_missing(self, trials: Sequence[FrozenTrial]) -> None:
        """Say once that no trial has the evidence."""
        text = None if self._warned else unheard(trials, self._options.evidence)
        if text is not None:
            self._warned = True
            warnings.warn(text, stacklevel=2)

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
            return proposer.belief(history).at(_rows(proposer.grid, params))

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
            if objective in self._options.known or not 0 <= objective < len(study.directions):
                raise ConfigError(
                    f"objective {objective} is not modelled; contrasts are of modelled objectives."
                )
            rows = _rows(proposer.grid, plus), _rows(proposer.grid, minus)
            return proposer.belief(history).contrast(*rows, objective)

    def learned(self, study: Study) -> dict[int, Learned]:
        """What the model has learned from the attributes that are evidence, by the number of the objective.

        Raises:
            ConfigError: no trial has finished.
        """
        with self._lock:
            proposer, history = self._current(study)
            belief = proposer.belief(history)
            return {column: belief.learned(column) for column in sorted(self._options.evidence)}

    def trust(self, study: Study) -> list[float]:
        """How far the model trusts each function given as ``prior``, from 0 to 1.

        It is the share of the variance of the first modelled objective's predictions over the space that the estimate
        explains.

        Raises:
            ConfigError: no trial has finished.
        """
        with self._lock:
            proposer, history = self._current(study)
            return proposer.trust(history)

    def _read(
        self,
        trials: Sequence[FrozenTrial],
        proposer: Proposer,
        signs: Array,
        number: int,
        as_of: datetime | None = None,
    ) -> History:
        return read(trials, proposer.grid, signs, number, as_of, self._options.evidence)

    def _current(self, study: Study) -> tuple[Proposer, History]:
        """The proposer and the history of all trials of the study."""
        trials = study.get_trials(deepcopy=False)
        space = self.infer_relative_search_space(study, trials[-1]) if trials else {}
        if space:
            proposer, signs = self._proposers.of(study, space)
            history = self._read(trials, proposer, signs, len(trials))
            if len(history.rows):
                return proposer, history
        raise ConfigError("the study has no finished trial yet: there is nothing to predict from.")


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


def _latest(study: Study, names: Set[str]) -> dict[str, Any] | None:
    """The values that some parameters had last; None if one of them was never asked for."""
    found: dict[str, Any] = {}
    for trial in reversed(study.get_trials(deepcopy=False, states=ENDED) if names else []):
        found = {name: trial.params[name] for name in names if name in trial.params} | found
    return found if found.keys() == names else None


def _record(proposal: Proposal | None, params: Params) -> dict[str, Any]:
    """What was proposed and what the model expected, ready for JSON."""
    if proposal is None:
        proposal = Proposal(row=np.empty(0, dtype=np.int64), source="initial")
    return {
        "source": proposal.source,
        "params": params,
        "improvement": proposal.improvement,
        "mean": None if proposal.mean is None else list(proposal.mean),
        "sd": None if proposal.sd is None else list(proposal.sd),
    }
