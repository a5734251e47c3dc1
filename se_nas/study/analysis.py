"""What mattered in a run, for its manifest: importance of the parameters, and the effects of stages and γ."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import optuna

from se_nas.run import SEARCH
from se_nas.samplers.importance import LEAST_TRIALS, effects, importance
from se_nas.space.costs import Identity
from se_nas.study.attributes import ROW
from se_nas.study.plan import Plan
from se_nas.study.run_storage import quiet_optuna
from se_nas.study.storage import StudyStore
from se_nas.study.suggestions import pareto_sampler
from se_nas.study.warm_start import prior_runs

_STAGE = re.compile(r"stage(\d+)\.")


def what_mattered(plan: Plan, store: StudyStore) -> dict[str, Any]:
    """The manifest's ``importance`` and ``effects`` (`se_nas.samplers.importance`), ``evidence`` and ``earlier``.

    Over the search's own readings, whichever sampler proposed them; finalists' readings, of which a network
    has several, are left out. Effects are of accuracy, by stage first (all its blocks against none) and then by
    choice, against the first cost among the objectives. Empty ``effects`` with fewer than `LEAST_TRIALS`
    readings. Parameters whose choices all build one network, wherever the search has been, are left out. ``evidence``
    is what the validation loss told the sampler's model of accuracy; ``earlier``, only with prior knowledge, says how
    far each earlier run was trusted.
    """
    study = _searched(plan, store)
    points = [trial.params for trial in study.get_trials(deepcopy=False)]
    used = _that_change(points, plan.space.choices, Identity(plan.space))
    found: dict[str, Any] = {"importance": importance(study, names=used), "effects": []}
    sampler = pareto_sampler(plan, seed=plan.config.seed)
    before = prior_runs(plan.earlier)
    if before and points:
        trusts = dict(zip(before, sampler.trust(study), strict=True))
        found["earlier"] = [asdict(replace(one, trust=trusts.get(one))) for one in plan.earlier]
    if len(points) < LEAST_TRIALS:
        return found
    found["evidence"] = asdict(sampler.learned(study)[0])
    stages = by_stage(plan.space.choices)
    if stages:
        found["effects"] += effects(study, sampler, groups=stages, seed=plan.config.seed)
    found["effects"] += [
        row for row in effects(study, sampler, seed=plan.config.seed) if row["group"] in used
    ]
    return found


def by_stage(names: Sequence[str] | Mapping[str, Any]) -> dict[str, list[str]]:
    """Parameters by the stage in their names, ``stage 0`` before ``stage 1``; those without one are left out."""
    groups: dict[int, list[str]] = {}
    for name in names:
        match = _STAGE.match(name)
        if match:
            groups.setdefault(int(match[1]), []).append(name)
    return {f"stage {stage}": groups[stage] for stage in sorted(groups)}


def _that_change(
    points: Sequence[Mapping[str, Any]], choices: Mapping[str, Sequence[Any]], identity: Identity
) -> list[str]:
    """Parameters by which another network can be made of at least one of ``points``."""
    return [
        name
        for name, values in choices.items()
        if any(len(set(identity.batch([{**point, name: value} for value in values]))) > 1 for point in points)
    ]


def _searched(plan: Plan, store: StudyStore) -> optuna.Study:
    """The search's complete trials that the space can express, in memory: nothing is written to the run."""
    names = plan.space.choices.keys()
    with quiet_optuna():
        study = optuna.create_study(directions=store.study.directions)
        study.add_trials(
            trial
            for trial in store.study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
            if trial.user_attrs.get(ROW, {}).get("phase") == SEARCH and trial.params.keys() == names
        )
    return study
