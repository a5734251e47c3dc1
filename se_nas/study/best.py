"""The best candidate so far, with the uncertainty that its readings leave."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from se_nas.pareto import t_quantile_975, wilson


@dataclass(frozen=True, kw_only=True)
class Best:
    """The candidate with the best mean accuracy.

    Attributes:
        number: its first trial.
        accuracy: mean over its readings, in percent.
        interval: 95 % interval in percent: over seeds, with the scatter of all candidates; for a single reading, or if
            no candidate's readings differ, over the choice of validation images; None if neither is known.
        readings: how many there are.
    """

    number: int
    accuracy: float
    interval: tuple[float, float] | None
    readings: int

    def __str__(self) -> str:
        if self.interval is None:
            return f"{self.accuracy:.2f} %"
        return f"{self.accuracy:.2f}±{(self.interval[1] - self.interval[0]) / 2:.2f} %"


def best_so_far(rows: Sequence[Mapping[str, Any]], phase: str, num_val: int | None) -> Best | None:
    """The best of the candidates that have a complete reading of that phase; None if there is none.

    Args:
        rows: of the table of trials.
        phase: "search" or "final"; readings of another phase have another schedule, or were selected.
        num_val: number of validation images; None if it is not known.
    """
    members: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["phase"] == phase and row["state"] == "complete" and row.get("accuracy") is not None:
            members.setdefault(row["key"], []).append(row)
    if not members:
        return None
    readings = max(members.values(), key=lambda found: fmean(row["accuracy"] for row in found))
    groups = [[float(row["accuracy"]) for row in found] for found in members.values()]
    values = [float(row["accuracy"]) for row in readings]
    return Best(
        number=readings[0]["number"],
        accuracy=fmean(values),
        interval=_interval(values, groups, num_val),
        readings=len(values),
    )


def _interval(
    values: Sequence[float], groups: Sequence[Sequence[float]], num_val: int | None
) -> tuple[float, float] | None:
    """Over seeds with the scatter of all candidates: two readings that happen to be equal are not certain."""
    squares = sum((value - fmean(group)) ** 2 for group in groups for value in group)
    if len(values) == 1 or squares == 0:
        return wilson(fmean(values), num_val) if num_val else None
    dof = sum(len(group) - 1 for group in groups)
    half = float(t_quantile_975(dof)) * math.sqrt(squares / dof / len(values))
    return fmean(values) - half, fmean(values) + half
