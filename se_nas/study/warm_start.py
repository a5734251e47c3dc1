"""Readings of an earlier run as readings of this one, where they measured the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.distributions import CategoricalDistribution
from optuna.trial import create_trial

from se_nas.cost import differences
from se_nas.errors import RunError
from se_nas.run import ROW_FIELDS, RunFolder
from se_nas.study.config import SearchConfig
from se_nas.study.storage import COLUMNS, FROM_TRIAL, IMPORTED, SEARCH, StudyStore

if TYPE_CHECKING:
    from se_nas.study.plan import Plan

_TRAINED_BY = ("trainer", "pretrained", "checkpoint", "init")
"""Settings of a configuration that change what a training reads, and that no recipe holds."""


def check_source(plan: Plan) -> None:
    """Refuse a run whose readings are not comparable, with every reason.

    Raises:
        RunError: there is no such run, or it differs in what makes a reading.
    """
    source = plan.config.warm_start
    if source is None:
        return
    folder = RunFolder.open(source)
    manifest, config = folder.manifest, folder.config
    ours = {
        "search space": plan.space.fingerprint,
        "data": plan.data.fingerprint,
        "split seed": plan.data.split_seed,
        "input size": list(plan.data.input_size),
        "objectives": list(plan.config.objectives),
        "recipe": plan.recipe.to_dict(),
        **{name: getattr(plan.config, name) for name in _TRAINED_BY},
    }
    theirs = {
        "search space": manifest["space"]["fingerprint"],
        "data": manifest["data"]["fingerprint"],
        "split seed": manifest["data"]["split_seed"],
        "input size": manifest["input_size"],
        "objectives": manifest["objectives"],
        "recipe": manifest["recipe"],
        **{name: config.get(name, SearchConfig.model_fields[name].default) for name in _TRAINED_BY},
    }
    reasons = [name for name in ours if ours[name] != theirs[name]]
    if plan.axis is not None and manifest["latency"] is not None:
        reasons += differences(manifest["latency"], plan.axis.meter.conditions)
    if reasons:
        raise RunError(
            f"--warm-start {source}: its readings cannot stand beside new ones; it differs in: {'; '.join(reasons)}."
        )


def import_readings(plan: Plan, store: StudyStore) -> int:
    """Add the finished search trials of ``config.warm_start`` to the study; returns how many.

    They inform the sampler and stand in the table; they count neither as candidates of this run nor as
    reasons to train the same network again.
    """
    if plan.config.warm_start is None:
        return 0
    distributions = {name: CategoricalDistribution(values) for name, values in plan.space.choices.items()}
    count = 0
    for row in RunFolder.open(Path(plan.config.warm_start)).rows():
        values = _values(plan, row)
        if values is None or row["phase"] != SEARCH or row["state"] != "complete":
            continue
        fields = {name: row[name] for name in ROW_FIELDS if name not in FROM_TRIAL}
        if plan.axis is not None and row["latency_ratio"] is not None:
            fields["latency_ms"] = row["latency_ratio"] * plan.axis.baseline_ms
        given = row["params"] or {}
        store.study.add_trial(
            create_trial(
                params=given,
                distributions={name: distributions[name] for name in given},
                values=values,
                user_attrs={**fields, "state": "complete", IMPORTED: str(plan.config.warm_start)},
            )
        )
        count += 1
    return count


def _values(plan: Plan, row: Mapping[str, Any]) -> list[float] | None:
    found = [row[COLUMNS[name]] for name in plan.config.objectives]
    if any(value is None for value in found):
        return None
    if plan.axis is not None and "latency" in plan.config.objectives:
        index = plan.config.objectives.index("latency")
        found[index] = row["latency_ratio"] * plan.axis.baseline_ms
    return [float(value) for value in found]
