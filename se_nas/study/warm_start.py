"""What earlier runs tell this one: their readings if they measured the same, else where SE paid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from optuna.distributions import CategoricalDistribution
from optuna.trial import create_trial

from se_nas.checkpoints import fingerprint
from se_nas.cost import differences
from se_nas.cost.axes import CostAxis
from se_nas.data import ImageData
from se_nas.errors import RunError
from se_nas.run import ROW_FIELDS, SEARCH, Earlier, Manifest, RunFolder, TrialRow
from se_nas.space import SearchSpace
from se_nas.space.costs import KnownCost, WidthCost, costs_of
from se_nas.study.attributes import IMPORTED, LOSS, ROW
from se_nas.study.config import SearchConfig
from se_nas.study.site_effects import Reading, SiteEffects, site_effects
from se_nas.study.storage import COLUMNS, FROM_TRIAL, StudyStore
from se_nas.training import Recipe
from se_nas.wording import counted

FEWEST = 8
"""Different networks that a run must have trained before it says where SE pays."""
_TRAINED_BY = ("trainer", "pretrained", "checkpoint", "init")
"""Settings of a configuration that change what a training reads, and that no recipe holds."""
_LOOKED_AT = 256


def earlier_runs(
    config: SearchConfig,
    space: SearchSpace,
    data: ImageData,
    recipe: Recipe,
    axes: Mapping[str, CostAxis],
    *,
    measured: bool = True,
) -> tuple[Earlier, ...]:
    """What each run of ``config.warm_start`` is good for.

    Args:
        measured: whether images were read, epochs decided and costs measured. Otherwise these are not compared.

    Raises:
        RunError: there is no such run, it is damaged, or it tells nothing that this search can use.
    """
    found = []
    for source in config.warm_start or ():
        folder = RunFolder.open(source)
        reasons = _differences(folder, config, space, data, recipe, axes, measured)
        found.append(_judged(source, folder, reasons, config, space))
    return tuple(found)


def _judged(
    source: str, folder: RunFolder, reasons: Sequence[str], config: SearchConfig, space: SearchSpace
) -> Earlier:
    """What a run is good for that differs in ``reasons``."""
    where = str(folder.path.absolute())
    if not reasons:
        return Earlier(run=where, trainings=sum(_counts(row) for row in folder.rows()))
    if config.sampler != "pareto":
        raise RunError(
            f"--warm-start {source}: its readings cannot be combined with new ones, because it differs in:"
            f" {'; '.join(reasons)}. Only --sampler pareto can use it as prior knowledge; the sampler is"
            f" {config.sampler}."
        )
    readings = list(_readings(folder.manifest, folder.rows(), source))
    different = {(tuple(reading.sites), tuple(reading.widths)) for reading in readings}
    if len(different) < FEWEST:
        raise RunError(
            f"--warm-start {source}: it has trained {counted(len(different), 'different network')} to the end, but at"
            f" least {FEWEST} are needed to learn where SE pays. Its readings cannot be combined with new ones, because"
            f" it differs in: {'; '.join(reasons)}."
        )
    found = site_effects(readings)
    if found is None or not np.ptp(_some(space, found)) > 0:
        whose = "its networks do" if found is None else "this space's networks do"
        raise RunError(
            f"--warm-start {source}: {whose} not differ in where SE is or how wide it is, so it tells this search"
            " nothing. Leave it out."
        )
    return Earlier(
        run=where,
        differs=tuple(reasons),
        trainings=len(readings),
        effects=tuple(tuple(row) for row in found.table.tolist()),
        explained=found.explained,
    )


def _differences(
    folder: RunFolder,
    config: SearchConfig,
    space: SearchSpace,
    data: ImageData,
    recipe: Recipe,
    axes: Mapping[str, CostAxis],
    measured: bool,
) -> list[str]:
    """What makes the readings of a run another measurement than those of this search."""
    manifest, before = folder.manifest, folder.config
    settings = {name: before.get(name, SearchConfig.model_fields[name].default) for name in _TRAINED_BY}
    if settings["checkpoint"] is not None and config.checkpoint is not None:
        # One file may have been given by two paths.
        known = manifest.checkpoint_fingerprint == fingerprint(config.checkpoint)
        settings["checkpoint"] = config.checkpoint if known else settings["checkpoint"]
    compared = {
        "backbone": (config.backbone, manifest.backbone),
        "search space": (space.fingerprint, manifest.space.fingerprint),
        "objectives": (list(config.objectives), list(manifest.objectives)),
        **{name: (getattr(config, name), settings[name]) for name in _TRAINED_BY},
    }
    if measured:
        compared |= {
            "data": (data.fingerprint, manifest.data.fingerprint),
            "split seed": (data.split_seed, manifest.data.split_seed),
            "input size": (list(data.input_size), list(manifest.input_size)),
            "recipe": (recipe.to_dict(), manifest.recipe),
        }
    reasons = [name for name, (ours, theirs) in compared.items() if ours != theirs]
    if "backbone" in reasons and "search space" in reasons:
        # The sites are part of a space.
        reasons.remove("search space")
    for name, cost in manifest.measured.items():
        if measured and name in axes:
            reasons += differences(cost.conditions, axes[name].conditions)
    return reasons


def _counts(row: TrialRow) -> bool:
    return row.phase == SEARCH and row.complete


def _readings(manifest: Manifest, rows: Sequence[TrialRow], source: str) -> Iterator[Reading]:
    """Every training of a run that ended, finals too."""
    for row in rows:
        if not row.complete:
            continue
        sites = manifest.sites.get(row.position or next(iter(manifest.sites), ""), ())
        if len(sites) != len(row.widths):
            raise RunError(
                f"--warm-start {source} is damaged: trial {row.number} has {counted(len(row.widths), 'width')} for"
                f" {counted(len(sites), 'site')}."
            )
        assert row.accuracy is not None
        yield Reading(sites=sites, widths=row.widths, accuracy=row.accuracy)


def _some(space: SearchSpace, effects: SiteEffects) -> np.ndarray:
    """What effects add up to in some networks of a space."""
    return costs_of(
        space, _by_position(space, effects), space.sample_indices(np.random.default_rng(0), _LOOKED_AT)
    )


def _by_position(space: SearchSpace, effects: SiteEffects) -> dict[str, WidthCost]:
    return {name: partial(effects.of, sites) for name, sites in space.sites_by_position.items()}


def prior_notes(earlier: Sequence[Earlier], *, measured: bool = True) -> list[str]:
    """What the plan says about each of the runs."""
    notes = []
    for one in earlier:
        if one.differs:
            notes.append(
                f"{Path(one.run).name} serves as prior knowledge of where SE pays, by depth and width (it differs in:"
                f" {'; '.join(one.differs)}): {counted(one.trainings, 'training')}, in which this explains"
                f" {100 * (one.explained or 0.0):.0f} % of the variance of accuracy. The sampler learns how far"
                " to trust it."
            )
        elif not measured:
            notes.append(
                f"whether the readings of {Path(one.run).name} are reused, or only serve as prior knowledge, is decided"
                " when the search starts."
            )
    return notes


def priors(space: SearchSpace, earlier: Sequence[Earlier]) -> list[KnownCost]:
    """Estimates of the accuracy for the sampler, one for each run that serves as prior knowledge.

    Raises:
        RunError: what the manifest holds of a run is damaged.
    """
    found = []
    for one in prior_runs(earlier):
        effects = SiteEffects.from_table(one.effects, one.explained or 0.0)
        found.append(KnownCost(space, _by_position(space, effects)))
    return found


def prior_runs(earlier: Sequence[Earlier]) -> list[Earlier]:
    """Those that serve as prior knowledge."""
    return [one for one in earlier if one.differs]


def import_readings(
    config: SearchConfig,
    space: SearchSpace,
    axes: Mapping[str, CostAxis],
    store: StudyStore,
    earlier: Sequence[Earlier],
) -> dict[str, int]:
    """Add the finished search trials of comparable runs to the study; returns how many of each.

    They inform the sampler and are in the table; they count neither as candidates of this run nor as
    reasons to train the same network again. A reading that two of the runs have, one from the other, is added once.
    """
    distributions = {name: CategoricalDistribution(values) for name, values in space.choices.items()}
    found: dict[str, int] = {}
    known: set[tuple[object, ...]] = set()
    for one in earlier:
        if one.differs:
            continue
        found[one.run] = 0
        for reading in RunFolder.open(Path(one.run)).rows():
            row = reading.to_json()
            same = reading.key, reading.seed, reading.accuracy, reading.loss, reading.started
            if not _counts(reading) or same in known:
                continue
            known.add(same)
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
                        IMPORTED: one.run,
                    }
                    | ({} if fields.get("loss") is None else {LOSS: fields["loss"]}),
                )
            )
            found[one.run] += 1
    return found
