"""How long candidates train and whether they are compiled: from a few real steps of the first one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from se_nas.architecture import Architecture
from se_nas.data import ImageData
from se_nas.model import build_model
from se_nas.space import SearchSpace
from se_nas.study.clock import CANDIDATES, SEARCH_SHARE, sized_epochs
from se_nas.study.config import DEFAULT_RECIPE, SearchConfig
from se_nas.study.packing import Packing, decide_packing
from se_nas.training import (
    DEFAULT_TRAINER,
    CompileChoice,
    Context,
    Recipe,
    Runtime,
    block_structures,
    choose_compile,
    measure_step_time,
)

if TYPE_CHECKING:
    from torch import nn

BUILD_SECONDS = 1.5
"""Allowance for what a candidate costs besides its epochs: building, evaluation of costs, writing."""
MOST_SAMPLES = 100
"""Candidates that are looked at to count the different blocks that will be compiled."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How candidates are trained on this machine.

    Attributes:
        recipe: with the epochs of a candidate decided.
        runtime: with compiling and CUDA graphs decided.
        epoch_seconds: seconds of device time that an epoch of one candidate takes; None if the epochs were given.
        compilation: whether blocks are compiled, with what was measured.
        packing: how many candidates train at a time.
    """

    recipe: Recipe
    runtime: Runtime
    epoch_seconds: float | None
    compilation: CompileChoice
    packing: Packing


def schedule(
    config: SearchConfig,
    recipe: Recipe,
    runtime: Runtime,
    model: nn.Module,
    data: ImageData,
    space: SearchSpace,
    baselines: Mapping[str, Architecture],
    devices: Sequence[str],
    say: Callable[[str], object],
) -> Schedule:
    """Decide how candidates are trained, from a few real steps. ``model`` is the most expensive baseline."""
    budget, candidates = config.budget_seconds, config.trials or CANDIDATES
    seconds = None if budget is None else SEARCH_SHARE * budget
    if config.epochs is not None:
        recipe = recipe.with_(epochs=config.epochs)
    context = Context(data=data, recipe=recipe, runtime=runtime)
    choice = _compile(config, model, context, space, candidates, seconds, say)
    context = replace(context, runtime=replace(runtime, compile=choice.compile, graphs=choice.graphs))
    packing = decide_packing(config, space, baselines, model, context, devices, say, measure_step_time)
    if packing.packed:
        context = replace(context, runtime=replace(context.runtime, graphs=True))
    if config.epochs is not None or seconds is None:
        return Schedule(
            recipe=recipe,
            runtime=context.runtime,
            epoch_seconds=None,
            compilation=choice,
            packing=packing,
        )
    say("timing a few training steps to size the schedule")
    timed = measure_step_time(model, context)
    epoch = timed.epoch / len(packing.devices)
    if packing.rates:
        # Kernels of candidates side by side overlap.
        epoch *= packing.rates[1] / packing.rates.get(packing.places, packing.rates[1])
    epochs = sized_epochs(epoch, BUILD_SECONDS, seconds, candidates, most=recipe.epochs)
    return Schedule(
        recipe=recipe.with_(epochs=epochs),
        runtime=context.runtime,
        epoch_seconds=epoch,
        compilation=choice,
        packing=packing,
    )


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
            with torch.device("meta"):
                other = build_model(space.sample(rng), init=config.init, num_classes=context.data.num_classes)
            found = found | block_structures(other)
        return len(found) / len(own)

    if context.recipe.compile == "on":
        say("compiling the first candidate")
    return choose_compile(model, context, candidates=candidates, seconds=seconds, variants=variants)


GPU_BATCH, GPU_STEPS = 128, 20
"""Batch size on a GPU, which is idle between the small steps of a CPU's 32, if an epoch then has so many steps."""


def for_device(recipe: Recipe, config: SearchConfig, device: str, num_train: int) -> Recipe:
    """The recipe with the device's batch size, unless the user chose a batch size or another recipe."""
    if config.batch_size is not None or config.recipe != DEFAULT_RECIPE or not device.startswith("cuda"):
        return recipe
    return recipe.with_(batch_size=GPU_BATCH) if num_train >= GPU_STEPS * GPU_BATCH else recipe


def recipe_of(config: SearchConfig) -> Recipe:
    """The recipe that a configuration names, with its batch size; epochs are decided elsewhere."""
    recipe = (
        Recipe.preset(config.recipe) if isinstance(config.recipe, str) else Recipe.from_dict(config.recipe)
    )
    asked = {"batch_size": config.batch_size, "compile": config.compile}
    return recipe.with_(**{name: value for name, value in asked.items() if value is not None})
