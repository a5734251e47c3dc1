"""How long an epoch will take, from a few real steps."""

from __future__ import annotations

import copy
import statistics
import time
from dataclasses import dataclass

import torch
from torch import nn

from se_nas.training.batches import Batches
from se_nas.training.compiling import compile_blocks
from se_nas.training.context import Context
from se_nas.training.session import make_batches
from se_nas.training.step import Step


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """Seconds: of one training step, of validation, of an epoch of ``steps`` steps with its validation.

    ``preparation`` is what came before the first step that was timed: optimiser, compiling, capture.
    """

    step: float
    validation: float
    steps: int
    preparation: float = 0.0

    @property
    def epoch(self) -> float:
        return self.steps * self.step + self.validation


def measure_step_time(model: nn.Module, context: Context, *, steps: int = 4, warmup: int = 2) -> StepTime:
    """Median of ``steps`` real training steps after ``warmup``, and one validation. The model is not
    changed.
    """
    runtime, began = context.runtime, time.perf_counter()
    model = runtime.place(copy.deepcopy(model))
    if runtime.compile:
        compile_blocks(model)
    batches = make_batches(context)
    step = Step(model, context, batches)
    with step.active():
        prepared = time.perf_counter() - began
        seconds = _steps(step, batches, context.device, warmup + steps)
        before = time.perf_counter()
        step.validate()
        validation = time.perf_counter() - before
    step.join()
    median = statistics.median(seconds[warmup:])
    # The first steps take longer: kernels are chosen, and graphs captured.
    late = sum(max(0.0, each - median) for each in seconds[:warmup])
    return StepTime(step=median, validation=validation, steps=batches.steps, preparation=prepared + late)


def _steps(step: Step, batches: Batches, device: str, count: int) -> list[float]:
    """Seconds of each of ``count`` steps, what is drawn for it included."""
    step.set_mode(frozen=False)
    seconds: list[float] = []
    epoch = 0
    while True:
        before = time.perf_counter()
        for inputs in batches.inputs(epoch):
            step.load(inputs)
            step.run()
            _wait(device)
            seconds.append(time.perf_counter() - before)
            if len(seconds) == count:
                return seconds
            before = time.perf_counter()
        epoch += 1


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    elif device == "mps":
        torch.mps.synchronize()
