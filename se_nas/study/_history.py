"""What a study says so far, as arrays: readings, points in progress, and what was asked for."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from se_nas.study._candidates import Array, Grid, Index

PARTIAL = "se_nas:partial"
"""User attribute of a trial that was stopped early: ``{"mean": [...], "sd": [...]}``, a number or null for
each objective, in the study's own units: what the trial would have reached, extrapolated."""


@dataclass(frozen=True, kw_only=True)
class History:
    """Readings in the order of trials; objectives are turned so that all are maximised.

    Attributes:
        rows: (n, n_params) points with a reading.
        values: (n, n_objectives) readings.
        extra: (n, n_objectives) further deviation of readings that were extrapolated, else 0.
        barred: (n,) readings of points that broke a constraint: they inform, but are on no front.
        pending: (n_pending, n_params) points in progress.
        unseen: how many trials with lower numbers are being proposed right now, their params not yet known.
        keys: keys of everything that was asked for.
    """

    rows: Index
    values: Array
    extra: Array
    barred: NDArray[np.bool_]
    pending: Index
    unseen: int
    keys: frozenset[Hashable]


def read(trials: Sequence[FrozenTrial], grid: Grid, signs: Array, number: int) -> History:
    """The history that trial ``number`` may use. Trials with parameters outside the grid are left out."""
    rows, values, extra, barred, pending = [], [], [], [], []
    canonical: dict[Hashable, Index] = {}
    asked: list[tuple[FrozenTrial, Index]] = []
    unseen = 0
    for trial in trials:
        if trial.number == number or trial.state == TrialState.WAITING:
            continue
        row = grid.row(trial.params)
        if row is None:
            unseen += trial.state == TrialState.RUNNING and trial.number < number
            continue
        asked.append((trial, row))
    keys = grid.keys(np.array([row for _, row in asked], dtype=np.int64).reshape(-1, len(grid.names)))
    for (trial, own), key in zip(asked, keys, strict=True):
        row = canonical.setdefault(key, own)
        if trial.state == TrialState.RUNNING:
            pending.append(row)
            continue
        reading = reading_of(trial, len(signs))
        if reading is None:
            continue
        rows.append(row)
        values.append(signs * reading[0])
        extra.append(reading[1])
        barred.append(any(value > 0 for value in trial.constraints.values()))
    width, count = len(grid.names), len(signs)
    return History(
        rows=np.array(rows, dtype=np.int64).reshape(-1, width),
        values=np.array(values, dtype=float).reshape(-1, count),
        extra=np.array(extra, dtype=float).reshape(-1, count),
        barred=np.array(barred, dtype=bool),
        pending=np.array(pending, dtype=np.int64).reshape(-1, width),
        unseen=unseen,
        keys=frozenset(keys),
    )


def reading_of(trial: FrozenTrial, count: int) -> tuple[Array, Array] | None:
    """Values and their further deviations (count,); None for a trial that says nothing (failed, NaN)."""
    partial = trial.user_attrs.get(PARTIAL)
    complete = trial.state == TrialState.COMPLETE and trial.values is not None and len(trial.values) == count
    values: Sequence[Any] = trial.values if complete and trial.values is not None else [math.nan] * count
    deviations: Sequence[Any] = [0.0] * count
    if isinstance(partial, dict) and trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
        means, sds = partial.get("mean", []), partial.get("sd", [])
        if len(means) == count == len(sds):
            values = [v if m is None else m for v, m in zip(values, means, strict=True)]
            deviations = [0.0 if s is None else s for s in sds]
    out = np.array(values, dtype=float), np.array(deviations, dtype=float)
    return out if np.isfinite(out[1]).all() and not np.isnan(out[0]).all() else None
