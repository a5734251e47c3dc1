"""Batches of images already in memory: the same images, order and draws for every candidate of a seed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from se_nas.data import ImageData, Images
from se_nas.training.augment import Augment
from se_nas.training.randomness import ORDER, generator
from se_nas.training.recipe import Recipe
from se_nas.training.runtime import Runtime

Batch = tuple[torch.Tensor, torch.Tensor]

EVAL_BATCH = 512
"""On a CPU in bf16, up to a tenth faster than 256 by image, and no slower in fp32."""
EVAL_PIXELS = 256 * 96 * 96
AHEAD_PIXELS = 8 * 64 * 32 * 32
"""Batches of small images are made in runs of so many pixels: right after a step of the network each would be made
from cold caches, which took twice as long (64 images of 32 pixels on a CPU)."""


class Batches(Protocol):
    """Training batches of one candidate and seed."""

    augment: Augment
    steps: int

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """(images, targets) on the device, from batch ``start`` of the epoch (both from 0)."""
        ...

    def skipped(self) -> tuple[str, ...]:
        """Names of the images that could not be decoded so far."""
        ...


def effective_batch(recipe: Recipe, images: Images) -> int:
    """The batch size, cut to an even number that the data can fill."""
    return min(recipe.batch_size, max(2, len(images) // 2 * 2))


def eval_batch(data: ImageData, runtime: Runtime) -> int:
    """Images of one pass in validation: fewer where they are large, or where training ran out of memory."""
    _, height, width = data.input_size
    fitting = max(1, min(EVAL_BATCH, EVAL_PIXELS // (height * width)))
    return fitting if runtime.micro_batch is None else min(fitting, runtime.micro_batch)


class MemoryBatches:
    """Training batches from uint8 pixels, kept on the device. The last, partial batch of an epoch is
    dropped.
    """

    def __init__(self, data: ImageData, recipe: Recipe, runtime: Runtime, seed: int) -> None:
        assert data.train.pixels is not None
        self._pixels = data.train.pixels.to(runtime.device)
        self._labels = data.train.labels.to(runtime.device)
        self._seed, self._runtime = seed, runtime
        self.augment = Augment(recipe, data)
        self.batch_size = effective_batch(recipe, data.train)
        self.steps = len(self._labels) // self.batch_size

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        order = generator(ORDER, self._seed, epoch).permutation(len(self._labels))
        ahead = max(1, AHEAD_PIXELS // (self.batch_size * self._pixels[0, 0].numel()))
        for first in range(start, self.steps, ahead):
            steps = range(first, min(first + ahead, self.steps))
            yield from [self._batch(order, epoch, step) for step in steps]

    def _batch(self, order: NDArray[np.int64], epoch: int, step: int) -> Batch:
        chosen = torch.from_numpy(order[step * self.batch_size : (step + 1) * self.batch_size])
        chosen = chosen.to(self._pixels.device)
        # Several times faster on a CPU than indexing with brackets.
        pixels = self._pixels.index_select(0, chosen)
        images = self.augment.geometric(pixels, self._seed, epoch, step)
        images, targets = self.augment.finish(images, self._labels[chosen], self._seed, epoch, step)
        return formatted(images, self._runtime), targets

    def skipped(self) -> tuple[str, ...]:
        return ()


def memory_eval_batches(data: ImageData, split: str, augment: Augment, runtime: Runtime) -> Iterator[Batch]:
    """Images in their order, without augmentation."""
    images: Images = getattr(data, split)
    assert images.pixels is not None
    size = eval_batch(data, runtime)
    for start in range(0, len(images), size):
        pixels = images.pixels[start : start + size].to(runtime.device)
        yield formatted(augment.normalise(pixels), runtime), images.labels[start : start + size]


def formatted(images: torch.Tensor, runtime: Runtime) -> torch.Tensor:
    """Images in the memory format that the runtime decided on."""
    memory_format = torch.channels_last if runtime.channels_last else torch.contiguous_format
    return images.contiguous(memory_format=memory_format)
