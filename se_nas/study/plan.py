"""From a configuration to a plan: everything is resolved and checked here, before anything is written."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from se_nas.architecture import Architecture
from se_nas.backbones.creation import create_on_meta, on_meta
from se_nas.checkpoints import checkpoint_file, read_checkpoint
from se_nas.cost import Limit, resolve_backend
from se_nas.cost.axes import CostAxis, Measuring, prepare_axes
from se_nas.data import ImageData
from se_nas.device import device_name, resolve_devices
from se_nas.objectives import COSTS
from se_nas.run import Earlier, Manifest, RunFolder
from se_nas.space import SearchSpace
from se_nas.study.baselines import NATIVE, PLAIN, baselines
from se_nas.study.budget import LATENCY_SHARE, USUAL, Division
from se_nas.study.candidate import build_candidate, origin, start
from se_nas.study.claim import default_name
from se_nas.study.config import SearchConfig
from se_nas.study.constraints import Constraints
from se_nas.study.disk_space import disk_notes
from se_nas.study.executors.task import Setup
from se_nas.study.forecast import Forecast
from se_nas.study.images import as_weights_want, load_images
from se_nas.study.latency_options import idle_latency_options, latency_settings, measured_elsewhere
from se_nas.study.packing import Packing, capacities
from se_nas.study.progress import Progress
from se_nas.study.ray_address import check_answers
from se_nas.study.ray_cluster import actors_of, describe, idle_per_gpu
from se_nas.study.sampler_choice import check_sampler
from se_nas.study.schedule import (
    division,
    for_device,
    frozen_schedule,
    norm_notes,
    recipe_of,
    schedule,
    unmeasured_schedule,
)
from se_nas.study.stopping import idle_note
from se_nas.study.tracking import check_log
from se_nas.study.warm_start import earlier_runs, prior_notes
from se_nas.training import DEFAULT_TRAINER, CompileChoice, Recipe, Runtime, load_trainer
from se_nas.training.masked import Capacity
from se_nas.wording import counted

LOGS, WORKERS = "logs", "workers"
UNMEASURED = (
    "nothing was measured and no image was read. How many candidates fit, and what limits on measured costs allow,"
    " is worked out when the search starts; --measure works it out now."
)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A search that can begin: all that it needs, checked.

    Attributes:
        config: what the user asked.
        path: the run folder to be made.
        space: the search space on this backbone.
        data: the images.
        recipe: training settings, with the epochs of a candidate decided.
        runtime: device, precision and memory format.
        baselines: name → architecture.
        plain: the backbone as timm makes it, with which costs are compared.
        axes: costs by name: every exact one, and those measured that are an objective or limited.
        constraints: hard limits on costs.
        epoch_seconds: measured time of one epoch of the most expensive baseline; None if it was not timed.
        forecast: what fits into the budget; None if no epoch was timed, and for a run that goes on.
        division: how time is divided between the search and the final seeds.
        compilation: whether blocks are compiled, with what was measured.
        packing: how many candidates train at a time, and where.
        earlier: runs from which it takes readings or prior knowledge.
        notes: decisions and warnings that the user should see.
        seconds: how long it took to make the plan, which counts as time spent.
    """

    config: SearchConfig
    path: Path
    space: SearchSpace
    data: ImageData
    recipe: Recipe
    runtime: Runtime
    baselines: Mapping[str, Architecture]
    plain: Architecture
    axes: Mapping[str, CostAxis]
    constraints: Constraints
    epoch_seconds: float | None
    forecast: Forecast | None
    division: Division
    compilation: CompileChoice
    packing: Packing
    earlier: tuple[Earlier, ...]
    notes: tuple[str, ...]
    seconds: float

    @property
    def start(self) -> str:
        """How candidates begin: "from scratch", or "fine-tuned from FILE"."""
        return start(origin(self.config))

    def setup(self, folder: RunFolder) -> Setup:
        """What the trainings of this plan share, in a run folder."""
        own = folder.path
        if self.config.storage is not None:
            # Several workers may share the run folder.
            own = folder.path / WORKERS / f"{socket.gethostname()}-{os.getpid()}"
        return Setup(
            config=self.config,
            data=self.data,
            recipe=self.recipe,
            runtime=self.runtime,
            folder=own,
            checkpoints=folder.checkpoints,
            logs=folder.path / LOGS,
        )

    @property
    def suggests_ahead(self) -> bool:
        """Whether the next suggestion is made while candidates train.

        In a pack all places would wait for it. Not if its limits have to be measured, which takes the device, or if
        images are on disk: candidates then begin together, so that these are decoded once.
        """
        several = self.packing.packed and self.packing.at_a_time > 1
        return several and self.data.in_memory and not self.constraints.measured

    def capacities(self) -> list[Capacity]:
        """What the masked networks of a packed run can be."""
        return capacities(self.space, list(self.baselines.values())) if self.packing.masked else []

    def describe(self) -> list[tuple[str, str]]:
        """What is about to be done, as pairs of a label and a text."""
        config, data = self.config, self.data
        sites = []
        for position, found in self.space.sites_by_position.items():
            stages = sorted({site.stage for site in found})
            counts = ", ".join(
                f"{sum(site.stage == stage for site in found)} in stage {stage}" for stage in stages
            )
            sites.append(f"{len(found)} at {position} ({counts})")
        size = "x".join(map(str, data.input_size))
        tests = f", {len(data.test):,} test" if data.test is not None else ""
        pairs = [
            ("backbone", f"{config.backbone}, {self.start}"),
            ("sites", "; ".join(sites)),
            ("space", f"{self.space.name}: {self.space.size:,} different architectures"),
            (
                "data",
                f"{data.name}: {len(data.train):,} training, {len(data.val):,} validation{tests} images,"
                f" {data.num_classes} classes, {size}",
            ),
            (
                "device",
                f"{self.runtime.device} ({device_name(self.runtime.device)}), {self.runtime.precision}",
            ),
            *(
                [("executor", describe(config, self.runtime.device, self.packing.actors))]
                if config.on_ray
                else []
            ),
            ("objectives", ", ".join(config.objectives)),
            ("training", self._training()),
            ("compile", self.compilation.reason),
            *([("packing", self.packing.reason)] if self.packing.packed else []),
            ("budget", self._budget()),
            ("sampler", config.sampler),
            ("folder", str(self.path)),
        ]
        pairs += [("skipped", line) for line in data.left_out()]
        pairs += [("note", remark) for remark in data.remarks]
        return pairs + [("note", note) for note in self.notes]

    def _training(self) -> str:
        recipe = self.recipe
        known = self.config.epochs or self.epoch_seconds or self.config.budget_seconds is None
        epochs = (
            f"{counted(recipe.epochs, 'epoch')} per candidate"
            if known
            else "as many epochs as the budget allows"
        )
        text = f"{epochs}, batches of {recipe.batch_size}, {recipe.optimizer}, lr {recipe.lr:g}"
        if self.packing.at_a_time > 1:
            text += f", {self.packing.at_a_time} candidates at a time"
        if self.epoch_seconds is not None:
            text += f" (an epoch takes {self.epoch_seconds:.1f} s here)"
        return text

    def _budget(self) -> str:
        seconds, trials = self.config.budget_seconds, self.config.trials
        words = []
        if trials is not None:
            words.append(f"{trials} candidates, baselines included")
        if seconds is not None:
            words.append(f"{seconds / 60:.1f} min")
        words.append(counted(self.config.final_seeds, "final seed"))
        return ", ".join(words) + (f": {self.forecast.describe()}" if self.forecast is not None else "")


def resolve(
    config: SearchConfig,
    progress: Progress | None = None,
    *,
    frozen: Manifest | None = None,
    force: bool = False,
    measure: bool = True,
) -> Plan:
    """Check a configuration and resolve it; writes nothing into the run's folder.

    Args:
        config: what the user asked.
        progress: is notified of what takes time.
        frozen: the manifest of a run that goes on; its decisions are kept instead of taken anew.
        force: plan even if the budget is too short for two candidates.
        measure: whether to read the images and to measure. Otherwise the plan is only for being described: it has
            neither a schedule nor measured costs.

    Raises:
        SeNasError: whatever the user has to mend, by its kind.
    """
    progress, began = progress or Progress(), time.monotonic()
    devices = [str(device) for device in resolve_devices(config.device)]
    path = Path(config.runs) / (config.name or default_name(config))
    if frozen is None:
        RunFolder(path).check_free()
    actors = None
    if measure:
        actors = actors_of(config, devices[0], progress.message)
    elif config.on_ray:
        check_answers(config)
    if config.checkpoint is not None:
        checkpoint_file(config.checkpoint)
    space = _space(config, frozen)
    load_trainer(config.trainer)
    for name in config.log or ():
        check_log(name)
    check_sampler(config.sampler, space.choices)
    found = baselines(space)
    most_gated = max(found.values(), key=lambda architecture: architecture.num_gated)
    try:
        data = load_images(config, check=measure, checked=progress.images_checked)
    except BaseException:
        # What shows the images' progress would stand in the way of the message.
        progress.close()
        raise
    limits = [Limit.parse(text, name) for name, text in config.limits().items()]
    timed = latency_settings(config, data, devices[0])
    if config.latency_on is None:
        resolve_backend(timed.backend)
    if frozen is not None:
        data = data.with_statistics(frozen.data.mean, frozen.data.std)
        scheduled = frozen_schedule(config, frozen, devices, actors)
    else:
        recipe = for_device(recipe_of(config), config, devices[0], len(data.train))
        with nullcontext() if measure else on_meta():
            model = build_candidate(
                most_gated,
                config,
                recipe,
                num_classes=data.num_classes,
                seed=config.seed,
                weights=measure,
            )
        data = as_weights_want(data, config, model)
        runtime = Runtime.decide(model, recipe, devices[0])
        if measure:
            scheduled = schedule(
                config,
                recipe,
                runtime,
                model,
                data,
                space,
                found,
                devices,
                actors,
                progress.message,
                lambda: time.monotonic() - began,
            )
        else:
            scheduled = unmeasured_schedule(config, recipe, runtime, devices, actors)
    recipe, forecast = scheduled.recipe, scheduled.forecast
    if forecast is not None and not force and config.trainer == DEFAULT_TRAINER:
        forecast.check()
    candidates = forecast.candidates if forecast is not None else config.trials or USUAL
    measured = {name for name in (*config.objectives, *config.limits()) if name in COSTS}
    notes = [
        *(forecast.notes() if forecast is not None else ()),
        *_checkpoint_notes(config, data),
        *norm_notes(recipe, from_weights=config.fine_tunes),
        *idle_note(config.early_stopping, recipe.epochs),
    ]
    if all(COSTS[name].exact for name in measured):
        notes += idle_latency_options(config)
    if not measure:
        notes.append(UNMEASURED)
        measured = {name for name in measured if COSTS[name].exact}
    plain = found.get(NATIVE, found[PLAIN])
    axes = prepare_axes(
        measured,
        Measuring(
            space=space,
            plain=plain,
            settings=timed,
            seconds=None if config.budget_seconds is None else LATENCY_SHARE * config.budget_seconds,
            candidates=candidates,
            width=config.latency_width,
            frozen=_frozen_costs(frozen),
            say=progress.message,
            measured=progress.networks_measured,
            packed=scheduled.packing.packed,
            elsewhere=measured_elsewhere(config, fresh=frozen is None, say=progress.message)
            if any(not COSTS[name].exact for name in measured)
            else {},
        ),
    )
    earlier = (
        frozen.earlier
        if frozen is not None
        else earlier_runs(config, space, data, recipe, axes, measured=measure)
    )
    notes += prior_notes(earlier, measured=measure)
    notes += idle_per_gpu(config, packed=scheduled.packing.packed)
    constraints = Constraints(space, axes, [limit for limit in limits if limit.objective.name in axes], found)
    divided = division(config, scheduled.packing, space, found)
    if config.trainer == DEFAULT_TRAINER:
        notes += disk_notes(
            path,
            recipe,
            axes["params"].fields(most_gated)["num_params"],
            trainings=candidates + divided.final_trainings(candidates),
            at_a_time=scheduled.packing.at_a_time,
        )
    return Plan(
        config=config,
        path=path,
        space=space,
        data=data,
        recipe=recipe,
        runtime=scheduled.runtime,
        baselines=found,
        plain=plain,
        axes=axes,
        constraints=constraints,
        epoch_seconds=scheduled.epoch_seconds,
        forecast=forecast,
        division=divided,
        compilation=scheduled.compilation,
        packing=scheduled.packing,
        earlier=earlier,
        notes=(*notes, *constraints.check()),
        seconds=time.monotonic() - began,
    )


def _checkpoint_notes(config: SearchConfig, data: ImageData) -> list[str]:
    """What was taken from the file with the weights, and what was left."""
    if config.checkpoint is None:
        return []
    plain = create_on_meta(config.backbone, num_classes=data.num_classes, **config.timm_kwargs)
    return read_checkpoint(plain, config.checkpoint).notes()


def _frozen_costs(manifest: Manifest | None) -> dict[str, dict[str, Any]]:
    return {} if manifest is None else {name: asdict(cost) for name, cost in manifest.measured.items()}


def _space(config: SearchConfig, frozen: Manifest | None) -> SearchSpace:
    if frozen is not None:
        return SearchSpace.from_dict(frozen.space.definition)
    return SearchSpace.load(
        config.space, backbone=config.backbone, position=config.position, **config.timm_kwargs
    )
