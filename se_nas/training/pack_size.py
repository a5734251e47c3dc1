"""How many trainings side by side a device keeps up with: measured for seconds on real steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from se_nas.training.batches import REMEMBERED, MemoryBatches
from se_nas.training.faults import OutOfMemoryError
from se_nas.training.session import Training

if TYPE_CHECKING:
    from se_nas.architecture import Architecture
    from se_nas.training.context import Context
    from se_nas.training.masked import Place

SIZES = (1, 2, 4, 8, 16)
SECONDS = 2.0
"""Time for which each number of places is measured."""
WARM_UP = 5
"""Advances of a new training before it is timed: it is prepared, and its step captured."""
LEAST_GAIN = 1.05
"""More places are tried as long as they raise the rate by this factor."""
GOOD_ENOUGH = 0.97
"""The fewest places that reach this share of the best rate are chosen: each takes memory."""
LONG = 1000
"""Epochs of the trainings that are timed, so that none ends meanwhile."""


def measure_rates(
    make_place: Callable[[], Place],
    architecture: Architecture,
    context: Context,
    *,
    sizes: Sequence[int] = SIZES,
    seconds: float = SECONDS,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[int, float]:
    """Images per second, over all places together, by how many train side by side.

    Ends when further places gain nothing, or do not fit in memory.

    Args:
        make_place: makes a place on the context's device.
        architecture: the candidate that all of them train.
        context: what it will be trained with; no checkpoint is written.
        sizes: numbers of places to try, ascending.
        seconds: for each.
        clock: in seconds.

    Raises:
        OutOfMemoryError: not even the first number fits.
    """
    long = replace(context, recipe=context.recipe.with_(epochs=LONG), checkpoint_dir=None)
    batches = None
    if context.data.in_memory:
        # As in a pack, whose trainings draw what they share once.
        batches = MemoryBatches(long.data, long.recipe, long.runtime, long.seed, remember=REMEMBERED)
    rates: dict[int, float] = {}
    trainings: list[Training] = []
    try:
        for size in sizes:
            try:
                while len(trainings) < size:
                    own = replace(long, curve=[])
                    place = make_place()
                    trainings.append(place.begin(architecture, own, batches=batches, alone=lambda: False))
                    for _ in range(WARM_UP):
                        trainings[-1].advance()
                rates[size] = _rate(trainings, context.device, seconds, clock)
            except OutOfMemoryError:
                if not rates:
                    raise
                break
            if len(rates) > 1 and rates[size] < LEAST_GAIN * max(r for s, r in rates.items() if s < size):
                break
    finally:
        for training in trainings:
            training.close()
        trainings.clear()
        if context.device.startswith("cuda"):
            torch.cuda.empty_cache()
    return rates


def fewest_places(rates: dict[int, float]) -> int:
    """The fewest places whose rate is nearly the best."""
    best = max(rates.values())
    return min(size for size, rate in rates.items() if rate >= GOOD_ENOUGH * best)


def _rate(trainings: Sequence[Training], device: str, seconds: float, clock: Callable[[], float]) -> float:
    _wait(device)
    began, before = clock(), _images(trainings)
    while clock() - began < seconds:
        for training in trainings:
            training.advance()
    _wait(device)
    return (_images(trainings) - before) / (clock() - began)


def _images(trainings: Sequence[Training]) -> int:
    return sum(training.step.updates * training.batch_size for training in trainings if training.step)


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
