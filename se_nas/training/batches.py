"""Training batches of images in memory: the same images, order and draws for every candidate of a seed."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Protocol

import torch

from se_nas.data import ImageData, Images
from se_nas.training.augment import Augment
from se_nas.training.draws import Inputs
from se_nas.training.randomness import ORDER, generator
from se_nas.training.recipe import Recipe
from se_nas.training.runtime import Runtime

Batch = tuple[torch.Tensor, torch.Tensor]

EVAL_BATCH = 512
"""On a CPU in bf16, up to a tenth faster than 256 by image, and no slower in fp32."""
EVAL_PIXELS = 256 * 96 * 96
REMEMBERED = 256 * 2**20
"""Bytes of inputs to keep if several trainings share batches: all candidates of a seed draw the same."""

_copies: weakref.WeakKeyDictionary[Images, dict[str, Batch]] = weakref.WeakKeyDictionary()


class Batches(Protocol):
    """Training batches of one candidate and seed."""

    augment: Augment
    batch_size: int
    steps: int

    def inputs(self, epoch: int, start: int = 0) -> Iterator[Inputs]:
        """What ``batch`` needs for each batch of an epoch, from batch ``start`` (both from 0)."""
        ...

    def batch(self, inputs: Inputs) -> Batch:
        """(images, targets) from inputs on the device: only tensor operations, the same for every batch.

        It does not depend on the seed.
        """
        ...

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """(images, targets) on the device, from batch ``start`` of the epoch."""
        ...

    def skipped(self) -> tuple[str, ...]:
        """Names of the images that could not be decoded so far."""
        ...


def effective_batch(recipe: Recipe, images: Images) -> int:
    """The batch size, cut to an even number that the data can fill."""
    return min(recipe.batch_size, max(2, len(images) // 2 * 2))


def eval_batch(data: ImageData, runtime: Runtime) -> int:
    """Images of one pass in validation: fewer if they are large, or if training ran out of memory."""
    _, height, width = data.input_size
    fitting = max(1, min(EVAL_BATCH, EVAL_PIXELS // (height * width)))
    return fitting if runtime.micro_batch is None else min(fitting, runtime.micro_batch)


class MemoryBatches:
    """Training batches from uint8 pixels, kept on the device; an incomplete last batch is dropped.

    Inputs are ``chosen`` (B,), the indices of a batch's images, and the draws of ``Augment``. A policy
    (RandAugment and the like) runs on the CPU: the images that it made are then inputs too, as ``pixels``.
    """

    def __init__(
        self, data: ImageData, recipe: Recipe, runtime: Runtime, seed: int, *, remember: int = 0
    ) -> None:
        """
        Args:
            data, recipe, runtime, seed: as in ``Context``.
            remember: bytes of inputs to keep for other trainings that ask for the same batches.
        """
        self._kept: dict[tuple[int, int], Inputs] = {}
        self._room = remember
        self._images = data.train
        self._pixels, self._labels = on_device(data.train, runtime.device)
        self._seed, self._runtime = seed, runtime
        self.augment = Augment(recipe, data, runtime.device)
        self.batch_size = effective_batch(recipe, data.train)
        self.steps = len(self._labels) // self.batch_size

    def inputs(self, epoch: int, start: int = 0) -> Iterator[Inputs]:
        order: torch.Tensor | None = None
        for step in range(start, self.steps):
            inputs = self._kept.get((epoch, step))
            if inputs is None:
                if order is None:
                    draws = generator(ORDER, self._seed, epoch)
                    order = torch.from_numpy(draws.permutation(len(self._labels)))
                inputs = self._drawn(order[step * self.batch_size :][: self.batch_size], epoch, step)
                size = sum(value.nbytes for value in inputs.values())
                if size <= self._room:
                    self._kept[epoch, step] = inputs
                    self._room -= size
            yield inputs

    def _drawn(self, chosen: torch.Tensor, epoch: int, step: int) -> Inputs:
        draws, key = self.augment.draws, (self._seed, epoch, step)
        inputs = {"chosen": chosen}
        if draws.policy is not None:
            assert self._images.pixels is not None
            inputs["pixels"] = draws.with_policy(self._images.pixels[chosen], *key)
        return inputs | draws.geometric(len(chosen), *key) | draws.finish(len(chosen), *key)

    def batch(self, inputs: Inputs) -> Batch:
        # Several times faster on a CPU than indexing with brackets.
        pixels = inputs["pixels"] if "pixels" in inputs else self._pixels.index_select(0, inputs["chosen"])
        images = self.augment.geometric(pixels, inputs)
        images, targets = self.augment.finish(images, self._labels[inputs["chosen"]], inputs)
        return formatted(images, self._runtime), targets

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        for inputs in self.inputs(epoch, start):
            yield self.batch(moved(inputs, self._runtime.device))

    def skipped(self) -> tuple[str, ...]:
        return ()


def on_device(images: Images, device: str) -> Batch:
    """Pixels (uint8) and labels of images in memory, on a device; all trainings of a process share one copy."""
    assert images.pixels is not None
    copies = _copies.setdefault(images, {})
    if device not in copies:
        copies[device] = (images.pixels.to(device), images.labels.to(device))
    return copies[device]


def moved(inputs: Inputs, device: str) -> Inputs:
    """Inputs on a device."""
    return {name: value.to(device) for name, value in inputs.items()}


def formatted(images: torch.Tensor, runtime: Runtime) -> torch.Tensor:
    """Images in the memory format that the runtime decided on."""
    memory_format = torch.channels_last if runtime.channels_last else torch.contiguous_format
    return images.contiguous(memory_format=memory_format)
