"""How long candidates train and whether they are compiled: from a few real steps of the first one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from se_nas.architecture import Architecture
from se_nas.backbones.creation import on_meta
from se_nas.data import ImageData
from se_nas.device import advice_if_busy
from se_nas.documents.typed import parse
from se_nas.errors import RunError
from se_nas.model import build_model
from se_nas.objectives import COSTS
from se_nas.run import Manifest
from se_nas.space import SearchSpace
from se_nas.study.budget import BUILD_SECONDS, LATENCY_SHARE, MOST, USUAL, Allowance, Division
from se_nas.study.config import SearchConfig
from se_nas.study.forecast import Forecast
from se_nas.study.packing import Packing, decide_packing, unpacked
from se_nas.training import (
    DEFAULT_TRAINER,
    CompileChoice,
    Context,
    Recipe,
    Runtime,
    StepTime,
    block_structures,
    choose_compile,
    measure_step_time,
)

if TYPE_CHECKING:
    from torch import nn

MOST_SAMPLES = 100
"""Candidates that are looked at to count the different blocks that will be compiled."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How candidates are trained on this machine.

    Attributes:
        recipe: with the epochs of a candidate decided.
        runtime: with compiling and CUDA graphs decided.
        compilation: whether blocks are compiled, with what was measured.
        packing: how many candidates train at a time.
        epoch_seconds: seconds of device time that an epoch of one candidate takes; None if it was not timed.
        forecast: what fits into the budget; None if no epoch was timed, and for a run that goes on.
    """

    recipe: Recipe
    runtime: Runtime
    compilation: CompileChoice
    packing: Packing
    epoch_seconds: float | None = None
    forecast: Forecast | None = None


def schedule(
    config: SearchConfig,
    recipe: Recipe,
    runtime: Runtime,
    model: nn.Module,
    data: ImageData,
    space: SearchSpace,
    baselines: Mapping[str, Architecture],
    devices: Sequence[str],
    actors: int | None,
    say: Callable[[str], object],
    spent: Callable[[], float],
) -> Schedule:
    """Decide how candidates are trained, from a few real steps.

    Args:
        config: what the user asked.
        recipe: with the epochs that are usual for it.
        runtime: device, precision and memory format.
        model: the most expensive baseline.
        data: the images.
        space: what is searched.
        baselines: by name.
        devices: on which candidates train.
        actors: how many of Ray's there is room for, each with such a device; None without Ray.
        say: is given what takes time.
        spent: gives the seconds of the budget that are gone.
    """
    advice = advice_if_busy(runtime.device)
    if advice is not None:
        say(advice)
    budget, candidates = config.budget_seconds, config.trials or USUAL
    seconds = None if budget is None else (1 - LATENCY_SHARE) * budget
    if config.epochs is not None:
        recipe = recipe.with_(epochs=config.epochs)
    context = Context(data=data, recipe=recipe, runtime=runtime)
    choice = _compile(config, model, context, space, candidates, seconds, say)
    context = replace(context, runtime=replace(runtime, compile=choice.compile, graphs=choice.graphs))
    built: StepTime | None = None

    def measure_built(model: nn.Module, context: Context) -> StepTime:
        nonlocal built
        built = measure_step_time(model, context)
        return built

    packing = decide_packing(config, space, baselines, model, context, devices, say, measure_built)
    packing = packing.trained_by(actors)
    if packing.packed and context.device.startswith("cuda"):
        context = replace(context, runtime=replace(context.runtime, graphs=True))
    decided = Schedule(recipe=recipe, runtime=context.runtime, compilation=choice, packing=packing)
    if budget is None or (config.epochs is not None and config.trainer != DEFAULT_TRAINER):
        return decided
    if built is None:
        say("timing a few training steps to size the schedule")
        built = measure_step_time(model, context)
    epoch = built.epoch / packing.num_devices
    if packing.rates:
        # Kernels of candidates side by side overlap.
        epoch *= packing.rates[1] / packing.rates.get(packing.places, packing.rates[1])
    allowance = Allowance(
        budget=budget,
        spent=spent(),
        measures=measures(config),
        epoch=epoch,
        overhead=BUILD_SECONDS,
        division=division(config, packing, space, baselines),
    )
    epochs = config.epochs or allowance.epochs(recipe.epochs, candidates)
    return replace(
        decided,
        recipe=recipe.with_(epochs=epochs),
        epoch_seconds=epoch,
        forecast=Forecast(allowance=allowance, epochs=epochs, usual=recipe.epochs, trials=config.trials),
    )


def frozen_schedule(
    config: SearchConfig, frozen: Manifest, devices: Sequence[str], actors: int | None
) -> Schedule:
    """The decisions of a run that goes on, though perhaps on other machines."""
    runtime = Runtime.from_dict(frozen.runtime)
    compilation = frozen.compile or {"compile": runtime.compile, "reason": "as the run began"}
    try:
        compiled = parse(CompileChoice, compilation)
    except ValueError as error:
        raise RunError(f"the manifest does not say how candidates are compiled: {error}.") from error
    packing = None if frozen.packing is None else Packing.from_dict(frozen.packing)
    if config.storage is not None:
        # Each worker has devices of its own.
        runtime = runtime.on(devices[0])
        packing = packing and replace(packing, devices=tuple(devices if packing.packed else devices[:1]))
    return Schedule(
        recipe=Recipe.from_dict(frozen.recipe),
        runtime=runtime,
        epoch_seconds=frozen.epoch_seconds,
        compilation=compiled,
        packing=(packing or unpacked(config, devices, "as the run began")).trained_by(actors),
    )


def unmeasured_schedule(
    config: SearchConfig, recipe: Recipe, runtime: Runtime, devices: Sequence[str], actors: int | None
) -> Schedule:
    """What is known without a measurement: the recipe, with the epochs that were asked for."""
    later = "decided by a measurement when the search starts"
    return Schedule(
        recipe=recipe if config.epochs is None else recipe.with_(epochs=config.epochs),
        runtime=runtime,
        compilation=CompileChoice(compile=False, reason=later),
        packing=unpacked(config, devices, later).trained_by(actors),
    )


def division(
    config: SearchConfig, packing: Packing, space: SearchSpace, baselines: Mapping[str, Architecture]
) -> Division:
    """How the time of a run is divided, with the candidates that there can be."""
    outside = sum(space.params(architecture) is None for architecture in baselines.values())
    return Division(
        final_seeds=config.final_seeds,
        places=packing.at_a_time,
        most=min(space.size + outside, config.trials or MOST),
    )


def measures(config: SearchConfig) -> bool:
    """Whether a cost of the search is measured."""
    return any(not COSTS[name].exact for name in (*config.objectives, *config.limits()) if name in COSTS)


def _compile(
    config: SearchConfig,
    model: nn.Module,
    context: Context,
    space: SearchSpace,
    candidates: int,
    seconds: float | None,
    say: Callable[[str], object],
) -> CompileChoice:
    if config.trainer != DEFAULT_TRAINER:
        wanted = context.recipe.compile == "on"
        return CompileChoice(
            compile=wanted, reason=f"{'on, as asked' if wanted else 'off'}: your trainer decides"
        )

    def variants() -> float:
        rng = np.random.default_rng(config.seed)
        own = found = block_structures(model)
        for _ in range(min(candidates, MOST_SAMPLES)):
            with on_meta():
                other = build_model(space.sample(rng), init=config.init, num_classes=context.data.num_classes)
            found = found | block_structures(other)
        return len(found) / len(own)

    if context.recipe.compile == "on":
        say("compiling the first candidate")
    return choose_compile(model, context, candidates=candidates, seconds=seconds, variants=variants)


GPU_BATCH, GPU_STEPS = 128, 20
"""Batch size on a GPU, which is idle between the small steps of a CPU's 32, if an epoch then has so many steps."""


def for_device(recipe: Recipe, config: SearchConfig, device: str, num_train: int) -> Recipe:
    """The recipe with the device's batch size, unless the user chose a batch size or another recipe.

    The rate grows with the root of the batch, as AdamW wants it (Malladi et al., 2022, arXiv 2205.10287). At the same
    rate, a quarter of the steps lost 4 points (docs/gpu.md).
    """
    chosen = config.batch_size is not None or config.recipe is not None
    if chosen or not device.startswith("cuda") or num_train < GPU_STEPS * GPU_BATCH:
        return recipe
    return recipe.with_(batch_size=GPU_BATCH, lr=recipe.lr * math.sqrt(GPU_BATCH / recipe.batch_size))


def recipe_of(config: SearchConfig) -> Recipe:
    """The recipe that a configuration names, with its batch size; epochs are decided elsewhere.

    If it names none, that is "finetune" for a search that starts from weights, else "tiny". Settings without a preset
    change that one.
    """
    usual = "finetune" if config.fine_tunes else "tiny"
    named = {"preset": config.recipe} if isinstance(config.recipe, str) else config.recipe or {}
    recipe = Recipe.from_dict({"preset": usual, **named})
    asked = {"batch_size": config.batch_size, "compile": config.compile}
    return recipe.with_(**{name: value for name, value in asked.items() if value is not None})


def norm_notes(recipe: Recipe, *, from_weights: bool) -> list[str]:
    """A warning if batch norms are to keep statistics of weights that there are not."""
    if not recipe.norm_eval or from_weights:
        return []
    return [
        "this recipe is for fine-tuning: batch norms keep the statistics of the weights that a training starts from. A"
        " training from scratch has none, so nothing is normalized; use the recipe 'tiny', or set norm_eval to false."
    ]
