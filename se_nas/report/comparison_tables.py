"""Tables of a comparison, as text by column name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import stdev

import numpy as np

from se_nas.objectives import volume_unit
from se_nas.pareto import attained, hypervolume, igd_plus, t_quantile_975
from se_nas.report.attainment import Difference
from se_nas.report.frame import Frame
from se_nas.report.verdicts import Pair

_LEVELS = 6


def fronts_table(frame: Frame) -> list[dict[str, str]]:
    """One row per group: indicators as text by column name, means over repeats."""
    rows = []
    unit = volume_unit(frame.objectives)
    whole = hypervolume(frame.union_front, frame.reference, frame.directions)
    # Four digits of the largest there can be, which is far below 1 if the networks are small.
    decimals = max(4, 3 - math.floor(math.log10(whole / unit))) if whole else 4
    for name, group in zip(frame.group_names, frame.groups, strict=True):
        fronts = [frame.entries[index].front for index in group]
        sizes = [len(front) for front in fronts]
        volumes = [frame.hypervolume(index) for index in group]
        row = {
            "run": name,
            "front": "–".join(str(size) for size in sorted({min(sizes), max(sizes)})),
            "accuracies": "final" if all(frame.reports[index].final for index in group) else "provisional",
            "best accuracy %": _mean_text([front[:, 0].max() for front in fronts], 2),
            "hypervolume": _mean_text([volume / unit for volume in volumes], decimals),
            "of the union %": f"{100 * float(np.mean(volumes)) / whole:.1f}" if whole else "",
            "IGD+": _mean_text([igd_plus(front, frame.union_front, frame.directions) for front in fronts], 4),
        }
        for other, others in zip(frame.group_names, frame.groups, strict=True):
            if len(frame.groups) <= 4:
                shares = [frame.dominated_share(i, j) for i in group for j in others]
                row[f"dominated by {other} %"] = (
                    "" if other == name else f"{100 * float(np.mean(shares)):.0f}"
                )
        rows.append(row)
    return rows


def equal_cost(frame: Frame, pairs: Sequence[Pair]) -> list[dict[str, str]]:
    """Best accuracy within costs spread over the range that all runs share; differences to the first."""
    rows = []
    cost = frame.objectives[1]
    for budget in _levels(frame, 1):
        row = {f"{cost.name} ≤ {cost.unit}": f"{budget / cost.scale:.3f}"}
        for name, group in zip(frame.group_names, frame.groups, strict=True):
            row[f"{name} %"] = _mean_text([frame.entries[i].best(np.array([budget]))[0] for i in group], 2)
        for pair in pairs:
            found = pair.difference
            place = int(np.searchsorted(found.budgets, budget, side="right")) - 1
            row[f"{pair.second} − {pair.first}"] = _band(found, place)
        rows.append(row)
    return rows


def equal_accuracy(frame: Frame) -> list[dict[str, str]]:
    """Least cost that reaches accuracies spread over the range that all runs share."""
    rows = []
    cost = frame.objectives[1]
    for level in _levels(frame, 0):
        row = {"accuracy ≥ %": f"{level:.2f}"}
        for name, group in zip(frame.group_names, frame.groups, strict=True):
            costs = [
                attained(frame.entries[i].values, [level], frame.directions, objective=1, given=0)[0]
                / cost.scale
                for i in group
            ]
            row[f"{name} {cost.unit}"] = _mean_text(costs, 3)
        rows.append(row)
    return rows


def _levels(frame: Frame, column: int) -> list[float]:
    """Values of an objective between the ends that all fronts share."""
    fronts = [entry.front[:, column] for entry in frame.entries]
    low, high = max(front.min() for front in fronts), max(front.max() for front in fronts)
    if column == 0:
        low, high = min(front.min() for front in fronts), min(front.max() for front in fronts)
    if low > high:
        return []
    values = np.unique(np.concatenate(fronts))
    values = values[(values >= low) & (values <= high)]
    chosen = np.linspace(0, len(values) - 1, min(_LEVELS, len(values))).round().astype(int)
    return [float(value) for value in values[chosen]]


def _mean_text(values: Sequence[float], digits: int) -> str:
    """A mean over repeats with half of its 95 % interval; – if a run has none."""
    if any(not math.isfinite(value) for value in values):
        return "–"
    mean = float(np.mean(values))
    if len(values) == 1:
        return f"{mean:.{digits}f}"
    half_width = t_quantile_975(len(values) - 1) * stdev(map(float, values)) / math.sqrt(len(values))
    return f"{mean:.{digits}f}±{half_width:.{digits}f}"


def _band(found: Difference, place: int) -> str:
    if place < 0 or not math.isfinite(found.value[place]):
        return "–"
    value = f"{found.value[place]:+.2f}"
    if math.isfinite(found.low[place]):
        value += f" [{found.low[place]:+.2f}, {found.high[place]:+.2f}]"
    return value.replace("-", "−")
