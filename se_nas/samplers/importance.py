"""Which parameters matter: their importance (PED-ANOVA), and effects with intervals (the sampler's model)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.study import StudyDirection
from optuna.trial import TrialState

from se_nas.errors import ConfigError, nearest
from se_nas.samplers._parameters import a_few, choices_of
from se_nas.samplers.pareto_sampler import ParetoSampler

LEAST_TRIALS = 10
"""With fewer, PED-ANOVA cannot set the best trials against the others."""
BEST_TRIALS, BEST_SHARE = 5, 0.1
"""The best tenth, but at least this many trials, as Optuna advises."""
_TIED = "Target and region quantiles select the same set"
"""How Optuna's warning starts if no trials are left to set the best against."""
BACKGROUND = 96
"""Random architectures over which an effect is averaged."""


def importance(
    study: optuna.Study, *, objective: int = 0, names: Sequence[str] | None = None
) -> dict[str, Any]:
    """Share of each parameter in reaching the best trials, from 0 to 1; the shares sum to 1.

    PED-ANOVA (Watanabe et al., IJCAI 2023) as in Optuna: descriptive, without intervals, and only over
    parameters that all complete trials have.

    Args:
        objective: what ``"objective"`` in the result is about; 0 is accuracy in the studies of se-nas.
        names: parameters that get a share; None for all. One that cannot change anything would get it by chance.

    Returns:
        ``{"objective": {name: share} | None, "trade_off": {name: share} | None, "best": float,
        "reason": str | None}``; None with the reason if the study cannot tell. ``trade_off`` is about reaching
        the front; ``best`` is the share of trials that count as best: a tenth, or more with few trials.
    """
    # It brings scikit-learn and pandas, 90 MB that a search does not need before its end.
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    best = max(BEST_SHARE, BEST_TRIALS / max(len(complete), LEAST_TRIALS))
    nothing = {"objective": None, "trade_off": None, "best": best}
    if len(complete) < LEAST_TRIALS:
        return nothing | {"reason": f"{len(complete)} complete trials; {LEAST_TRIALS} are needed"}
    chosen = None if names is None else list(names)
    if chosen == []:
        return nothing | {"reason": "no parameter has any effect"}
    sign = -1.0 if study.directions[objective] == StudyDirection.MAXIMIZE else 1.0
    values = np.array([trial.values[objective] for trial in complete])
    if np.ptp(values) == 0:
        return nothing | {"reason": "all complete trials have the same value"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # Whenever a target is given, Optuna reminds that it is minimised; the sign below takes care of that.
        warnings.filterwarnings(
            "ignore", message="PedAnovaImportanceEvaluator computes", category=UserWarning
        )
        warnings.filterwarnings("error", message=_TIED, category=UserWarning)
        try:
            single = get_param_importances(
                study,
                evaluator=PedAnovaImportanceEvaluator(target_quantile=best),
                params=chosen,
                target=lambda trial: sign * trial.values[objective],
            )
            front = get_param_importances(
                study,
                evaluator=PedAnovaImportanceEvaluator(target_quantile=best),
                params=chosen,
            )
        except UserWarning:
            return nothing | {"reason": "too many equal values to tell the best trials from the others"}
    return {"objective": _plain(single), "trade_off": _plain(front), "best": best, "reason": None}


def _plain(shares: Mapping[str, float]) -> dict[str, float]:
    return {name: float(share) for name, share in shares.items()}


def effects(
    study: optuna.Study,
    sampler: ParetoSampler,
    *,
    objective: int = 0,
    cost: int | None = 1,
    groups: Mapping[str, Sequence[str]] | None = None,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """How much a parameter, or all those of a group, change a modelled objective, averaged over the space.

    The reference of a parameter is its choice of least mean cost ("no SE"), or its first if there is no cost. The
    effect of a group is the average objective of random architectures, minus that of the same ones with the
    group's parameters at their references. A single parameter has one effect for each other choice.

    Args:
        sampler: a `ParetoSampler` with the study's known objectives; it need not have run the study.
        objective: number of the modelled objective.
        cost: number of the objective that is paid, from the sampler's model unless it is known. None: effects
            without a cost.
        groups: name (a stage) → its parameters; None: every parameter by itself.
        seed: decides the architectures that are averaged over.

    Returns:
        Rows ``{"group", "choice" (None for a group), "effect", "interval" (95 %, of the model),
        "cost_percent" (mean change of the cost relative to the reference), "per_percent",
        "per_percent_interval"}``. Effects are in the objective's unit. ``per_percent`` is None if the
        cost does not change, or if it is not known exactly and its change cannot be told from none.

    Raises:
        ConfigError: the study has no finished trial, or a name in ``groups`` is not a parameter.
    """
    space = sampler.infer_relative_search_space(study, study.trials[-1]) if study.trials else {}
    choices = {name: a_few(choices_of(name, distribution)) for name, distribution in space.items()}
    rng = np.random.default_rng(seed)
    points = [
        {name: values[int(rng.integers(len(values)))] for name, values in choices.items()}
        for _ in range(BACKGROUND)
    ]
    if not study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)):
        return []

    def price(rows: Sequence[Mapping[str, Any]]) -> float:
        if cost is None:
            return 0.0
        function = sampler.known.get(cost)
        if function is None:
            return float(sampler.predict(study, rows)[0][:, cost].mean())
        batch = getattr(function, "batch", None)
        return float(np.mean(batch(rows) if batch is not None else [function(dict(row)) for row in rows]))

    reference = {
        name: values[int(np.argmin([price([{**p, name: v} for p in points[:16]]) for v in values]))]
        for name, values in choices.items()
    }
    jobs: list[tuple[str, Any, list[dict[str, Any]], list[dict[str, Any]]]] = []
    for name in choices if groups is None else ():
        base = [{**point, name: reference[name]} for point in points]
        for value in (v for v in choices[name] if v != reference[name]):
            jobs.append((name, value, [{**point, name: value} for point in points], base))
    for group, names in (groups or {}).items():
        for unknown in (n for n in names if n not in choices):
            raise ConfigError(
                f"group {group!r} has {unknown!r}, which is not a parameter of the study.{nearest(unknown, choices)}"
            )
        jobs.append((group, None, points, [{**p, **{n: reference[n] for n in names}} for p in points]))
    exact = cost is None or cost in sampler.known
    return [_effect(study, sampler, objective, job, price, None if exact else cost) for job in jobs]


def _effect(
    study: optuna.Study, sampler: ParetoSampler, objective: int, job: Any, price: Any, modelled: int | None
) -> dict[str, Any]:
    group, choice, plus, minus = job
    mean, sd = sampler.contrast(study, plus, minus, objective)
    low, high = mean - 1.96 * sd, mean + 1.96 * sd
    before = price(minus)
    percent = 100 * (price(plus) - before) / before if before else 0.0
    ends, told = None, abs(percent) > 1e-9
    if modelled is not None:
        unsure = 100 * sampler.contrast(study, plus, minus, modelled)[1] / abs(before) if before else np.inf
        told = abs(percent) > 1.96 * unsure
    if told:
        ratio, relative = mean / percent, unsure / percent if modelled is not None else 0.0
        # The delta method, for a quotient of two independent estimates.
        half = 1.96 * float(np.hypot(sd / percent, ratio * relative))
        ends = [ratio - half, ratio + half]
    return {
        "group": group,
        "choice": choice,
        "effect": mean,
        "interval": [low, high],
        "cost_percent": percent,
        "per_percent": mean / percent if told else None,
        "per_percent_interval": ends,
    }
