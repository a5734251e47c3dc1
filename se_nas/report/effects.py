"""What SE in each stage and block gains and costs: in the sampler's model, or by least squares without it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from se_nas.pareto import t_quantile_975
from se_nas.report.differences import Gain, cost_ratio
from se_nas.report.pareto_report import ParetoReport

BLOCK = re.compile(r"stage(?P<stage>\d+)\.block(?P<block>\d+)")
_STAGE = re.compile(r"stage (?P<stage>\d+)")


@dataclass(frozen=True, kw_only=True)
class StageEffect:
    """SE in one stage against none there.

    ``accuracy`` in points; ``costs``, by the names of the run's costs, in percent of the plain backbone. None if
    the readings cannot tell, for the reason in ``note``. ``placement`` says which SE is compared with none.
    """

    stage: int
    num_sites: int
    placement: str
    accuracy: Gain | None
    costs: Mapping[str, Gain | None]
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class BlockEffect:
    """SE in one block against none there, averaged over the search space, in the sampler's model.

    ``cost_percent`` is the change of the first cost in percent.
    """

    stage: int
    block: int
    accuracy: Gain
    cost_percent: float | None


def stage_effects(report: ParetoReport) -> list[StageEffect]:
    """One entry per stage: from the sampler's model if the manifest has its effects, or else by least squares."""
    return modelled(report) or fitted(report)


def modelled(report: ParetoReport) -> list[StageEffect]:
    """Averages over the search space in the sampler's model, which knows γ and how stages interact."""
    counts, cost = _num_sites(report), report.costs[0].name
    found = []
    for row in report.manifest.effects:
        match = _STAGE.fullmatch(str(row["group"]))
        if match is None or row.get("choice") is not None:
            continue
        stage, change = int(match["stage"]), row.get("cost_percent")
        found.append(
            StageEffect(
                stage=stage,
                num_sites=counts.get(stage, 0),
                placement=f"SE in stage {stage} as in the search space",
                accuracy=_gain(row),
                costs={cost: None if change is None else Gain(value=change, half_width=None)},
            )
        )
    return found


def block_effects(report: ParetoReport) -> list[BlockEffect]:
    """One entry per block that is a choice of its own in the search space, in order; from the sampler's model."""
    found = {}
    for row in report.manifest.effects:
        match = BLOCK.fullmatch(str(row["group"]))
        gain = _gain(row)
        if match is None or gain is None or not isinstance(row.get("choice"), bool):
            continue
        # The effect is that of the choice against the other one.
        sign, change = 1 if row["choice"] else -1, row.get("cost_percent")
        place = int(match["stage"]), int(match["block"])
        found[place] = BlockEffect(
            stage=place[0],
            block=place[1],
            accuracy=Gain(value=sign * gain.value, half_width=gain.half_width),
            cost_percent=None if change is None else sign * change,
        )
    return [found[place] for place in sorted(found)]


def _gain(row: Mapping[str, Any]) -> Gain | None:
    """The effect on accuracy in a row of the manifest."""
    if row.get("effect") is None:
        return None
    interval: Sequence[float] | None = row.get("interval")
    return Gain(value=row["effect"], half_width=(interval[1] - interval[0]) / 2 if interval else None)


def fitted(report: ParetoReport) -> list[StageEffect]:
    """From a linear model: reading = level + sum over stages of effect times share of sites with SE.

    Accuracies are those of the search at one schedule, so that all candidates enter, not the finalists alone;
    the model does not know γ, nor any interplay of stages. Empty if candidates have no list of sites.
    """
    usable = [candidate for candidate in report.candidates if _sites(report, candidate.position)]
    if not usable:
        return []
    stages = sorted({site.stage for sites in report.sites.values() for site in sites})
    columns = {stage: column for column, stage in enumerate(stages)}
    shares = np.zeros((len(usable), len(stages)))
    for row, candidate in enumerate(usable):
        for placed in candidate.stages:
            shares[row, columns[placed.stage]] = placed.share
    accuracy = np.array([_or_nan(candidate.selection_accuracy) for candidate in usable])
    gains, notes = _least_squares(shares, accuracy)
    added = {
        cost.name: np.array([_or_nan(cost_ratio(report, candidate, cost)) for candidate in usable]) - 1
        for cost in report.costs
    }
    costs = {name: _least_squares(shares, 100 * values)[0] for name, values in added.items()}
    counts = _num_sites(report)
    return [
        StageEffect(
            stage=stage,
            num_sites=counts.get(stage, 0),
            placement=f"SE at all {counts.get(stage, 0)} sites of stage {stage}",
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


def _num_sites(report: ParetoReport) -> dict[int, int]:
    """Number of sites by stage, at the position with the most."""
    counts: dict[int, int] = {}
    for site in max(report.sites.values(), key=len, default=()):
        counts[site.stage] = counts.get(site.stage, 0) + 1
    return counts


def _sites(report: ParetoReport, position: str | None) -> tuple:
    return report.sites.get(position or "", ())


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
