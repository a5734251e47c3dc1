"""What SE in each stage gains and costs: least squares over the search's own readings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from se_nas.pareto import t_quantile_975
from se_nas.report.differences import Gain, cost_ratio
from se_nas.report.pareto_report import ParetoReport
from se_nas.report.placement import by_stage


@dataclass(frozen=True, kw_only=True)
class StageEffect:
    """SE at every site of one stage against none there, the other stages held as they are.

    ``accuracy`` in points; ``costs``, by the names of the run's costs, in percent of the plain backbone. None if
    the readings cannot tell, for the reason in ``note``.
    """

    stage: int
    num_sites: int
    accuracy: Gain | None
    costs: Mapping[str, Gain | None]
    note: str = ""


def stage_effects(report: ParetoReport) -> list[StageEffect]:
    """One entry per stage, from a linear model: reading = level + sum over stages of effect times share gated.

    Accuracies are those of the search at one schedule, so that all candidates enter, not the finalists alone;
    the model does not know γ, nor any interplay of stages. Empty if candidates have no list of sites.
    """
    usable = [candidate for candidate in report.candidates if _sites(report, candidate.position)]
    if not usable:
        return []
    stages = sorted({site.stage for sites in report.sites.values() for site in sites})
    shares = np.zeros((len(usable), len(stages)))
    for row, candidate in enumerate(usable):
        for placed in by_stage(_sites(report, candidate.position), candidate.widths):
            shares[row, stages.index(placed.stage)] = placed.share
    accuracy = np.array([_or_nan(candidate.selection_accuracy) for candidate in usable])
    gains, notes = _least_squares(shares, accuracy)
    added = {
        cost.name: np.array([_or_nan(cost_ratio(report, candidate, cost)) for candidate in usable]) - 1
        for cost in report.costs
    }
    costs = {name: _least_squares(shares, 100 * values)[0] for name, values in added.items()}
    counts = dict.fromkeys(stages, 0)
    for site in max(report.sites.values(), key=len):
        counts[site.stage] += 1
    return [
        StageEffect(
            stage=stage,
            num_sites=counts[stage],
            accuracy=gains[i],
            costs={name: found[i] for name, found in costs.items()},
            note=notes[i],
        )
        for i, stage in enumerate(stages)
    ]


def _least_squares(shares: np.ndarray, readings: np.ndarray) -> tuple[list[Gain | None], list[str]]:
    """Coefficient of each column of ``shares`` with its 95 % interval."""
    known = ~np.isnan(readings)
    shares, readings = shares[known], readings[known]
    columns = shares.shape[1]
    if len(readings) < 3:
        return [None] * columns, [f"{len(readings)} readings are too few"] * columns
    design = np.column_stack([np.ones(len(readings)), shares])
    inverse = np.linalg.pinv(design.T @ design)
    estimable = np.diag(np.linalg.pinv(design) @ design)[1:] > 1 - 1e-6
    dof = len(readings) - int(np.linalg.matrix_rank(design))
    if dof < 3:
        return [None] * columns, [f"{len(readings)} readings are too few for {columns} stages"] * columns
    coefficients = inverse @ design.T @ readings
    variance = float(((readings - design @ coefficients) ** 2).sum()) / dof
    half_widths = t_quantile_975(dof) * np.sqrt(np.maximum(variance * np.diag(inverse), 0))
    gains: list[Gain | None] = []
    notes = []
    for column in range(columns):
        if estimable[column]:
            value, half_width = coefficients[column + 1], half_widths[column + 1]
            gains.append(Gain(value=float(value), half_width=float(half_width)))
            notes.append("")
        else:
            gains.append(None)
            constant = np.ptp(shares[:, column]) == 0
            notes.append("the same in every reading" if constant else "never varied apart from another stage")
    return gains, notes


def _sites(report: ParetoReport, position: str | None) -> tuple:
    return report.sites.get(position or "", ())


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
