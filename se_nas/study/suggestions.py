"""Where candidates come from: the queue, then the sampler; never an architecture twice, never over a limit."""

from __future__ import annotations

import enum
import logging
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, Trial

from se_nas.architecture import Architecture
from se_nas.samplers.pareto_sampler import DUPLICATE, ParetoSampler
from se_nas.space.costs import Identity, KnownCost
from se_nas.study.attributes import FIXED, LOSS, OVER_LIMIT
from se_nas.study.plan import Plan
from se_nas.study.sampler_choice import named_sampler
from se_nas.study.sampler_process import SamplerProcess
from se_nas.study.shared_storage import SharedStore
from se_nas.study.storage import StudyStore
from se_nas.study.warm_start import priors

_log = logging.getLogger(__name__)

MAX_MISSES = 50
"""Suggestions in a row that may be duplicates or over a limit before one is drawn at random from those left."""
MAX_DRAWS = 2000
QUICK_SECONDS = 0.05
"""A suggestion that takes so long at most, of the processor, may be made in a turn, for which all others wait."""
REPEAT_SEEDS = 10_000
"""Further readings in the search have seeds from here on, counted from the run's own."""


class Again(enum.Enum):
    """What was prepared does not hold any more: prepare again, and take another turn."""

    AGAIN = enum.auto()


Found = tuple[Trial | FrozenTrial, Architecture] | None
"""A trial and what it is to evaluate; None if nothing is left."""


@dataclass(frozen=True, kw_only=True)
class _Prepared:
    """What a rehearsed suggestion came to.

    Attributes:
        trials: those that it made, in order; the last is the one that was found, if any was.
        before: how many trials there were.
        architecture: what was found.
        known: what was known of it.
        quick: whether it may be repeated in a turn.
    """

    trials: Sequence[FrozenTrial]
    before: int
    architecture: Architecture | None
    known: tuple[bool, frozenset[int]] | None
    quick: bool


class Suggestions:
    """Asks the study for candidates.

    A suggestion that has been evaluated already gets its values again, without training, unless the sampler
    asks for another reading on purpose. Limits are Optuna's constraints: one over a limit is recorded as pruned, with
    how far it is above, which no sampler reads as a value.

    Args:
        plan: the resolved search.
        store: the study.
        in_process: whether `ParetoSampler` is computed in another process; then ``close`` it.
    """

    def __init__(self, plan: Plan, store: StudyStore, *, in_process: bool = False) -> None:
        self._plan, self._store = plan, store
        self._prepared: _Prepared | None = None
        sampler = self._sampler()
        self._process: SamplerProcess | None = None
        if in_process and isinstance(sampler, ParetoSampler):
            sampler = self._process = SamplerProcess(sampler, store.study.directions)
        self._store.study.sampler = sampler
        if store.shared:
            # With one seed, workers would all draw what the first one has drawn, again and again.
            self._store.study.sampler.reseed_rng()

    def _sampler(self) -> BaseSampler:
        config = self._plan.config
        if config.sampler == "pareto":
            return pareto_sampler(self._plan, seed=None if self._store.shared else config.seed)
        return named_sampler(config.sampler, seed=config.seed, choices=self._plan.space.choices)

    def prepare(self) -> None:
        """Find by what is known now, without a turn, what ``next`` returns in the turn that follows.

        Others need not wait for sampler and measurements then: the turn claims what was found, unless others have
        evaluated the same meanwhile.
        """
        assert isinstance(self._store, SharedStore)
        before, began = self._store.num_trials, time.thread_time()
        with self._store.rehearsal() as trials:
            found = self._find()
        quick = not self._plan.constraints.measured and time.thread_time() - began <= QUICK_SECONDS
        architecture = None if found is None else found[1]
        known = None if architecture is None else self._known(architecture)
        self._prepared = _Prepared(
            trials=trials, before=before, architecture=architecture, known=known, quick=quick
        )

    def next(self) -> Found | Again:
        """A trial with an architecture that is new and within the limits; None if none is left.

        ``AGAIN`` only after ``prepare``.
        """
        # It stays prepared: a turn that fails is taken again.
        return self._find() if self._prepared is None else self._taken(self._prepared)

    def forget(self) -> None:
        """What was prepared is for no turn any more."""
        self._prepared = None

    def _taken(self, prepared: _Prepared) -> Found | Again:
        """What was prepared, if it still holds."""
        assert isinstance(self._store, SharedStore)
        architecture, trials = prepared.architecture, list(prepared.trials)
        last = trials.pop() if architecture is not None else None
        for missed in trials:
            self._store.adopt(missed, queued=missed.number < prepared.before)
        if last is None or architecture is None:
            return None
        if self._known(architecture) == prepared.known:
            trial = self._store.adopt(last, queued=last.number < prepared.before)
            if trial is not None:
                return trial, architecture
        return self._find() if prepared.quick else Again.AGAIN

    def _known(self, architecture: Architecture) -> tuple[bool, frozenset[int]]:
        """Whether an architecture was begun, and with which seeds in the search."""
        key = architecture.key
        return key in self._store.values_by_key(), frozenset(self._store.seeds_of(key))

    def _find(self) -> tuple[Trial, Architecture] | None:
        seen = self._store.values_by_key()
        for _ in range(MAX_MISSES):
            found = self._propose(seen)
            if found is not None:
                return found
            if self._exhausted(seen):
                return None
        architecture = self._draw(seen)
        if architecture is None:
            return None
        with self._store.together():
            self._store.enqueue(self._plan.space.params(architecture), architecture)
            return self._propose(seen)

    def close(self) -> None:
        """End the sampler's process if there is one."""
        if self._process is not None:
            self._process.close()

    def seed(self, architecture: Architecture) -> int:
        """The seed to train an architecture with in the search: the run's own, and another for another reading.

        Those of the final phase are never among them: a finalist's readings must be new.
        """
        own, used = self._plan.config.seed, self._store.seeds_of(architecture.key)
        return next(seed for seed in chain([own], count(own + REPEAT_SEEDS)) if seed not in used)

    def _propose(self, seen: Mapping[str, list[float] | None]) -> tuple[Trial, Architecture] | None:
        trial = self._store.ask()
        fixed = trial.user_attrs.get(FIXED)
        architecture = Architecture.from_dict(fixed) if fixed else self._plan.space.suggest(trial)
        excess = self._plan.constraints.excess(architecture)
        for cost, value in excess.items():
            trial.set_constraint(cost, value)
        if any(value > 0 for value in excess.values()):
            _log.debug("suggestion %d is over a limit: %s", trial.number, architecture)
            self._store.mark(trial.number, **{OVER_LIMIT: True})
            # Samplers that know constraints learn from pruned trials how far these are broken.
            self._store.tell(trial.number, None, stopped=True)
            return None
        if architecture.key in seen and not self._store.is_repeat(trial.number):
            values = seen[architecture.key]
            _log.debug("suggestion %d was evaluated before: %s", trial.number, architecture)
            self._store.mark(trial.number, **{DUPLICATE: architecture.key})
            self._store.tell(trial.number, values)
            return None
        _log.debug("suggestion %d: %s", trial.number, architecture)
        return trial, architecture

    def _exhausted(self, seen: Mapping[str, Any]) -> bool:
        space = self._plan.space
        return len(seen) >= space.size and all(arch.key in seen for arch in space.enumerate())

    def _draw(self, seen: Mapping[str, Any]) -> Architecture | None:
        """A random architecture among those left; the draw depends on the seed and on how far the run is."""
        rng = np.random.default_rng([self._plan.config.seed, self._store.num_trials])
        space = self._plan.space
        for _ in range(MAX_DRAWS):
            architecture = space.sample(rng)
            if architecture.key not in seen and self._plan.constraints.allow(architecture):
                return architecture
        if space.size > MAX_DRAWS:
            return None
        left = (arch for arch in space.enumerate() if arch.key not in seen)
        return next((arch for arch in left if self._plan.constraints.allow(arch)), None)


def pareto_sampler(plan: Plan, *, seed: int | None) -> ParetoSampler:
    """The sampler of a run: with its known costs, limits and repeats, the loss as evidence, and what earlier runs say.

    Equal networks are one point. Without a ``seed``, workers that ask at the same instant propose different points.

    Raises:
        RunError: what the manifest holds of an earlier run is damaged.
    """
    known = {}
    for number, name in enumerate(plan.config.objectives[1:], start=1):
        costs = plan.axes[name].by_widths()
        if costs is not None:
            known[number] = KnownCost(plan.space, costs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return ParetoSampler(
            known=known,
            seed=seed,
            key=Identity(plan.space),
            space=plan.space.choices,
            feasible=plan.constraints.feasible(),
            repeats=True,
            evidence={0: LOSS},
            prior=priors(plan.space, plan.earlier) or None,
        )
