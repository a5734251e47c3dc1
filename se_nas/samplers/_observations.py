"""What a study has found so far, as arrays: readings, points in progress, and what was asked for."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from se_nas.errors import ConfigError, nearest
from se_nas.samplers._conditions import Conditions
from se_nas.samplers._grid import Array, Grid, Index

PARTIAL = "se_nas:partial"
"""User attribute of a trial that was stopped early: what it would have reached, extrapolated, as
``{"mean": [...], "sd": [...]}`` with a number or null for each objective, in the units of the study."""

DUPLICATE = "duplicate_of"
"""User attribute of a trial that was not run but took over the values of another one with equal params."""
MODEL = "se_nas:model"
"""System attribute of a trial: its proposal, where that came from and what the model expected of it."""
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
"""A trial that ended so has asked for all of its parameters."""
HEARD = 5
"""After so many complete trials without the attribute that is evidence, it is taken for missing."""
_PROPOSING = timedelta(minutes=10)
"""After this time a running trial without params is taken for lost: no proposal takes so long."""


@dataclass(frozen=True, kw_only=True)
class History:
    """Readings in the order of trials; signs are such that all objectives are maximised.

    Attributes:
        rows: (n, n_params) points with a reading.
        values: (n, n_objectives) readings.
        extra: (n, n_objectives) further deviation of readings that were extrapolated; 0 for the others.
        evidence: (n, n_objectives) the attribute that is evidence about each objective; NaN where there is none.
        barred: (n,) whether the point broke a constraint: the reading informs the model, but is on no front.
        pending: (n_pending, n_params) points in progress.
        unseen: earlier trials that are being proposed right now, so their params are not known yet: number and
            start of each.
        keys: keys of everything that was proposed or asked for.
        asked: (n_ended, n_params) choices in every trial that ended without failing, -1 for parameters that it
            did not ask for.
        conditions: what ``asked`` says about which parameters are asked for; ``rows`` and ``pending`` are in
            their canonical form.
    """

    rows: Index
    values: Array
    extra: Array
    evidence: Array
    barred: NDArray[np.bool_]
    pending: Index
    unseen: tuple[tuple[int, datetime], ...]
    keys: frozenset[Hashable]
    asked: Index
    conditions: Conditions

    def joined_by(self, rows: Index, keys: Sequence[Hashable]) -> History:
        """The history with ``rows`` (n, n_params) also in progress."""
        return replace(self, pending=np.concatenate([self.pending, rows]), keys=self.keys.union(keys))


def read(
    trials: Sequence[FrozenTrial],
    grid: Grid,
    signs: Array,
    number: int,
    as_of: datetime | None = None,
    attributes: Mapping[int, str] | None = None,
) -> History:
    """The history that trial ``number`` may use. Trials with choices outside the grid are left out.

    With ``as_of``, trials that ended later are still in progress, and those with a later number that had not ended are
    not there. Later is only what may have happened while a trial is proposed for. The rest is a clock that was set, or
    another machine's.
    ``attributes`` has the user attribute that is evidence about an objective, by the objective's number.
    """
    width, count = len(grid.names), len(signs)
    found: list[tuple[FrozenTrial, TrialState, Index]] = []
    proposed: list[Index] = []
    unseen: list[tuple[int, datetime]] = []
    now = datetime.now()
    recent = now - _PROPOSING

    def later(moment: datetime | None) -> bool:
        return as_of is not None and moment is not None and as_of < moment <= min(now, as_of + _PROPOSING)

    for trial in trials:
        if trial.number == number or trial.state == TrialState.WAITING:
            continue
        state: TrialState = TrialState.RUNNING if later(trial.datetime_complete) else trial.state
        # Of two that begin at once, the first number need not have the first start.
        if trial.number > number and (later(trial.datetime_start) or (as_of and state == TrialState.RUNNING)):
            continue
        proposal = proposed_params(trial)
        part = grid.part(trial.params if state in ENDED else {**proposal, **trial.params})
        if proposal and (part is None or proposal != trial.params):
            # If it could not be had, it is not proposed again either.
            row = grid.row(proposal)
            proposed += [] if row is None else [row]
        whole = part is not None and bool((part >= 0).all())
        if state == TrialState.RUNNING and not whole:
            started = trial.datetime_start
            if trial.number < number and started and started > recent:
                unseen.append((trial.number, started))
                continue
        if part is not None and (whole or state != TrialState.FAIL):
            found.append((trial, state, part))
    parts = np.array([part for *_, part in found], dtype=np.int64).reshape(-1, width)
    asked = parts[[state in ENDED for _, state, _ in found]]
    conditions = Conditions.learned(asked)
    own = conditions.canonical(np.maximum(parts, 0))
    keys = grid.keys(own)
    rows, values, extra, evidence, barred, pending = [], [], [], [], [], []
    canonical: dict[Hashable, Index] = {}
    for (trial, state, _), first, key in zip(found, own, keys, strict=True):
        row = canonical.setdefault(key, first)
        if state == TrialState.RUNNING:
            pending.append(row)
            continue
        reading = reading_of(trial, count)
        # A duplicate has the values of another trial, so it is not another reading.
        if reading is None or DUPLICATE in trial.user_attrs:
            continue
        rows.append(row)
        values.append(signs * reading[0])
        extra.append(reading[1])
        evidence.append(evidence_of(trial, reading[1], attributes or {}))
        barred.append(any(value > 0 for value in trial.constraints.values()))
    keys += grid.keys(conditions.canonical(np.array(proposed, dtype=np.int64).reshape(-1, width)))
    return History(
        rows=np.array(rows, dtype=np.int64).reshape(-1, width),
        values=np.array(values, dtype=float).reshape(-1, count),
        extra=np.array(extra, dtype=float).reshape(-1, count),
        evidence=np.array(evidence, dtype=float).reshape(-1, count),
        barred=np.array(barred, dtype=bool),
        pending=np.array(pending, dtype=np.int64).reshape(-1, width),
        unseen=tuple(unseen),
        keys=frozenset(keys),
        asked=asked,
        conditions=conditions,
    )


def proposed_params(trial: FrozenTrial) -> dict[str, Any]:
    """What was proposed for a trial, all parameters of the space; empty if nothing was."""
    return dict(trial.system_attrs.get(MODEL, {}).get("params", {}))


def reading_of(trial: FrozenTrial, count: int) -> tuple[Array, Array] | None:
    """Values and their further deviations (count,); None for a trial without information (failed, NaN)."""
    partial = trial.user_attrs.get(PARTIAL)
    complete = trial.state == TrialState.COMPLETE and trial.values is not None and len(trial.values) == count
    values: Sequence[Any] = trial.values if complete and trial.values is not None else [math.nan] * count
    deviations: Sequence[Any] = [0.0] * count
    if isinstance(partial, dict) and trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
        means, sds = _numbers(trial, partial.get("mean"), count), _numbers(trial, partial.get("sd"), count)
        values = [v if m is None else m for v, m in zip(values, means, strict=True)]
        deviations = [0.0 if s is None else s for s in sds]
    out = np.array(values, dtype=float), np.array(deviations, dtype=float)
    return out if np.isfinite(out[1]).all() and not np.isnan(out[0]).all() else None


def evidence_of(trial: FrozenTrial, extra: Array, attributes: Mapping[int, str]) -> Array:
    """Attributes of a trial by the objective (n_objectives,) about which they are evidence; NaN where it has none.

    What a trial that was stopped early shows is not what it would have shown at its end, so it has none.

    Raises:
        ConfigError: an attribute is not a number.
    """
    out = np.full(len(extra), math.nan)
    for column, name in attributes.items():
        value = trial.user_attrs.get(name)
        if value is not None and (not isinstance(value, Real) or isinstance(value, bool)):
            raise ConfigError(
                f"trial {trial.number} has the user attribute {name!r}, which is evidence about objective {column}, as"
                f" {value!r}; it must be a number."
            )
        if value is not None and trial.state == TrialState.COMPLETE and not extra[column]:
            number = _as_float(value)
            out[column] = number if math.isfinite(number) else math.nan
    return out


def unheard(trials: Sequence[FrozenTrial], attributes: Mapping[int, str]) -> str | None:
    """What a user should know of evidence that no trial has, while trials have other numbers: it may be misspelt.

    None with fewer than `HEARD` complete trials, or if there is nothing to say.
    """
    done = [
        trial for trial in trials if trial.state == TrialState.COMPLETE and DUPLICATE not in trial.user_attrs
    ]
    if len(done) < HEARD:
        return None
    known = {name for trial in done for name in trial.user_attrs}
    numbers = {
        name
        for trial in done
        for name, value in trial.user_attrs.items()
        if isinstance(value, Real) and not isinstance(value, bool)
    }
    missing = [(column, name) for column, name in attributes.items() if name not in known]
    if not missing or not numbers:
        return None
    column, name = missing[0]
    return (
        f"evidence[{column}] is {name!r}, a user attribute that none of {len(done)} complete trials has: it says"
        f" nothing. They have {', '.join(map(repr, sorted(numbers)))}.{nearest(name, numbers)}"
    )


def _as_float(value: Real) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _numbers(trial: FrozenTrial, given: Any, count: int) -> list[Any]:
    """The numbers and nulls of a trial's `PARTIAL`, one for each objective."""
    fits = isinstance(given, list) and len(given) == count
    if not fits or not all(v is None or (isinstance(v, Real) and not isinstance(v, bool)) for v in given):
        raise ConfigError(
            f"trial {trial.number} has {PARTIAL!r} {trial.user_attrs[PARTIAL]!r}; it must be"
            f' {{"mean": [...], "sd": [...]}} with {count} numbers or nulls each.'
        )
    return list(given)


def fit_count(count: int) -> int:
    """How many readings the hyperparameters are fitted on: all up to 20, then in steps of a tenth."""
    step = 20
    while step + max(1, step // 10) <= count:
        step += max(1, step // 10)
    return min(count, step)


def thinned(rows: Index, cap: int) -> Index:
    """At most ``cap`` of the readings: the latest, which are near the front, and as many of the others."""
    if len(rows) <= cap:
        return rows
    latest = cap // 2
    early = rows[:-latest]
    return np.concatenate([early[np.linspace(0, len(early) - 1, cap - latest).astype(int)], rows[-latest:]])
