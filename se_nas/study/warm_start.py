"""Readings of an earlier run as readings of this one, if they measured the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from optuna.distributions import CategoricalDistribution
from optuna.trial import create_trial

from se_nas.checkpoints import fingerprint
from se_nas.cost import differences
from se_nas.cost.axes import CostAxis
from se_nas.data import ImageData
from se_nas.errors import RunError
from se_nas.run import ROW_FIELDS, SEARCH, RunFolder
from se_nas.space import SearchSpace
from se_nas.study.attributes import IMPORTED, LOSS, ROW
from se_nas.study.config import SearchConfig
from se_nas.study.storage import COLUMNS, FROM_TRIAL, StudyStore
from se_nas.training import Recipe

_TRAINED_BY = ("trainer", "pretrained", "checkpoint", "init")
"""Settings of a configuration that change what a training reads, and that no recipe holds."""


def check_source(
    config: SearchConfig,
    space: SearchSpace,
    data: ImageData,
    recipe: Recipe,
    axes: Mapping[str, CostAxis],
) -> None:
    """Refuse ``config.warm_start`` if its readings are not comparable, with every reason.

    Raises:
        RunError: there is no such run, or it differs in what makes a reading.
    """
    source = str(config.warm_start)
    folder = RunFolder.open(source)
    manifest, before = folder.manifest, folder.config
    settings = {name: before.get(name, SearchConfig.model_fields[name].default) for name in _TRAINED_BY}
    if settings["checkpoint"] is not None and config.checkpoint is not None:
        # One file may have been given by two paths.
        known = manifest.checkpoint_fingerprint == fingerprint(config.checkpoint)
        settings["checkpoint"] = config.checkpoint if known else settings["checkpoint"]
    ours = {
        "search space": space.fingerprint,
        "data": data.fingerprint,
        "split seed": data.split_seed,
        "input size": list(data.input_size),
        "objectives": list(config.objectives),
        "recipe": recipe.to_dict(),
        **{name: getattr(config, name) for name in _TRAINED_BY},
    }
    theirs = {
        "search space": manifest.space.fingerprint,
        "data": manifest.data.fingerprint,
        "split seed": manifest.data.split_seed,
        "input size": list(manifest.input_size),
        "objectives": list(manifest.objectives),
        "recipe": manifest.recipe,
        **settings,
    }
    reasons = [name for name in ours if ours[name] != theirs[name]]
    for name, measured in manifest.measured.items():
        if name in axes:
            reasons += differences(measured.conditions, axes[name].conditions)
    if reasons:
        raise RunError(
            f"--warm-start {source}: its readings cannot stand beside new ones; it differs in: {'; '.join(reasons)}."
        )


def import_readings(
    config: SearchConfig, space: SearchSpace, axes: Mapping[str, CostAxis], store: StudyStore
) -> int:
    """Add the finished search trials of ``config.warm_start`` to the study; returns how many.

    They inform the sampler and are in the table; they count neither as candidates of this run nor as
    reasons to train the same network again.
    """
    if config.warm_start is None:
        return 0
    distributions = {name: CategoricalDistribution(values) for name, values in space.choices.items()}
    count = 0
    for row in [row.to_json() for row in RunFolder.open(Path(config.warm_start)).rows()]:
        if row["phase"] != SEARCH or row["state"] != "complete":
            continue
        fields = {name: row[name] for name in ROW_FIELDS if name not in FROM_TRIAL}
        for axis in axes.values():
            fields |= axis.adopt(row)
        values = [fields[COLUMNS[name]] for name in config.objectives]
        if any(value is None for value in values):
            continue
        given = row["params"] or {}
        store.add(
            create_trial(
                params=given,
                distributions={name: distributions[name] for name in given},
                values=[float(value) for value in values],
                user_attrs={
                    ROW: {**fields, "params": given, "state": "complete", "elapsed": 0.0},
                    IMPORTED: str(config.warm_start),
                }
                | ({} if fields.get("loss") is None else {LOSS: fields["loss"]}),
            )
        )
        count += 1
    return count
