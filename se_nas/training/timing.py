"""How long an epoch will take, from a few real steps."""

from __future__ import annotations

import copy
import statistics
import time
from dataclasses import dataclass

import torch
from torch import nn

from se_nas.training.compiling import compile_blocks
from se_nas.training.context import Context
from se_nas.training.graphs import Forward
from se_nas.training.loop import evaluate, make_batches
from se_nas.training.optim import make_loss, make_optimizer
from se_nas.training.randomness import isolated


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """Seconds: of one training step, of validation, of an epoch of ``steps`` steps with its validation."""

    step: float
    validation: float
    steps: int

    @property
    def epoch(self) -> float:
        return self.steps * self.step + self.validation


def measure_step_time(model: nn.Module, context: Context, *, steps: int = 4, warmup: int = 2) -> StepTime:
    """Median of ``steps`` real training steps after ``warmup``, and one validation. The model is not
    changed.
    """
    with isolated(context.device):
        return _measure(model, context, steps, warmup)


def _measure(model: nn.Module, context: Context, steps: int, warmup: int) -> StepTime:
    runtime = context.runtime
    model = runtime.place(copy.deepcopy(model)).train()
    if runtime.compile:
        compile_blocks(model)
    forward = Forward(model, runtime)
    batches = make_batches(context)
    optimizer = make_optimizer(model, context.recipe)
    loss_fn = make_loss(context.recipe, batches.augment.mixes)
    seconds: list[float] = []
    epoch = 0
    while len(seconds) < warmup + steps:
        before = time.perf_counter()
        for images, targets in batches.epoch(epoch):
            with runtime.autocast():
                loss = loss_fn(forward(images).float(), targets)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            _wait(context.device)
            seconds.append(time.perf_counter() - before)
            before = time.perf_counter()
            if len(seconds) == warmup + steps:
                break
        epoch += 1
    before = time.perf_counter()
    evaluate(model, context)
    return StepTime(
        step=statistics.median(seconds[warmup:]), validation=time.perf_counter() - before, steps=batches.steps
    )


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    elif device == "mps":
        torch.mps.synchronize()
