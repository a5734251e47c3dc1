"""Images that are decoded once for several trainings of one seed that run side by side.

Candidates of a seed see the same images in the same order with the same draws. So a batch that one of them has read
serves the others, as long as they are at about the same step.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

from se_nas.training.augment import Augment
from se_nas.training.batches import Batch, moved
from se_nas.training.draws import Inputs
from se_nas.training.loader import LoaderBatches

WINDOW = 4
"""Batches that are kept behind the first training, for those that follow it."""


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """Inputs of one batch; on CUDA they are complete when ``ready`` is."""

    inputs: Inputs
    ready: torch.cuda.Event | None


@dataclass
class _Stream:
    """The batches of one epoch as the loader yields them, and the step that comes next."""

    epoch: int
    step: int
    batches: Iterator[Inputs] = field(repr=False)


class SharedBatches:
    """``Batches`` of one seed for all trainings of a pack on one device.

    The loader reads ahead for the first of them. One that is at another step, because it went on from a checkpoint,
    has its batches decoded on the spot, which is slower and gives the same.

    Args:
        batches: those of the seed; nothing else may iterate over their loader meanwhile.
    """

    def __init__(self, batches: LoaderBatches) -> None:
        self._own = batches
        self.augment: Augment = batches.augment
        self.batch_size, self.steps = batches.batch_size, batches.steps
        self._kept: OrderedDict[tuple[int, int], _Kept] = OrderedDict()
        self._stream: _Stream | None = None
        self._leader: object = None

    def inputs(self, epoch: int, start: int = 0) -> Iterator[Inputs]:
        consumer = object()
        try:
            for step in range(start, self.steps):
                kept = self._kept.get((epoch, step)) or self._read(epoch, step, consumer)
                yield self._own.decoded(epoch, step) if kept is None else self._taken(kept)
        finally:
            # A training that ends in the middle of an epoch leaves the loader to the others.
            if self._leader is consumer:
                self._leader = None

    def _taken(self, kept: _Kept) -> Inputs:
        """The inputs, for work on the current stream."""
        if kept.ready is not None:
            stream = torch.cuda.current_stream(self._own.device)
            stream.wait_event(kept.ready)
            for value in kept.inputs.values():
                if value.is_cuda:
                    # Its memory is not given to others before this training has read it.
                    value.record_stream(stream)
        return kept.inputs

    def batch(self, inputs: Inputs) -> Batch:
        return self._own.batch(inputs)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        for inputs in self.inputs(epoch, start):
            yield self.batch(moved(inputs, self._own.device))

    def skipped(self) -> tuple[str, ...]:
        return self._own.skipped()

    def _read(self, epoch: int, step: int, consumer: object) -> _Kept | None:
        """The batch from the loader if it is the next there, or if the loader is free; else None."""
        stream = self._stream
        if stream is None or (stream.epoch, stream.step) != (epoch, step):
            if self._leader not in (None, consumer):
                return None
            stream = self._stream = _Stream(epoch, step, self._own.inputs(epoch, step))
        self._leader = consumer
        inputs = next(stream.batches)
        stream.step += 1
        ready = None
        if any(value.is_cuda for value in inputs.values()):
            ready = torch.cuda.Event()
            ready.record(torch.cuda.current_stream(self._own.device))
        kept = self._kept[epoch, step] = _Kept(inputs=inputs, ready=ready)
        while len(self._kept) > WINDOW:
            self._kept.popitem(last=False)
        return kept
