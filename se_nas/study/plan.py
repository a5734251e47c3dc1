"""From a configuration to a plan: everything is resolved and checked here, before anything is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timm.data import resolve_model_data_config

from se_nas.architecture import Architecture
from se_nas.backbones.input_sizes import smallest_input
from se_nas.cost import CostModel, LatencySettings, resolve_backend
from se_nas.cost.latency.axis import LatencyAxis
from se_nas.data import ImageData, load_data
from se_nas.device import device_name, resolve_device
from se_nas.errors import BackboneError, CheckpointError
from se_nas.model import build_model
from se_nas.run import RunFolder
from se_nas.samplers.registry import make_sampler
from se_nas.sites import width_at
from se_nas.space import SearchSpace
from se_nas.study.baselines import baselines
from se_nas.study.clock import CANDIDATES, FINAL_SHARE, LATENCY_SHARE, SEARCH_SHARE
from se_nas.study.config import SearchConfig
from se_nas.study.constraints import Limits
from se_nas.study.progress import Progress
from se_nas.study.schedule import schedule
from se_nas.study.stopping import Stopping
from se_nas.study.warm_start import check_source
from se_nas.training import (
    CompileChoice,
    Recipe,
    Runtime,
    initial_weights,
    load_trainer,
    make_logger,
)

if TYPE_CHECKING:
    from torch import nn

    from se_nas.space.costs import WidthCost

TEST_FRACTION = 0.1


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
        limits: hard limits on costs.
        axis: the latency axis; None where latency is neither objective nor limit.
        epoch_seconds: measured time of one epoch of the dearest baseline; None where the epochs were given.
        compilation: whether blocks are compiled, with what was measured.
        notes: decisions and warnings that the user should see.
    """

    config: SearchConfig
    path: Path
    space: SearchSpace
    data: ImageData
    recipe: Recipe
    runtime: Runtime
    baselines: Mapping[str, Architecture]
    limits: Limits
    axis: LatencyAxis | None
    epoch_seconds: float | None
    compilation: CompileChoice
    notes: tuple[str, ...]

    @cached_property
    def plain(self) -> Architecture:
        """The backbone as timm makes it, which latency is compared with."""
        return Architecture.plain(
            self.config.backbone, position=next(iter(self.space.sites_by_position)), **self.config.timm_kwargs
        )

    def cost_model(self, architecture: Architecture) -> CostModel:
        """The exact cost model of the architecture's position."""
        return CostModel.for_architecture(architecture, self.data.input_size, self.data.num_classes)

    @cached_property
    def cost_models(self) -> dict[str, CostModel]:
        """Exact cost models of the space by position."""
        return {
            position: self.cost_model(
                Architecture(
                    backbone=self.space.backbone,
                    timm_kwargs=self.plain.timm_kwargs,
                    position=position,
                    sites=sites,
                    widths=tuple(width_at(site, None) for site in sites),
                    bias=self.space.spec.bias,
                )
            )
            for position, sites in self.space.sites_by_position.items()
        }

    @property
    def latency_axis(self) -> LatencyAxis:
        """The latency axis of a search that has latency as an objective or a limit."""
        assert self.axis is not None
        return self.axis

    def width_costs(self, objective: str) -> dict[str, WidthCost] | None:
        """A cost as a function of widths for every position; None where it is not known before it is measured."""
        if objective == "latency":
            predict = self.latency_axis.predictions()
            return None if predict is None or self.space.position is None else {self.space.position: predict}
        column = "num_params" if objective == "params" else objective

        def by_widths(model: CostModel) -> WidthCost:
            return lambda widths: model.evaluate(widths)[column]

        return {position: by_widths(model) for position, model in self.cost_models.items()}

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
            ("backbone", f"{config.backbone}, {'pretrained' if config.pretrained else 'from scratch'}"),
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
            ("objectives", ", ".join(config.objectives)),
            ("training", self._training()),
            ("compile", self.compilation.reason),
            ("budget", self._budget()),
            ("sampler", config.sampler),
            ("folder", str(self.path)),
        ]
        if data.skipped:
            shown = ", ".join(data.skipped[:3])
            pairs.append(("skipped", f"{len(data.skipped)} unreadable images: {shown}"))
        return pairs + [("note", note) for note in self.notes]

    def _training(self) -> str:
        recipe = self.recipe
        text = (
            f"{recipe.epochs} epochs a candidate, batches of {recipe.batch_size}, {recipe.optimizer},"
            f" lr {recipe.lr:g}"
        )
        if self.config.per_gpu > 1:
            text += f", {self.config.per_gpu} candidates at a time"
        if self.epoch_seconds is not None:
            text += f" (an epoch takes {self.epoch_seconds:.1f} s here; sized so that {self._target()} candidates fit)"
        return text

    def _target(self) -> int:
        return self.config.trials or CANDIDATES

    def _budget(self) -> str:
        seconds, trials = self.config.budget_seconds, self.config.trials
        words = []
        if trials is not None:
            words.append(f"{trials} candidates, baselines included")
        if seconds is not None:
            words.append(
                f"{seconds / 60:.1f} min: {SEARCH_SHARE:.0%} search, {FINAL_SHARE:.0%} final seeds,"
                f" {LATENCY_SHARE:.0%} latency"
            )
        seeds = self.config.final_seeds
        return f"{', '.join(words)}; {seeds or 'no'} final seed{'' if seeds == 1 else 's'}"


def resolve(
    config: SearchConfig, progress: Progress | None = None, *, frozen: Mapping[str, Any] | None = None
) -> Plan:
    """Check a configuration and resolve it; writes nothing.

    Args:
        config: what the user asked.
        progress: told what takes time.
        frozen: the manifest of a run that goes on; its decisions are kept instead of taken anew.

    Raises:
        SeNasError: whatever the user has to mend, by its kind.
    """
    progress = progress or Progress()
    device = resolve_device(config.device)
    path = Path(config.runs) / (config.name or _default_name(config))
    if frozen is None:
        RunFolder(path).check_free()
    if config.checkpoint is not None and not Path(config.checkpoint).is_file():
        raise CheckpointError(f"there is no checkpoint {config.checkpoint}.")
    space = _space(config, frozen)
    load_trainer(config.trainer)
    if config.log is not None:
        make_logger(config.log, path)
    if config.sampler != "pareto":
        make_sampler(config.sampler, seed=config.seed, choices=space.choices)
    found = baselines(space)
    data = load_images(config)
    limits = Limits.parse(config)
    timed = _latency_settings(config, data, str(device))
    resolve_backend(timed.backend)
    recipe = recipe_of(config)
    dearest = max(found.values(), key=lambda architecture: architecture.num_gated)
    if frozen is not None:
        recipe = Recipe.from_dict(frozen["recipe"])
        runtime, epoch_seconds = Runtime.from_dict(frozen["runtime"]), frozen["epoch_seconds"]
        compilation = CompileChoice(
            **frozen.get("compile", {"compile": runtime.compile, "reason": "as the run began"})
        )
        data = data.with_statistics(frozen["data"]["mean"], frozen["data"]["std"])
    else:
        model = candidate_model(config, dearest, data, config.seed)
        data = as_weights_want(data, config, model)
        runtime = Runtime.decide(model, recipe, str(device))
        recipe, runtime, epoch_seconds, compilation = schedule(
            config, recipe, runtime, model, data, space, progress
        )
    plan = Plan(
        config=config,
        path=path,
        space=space,
        data=data,
        recipe=recipe,
        runtime=runtime,
        baselines=found,
        limits=limits,
        axis=None,
        epoch_seconds=epoch_seconds,
        compilation=compilation,
        notes=(),
    )
    notes = Stopping.notes(config, recipe.epochs)
    if "latency" not in config.objectives and config.max_latency is None:
        notes += _idle_latency_options(config)
    else:
        axis = LatencyAxis.prepare(
            plan.plain,
            timed,
            None if config.budget_seconds is None else LATENCY_SHARE * config.budget_seconds,
            candidates=CANDIDATES,
            width=config.latency_width,
            frozen=frozen,
            sample=None if space.position is None else space.sample,
            say=progress.message,
        )
        plan = replace(plan, axis=axis)
    if frozen is None:
        check_source(plan)
    return replace(plan, notes=(*notes, *limits.check_space(plan)))


def candidate_model(
    config: SearchConfig, architecture: Architecture, data: ImageData, seed: int
) -> nn.Module:
    """The network of a candidate, its layers initialised from the seed or the configuration's weights.

    The plain layers start equal for all candidates of a seed, because SE is inserted after them.
    """
    with initial_weights(seed):
        return build_model(
            architecture,
            pretrained=config.pretrained,
            init=config.init,
            num_classes=data.num_classes,
            checkpoint=config.checkpoint,
        )


def as_weights_want(data: ImageData, config: SearchConfig, model: nn.Module) -> ImageData:
    """The images, normalised as in the training that the configuration's weights come from, if from any."""
    if not config.pretrained and config.checkpoint is None:
        return data
    own = resolve_model_data_config(model)
    return data.with_statistics(own["mean"], own["std"])


def _latency_settings(config: SearchConfig, data: ImageData, device: str) -> LatencySettings:
    return LatencySettings(
        input_size=data.input_size,
        batch_size=config.latency_batch,
        device=device,
        num_classes=data.num_classes,
        precision=config.latency_precision,
        channels_last=config.latency_channels_last,
        mode=config.latency_mode,
        threads=config.latency_threads,
        optimize=config.latency_optimize,
        backend=config.latency_backend,
    )


def _idle_latency_options(config: SearchConfig) -> list[str]:
    """A note on options that change nothing, where latency is neither an objective nor a limit."""
    fields = type(config).model_fields
    idle = [
        name
        for name in fields
        if name.startswith("latency_") and getattr(config, name) != fields[name].default
    ]
    names = ", ".join(idle)
    return [f"{names} without effect: latency is neither an objective nor limited."] if idle else []


def _space(config: SearchConfig, frozen: Mapping[str, Any] | None) -> SearchSpace:
    if frozen is not None:
        return SearchSpace.from_dict(frozen["space"]["definition"])
    return SearchSpace.load(
        config.space, backbone=config.backbone, position=config.position, **config.timm_kwargs
    )


def load_images(config: SearchConfig, *, split_test: bool = True) -> ImageData:
    """The images of a configuration, at the smallest size from theirs on that the backbone takes.

    Without ``split_test`` there is a test split only where the data or the configuration has one.
    """

    def load(size: int | None) -> ImageData:
        return load_data(
            config.data,
            val_data=config.val_data,
            test_data=config.test_data,
            input_size=size,
            test_fraction=None if config.test_data or not split_test else TEST_FRACTION,
            split_seed=config.split_seed,
            strict=config.strict,
        )

    data = load(config.input_size)
    smallest = smallest_input(config.backbone, data.input_size[1], **config.timm_kwargs)
    if smallest == data.input_size[1]:
        return data
    if config.input_size is not None:
        raise BackboneError(
            f"{config.backbone} cannot take --input-size {config.input_size}; the next that it takes is {smallest}."
        )
    return load(smallest)


def recipe_of(config: SearchConfig) -> Recipe:
    """The recipe that a configuration names, with its batch size; epochs are decided elsewhere."""
    recipe = (
        Recipe.preset(config.recipe) if isinstance(config.recipe, str) else Recipe.from_dict(config.recipe)
    )
    asked = {"batch_size": config.batch_size, "compile": config.compile}
    return recipe.with_(**{name: value for name, value in asked.items() if value is not None})


def _default_name(config: SearchConfig) -> str:
    """backbone-data-N with the first N that is free."""
    data = (
        "".join(letter if letter.isalnum() else "-" for letter in Path(config.data).name).strip("-") or "data"
    )
    backbone = config.backbone.replace("/", "-").replace(":", "-")
    taken = {entry.name for entry in Path(config.runs).glob(f"{backbone}-{data}-*")}
    number = next(count for count in range(1, 10**9) if f"{backbone}-{data}-{count}" not in taken)
    return f"{backbone}-{data}-{number}"
