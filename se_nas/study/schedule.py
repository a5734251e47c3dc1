"""How long candidates train and whether they are compiled: from a few real steps of the first one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from se_nas.data import ImageData
from se_nas.model import build_model
from se_nas.space import SearchSpace
from se_nas.study.clock import CANDIDATES, SEARCH_SHARE, sized_epochs
from se_nas.study.config import SearchConfig
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


def schedule(
    config: SearchConfig,
    recipe: Recipe,
    runtime: Runtime,
    model: nn.Module,
    data: ImageData,
    space: SearchSpace,
    say: Callable[[str], object],
) -> tuple[Recipe, Runtime, float | None, CompileChoice]:
    """Recipe with the epochs of a candidate, runtime with compiling decided, seconds of an epoch, the decision.

    The seconds are None if the epochs were given. ``model`` is the most expensive baseline.
    """
    budget, candidates = config.budget_seconds, config.trials or CANDIDATES
    seconds = None if budget is None else SEARCH_SHARE * budget
    if config.epochs is not None:
        recipe = recipe.with_(epochs=config.epochs)
    context = Context(data=data, recipe=recipe, runtime=runtime)
    choice = _compile(config, model, context, space, candidates, seconds, say)
    runtime = replace(runtime, compile=choice.compile, graphs=choice.graphs)
    if config.epochs is not None or seconds is None:
        return recipe, runtime, None, choice
    say("timing a few training steps to size the schedule")
    epoch = measure_step_time(model, replace(context, runtime=runtime)).epoch
    epochs = sized_epochs(epoch, BUILD_SECONDS, seconds, candidates, most=recipe.epochs)
    return recipe.with_(epochs=epochs), runtime, epoch, choice


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


def recipe_of(config: SearchConfig) -> Recipe:
    """The recipe that a configuration names, with its batch size; epochs are decided elsewhere."""
    recipe = (
        Recipe.preset(config.recipe) if isinstance(config.recipe, str) else Recipe.from_dict(config.recipe)
    )
    asked = {"batch_size": config.batch_size, "compile": config.compile}
    return recipe.with_(**{name: value for name, value in asked.items() if value is not None})
