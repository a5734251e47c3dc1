"""What a retraining trains, resolved and checked before it begins."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from se_nas.architecture import Architecture
from se_nas.checkpoints import load_weights
from se_nas.data import ImageData
from se_nas.device import resolve_device
from se_nas.exporting.selection import architecture_of, kept_weights
from se_nas.report import ParetoReport
from se_nas.report.picks import Pick
from se_nas.run import Manifest, RunFolder
from se_nas.study.candidate import build_candidate, origin
from se_nas.study.config import SearchConfig
from se_nas.study.images import as_weights_want, load_images
from se_nas.study.paths import asked, located
from se_nas.study.schedule import norm_notes, recipe_of
from se_nas.study.tracking import check_log
from se_nas.training import Recipe, Runtime

_log = logging.getLogger(__name__)

_OF_THE_DATA = ("val_data", "test_data")


@dataclass(frozen=True, kw_only=True)
class Job:
    """A retraining that can begin: what is trained on what, and how."""

    run: str
    architecture: Architecture
    config: SearchConfig
    data: ImageData
    recipe: Recipe
    runtime: Runtime
    start: tuple[int, dict[str, Any]] | None
    """Trial number and weights to start from."""

    def model(self) -> nn.Module:
        model = build_candidate(
            self.architecture,
            self.config,
            self.recipe,
            num_classes=self.data.num_classes,
            seed=self.config.seed,
            weights=self.start is None,
        )
        if self.start is not None:
            load_weights(model, self.start[1], f"trial {self.start[0]} of {self.run}")
        return model

    def settings(self) -> dict[str, Any]:
        """What must be equal for an unfinished retraining to be this one."""
        return {
            "run": self.run,
            "key": self.architecture.key,
            "data": self.data.fingerprint,
            "split seed": self.data.split_seed,
            "input size": list(self.data.input_size),
            "recipe": self.recipe.to_dict(),
            "seed": self.config.seed,
            "start": self.origin,
            "device": self.runtime.device,
        }

    @property
    def origin(self) -> str:
        if self.start is not None:
            return f"the weights of trial {self.start[0]}"
        return origin(self.config)

    def describe(self) -> str:
        size = "x".join(map(str, self.data.input_size))
        return (
            f"training {self.architecture} from {self.origin} on {self.data.name}"
            f" ({len(self.data.train):,} training, {len(self.data.val):,} validation images, {size}) for"
            f" {self.recipe.epochs} epochs on {self.runtime.device}, {self.runtime.precision}"
        )


def prepare(
    run: RunFolder, report: ParetoReport, chosen: Pick, given: Mapping[str, Any], from_weights: bool
) -> Job:
    manifest, candidate = report.manifest, chosen.candidate
    base = {
        **located(asked(run).model_dump(), manifest.paths),
        "epochs": None,
        "batch_size": None,
        "log": None,
    }
    other_data = given.get("data", base.get("data")) != base.get("data")
    if other_data:
        base |= dict.fromkeys((*_OF_THE_DATA, "input_size"))
    config = SearchConfig(**{**base, **given})
    for name in config.log or ():
        check_log(name)
    resolved = resolve_device(config.device)
    recipe = _recipe(manifest, config, named="recipe" in given)
    if config.batch_size is not None:
        recipe = recipe.with_(batch_size=config.batch_size)
    if config.epochs is not None:
        recipe = recipe.with_(epochs=config.epochs)
    start = kept_weights(report, candidate) if from_weights else None
    for note in norm_notes(recipe, from_weights=start is not None or config.fine_tunes):
        _log.warning(note)
    data = load_images(config, split_test=not other_data)
    job = Job(
        run=report.name,
        architecture=architecture_of(candidate, manifest),
        config=config,
        data=data,
        recipe=recipe,
        runtime=Runtime(device=str(resolved)),
        start=start,
    )
    model = job.model()
    if start is not None:
        data = data.with_statistics(manifest.data.mean, manifest.data.std)
    else:
        data = as_weights_want(data, config, model)
    return replace(job, data=data, runtime=Runtime.decide(model, recipe, str(resolved)))


def _recipe(manifest: Manifest, config: SearchConfig, *, named: bool) -> Recipe:
    """The recipe that is named, or that of the run at its full length."""
    full = recipe_of(config)
    if named:
        return full
    own = Recipe.from_dict(manifest.recipe)
    return own.with_(epochs=max(own.epochs, full.epochs))
