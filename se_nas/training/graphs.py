"""CUDA graphs in training: one launch for a network's whole forward pass, and one for its backward pass.

A small network on small images keeps a GPU waiting for launches; a graph has none of that. The optimiser, the
loss and validation stay outside.
"""

from __future__ import annotations

import torch
from torch import nn

from se_nas.compilation import compilation_errors
from se_nas.training.faults import OutOfMemoryError, memory_limit
from se_nas.training.runtime import Runtime


class Forward:
    """Calls a network in training, by CUDA graphs where ``runtime.graphs`` says so.

    They are captured at the first batch and serve batches of that shape; others are computed as without.
    Where a network cannot be captured, ``runtime.graphs`` is given up for good, with the reason.
    """

    def __init__(self, model: nn.Module, runtime: Runtime) -> None:
        self.model, self.runtime = model, runtime
        self.reset()

    def reset(self) -> None:
        """Capture anew at the next batch: modes of modules, or which weights are trained, have changed."""
        self._graphed: nn.Module | None = None
        self._shape: torch.Size | None = None

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Logits. A further call before the optimiser's step overwrites the gradients of the one before, which
        share the graph's memory: where gradients are accumulated, call the model itself.
        """
        if self.runtime.graphs and self._graphed is None:
            try:
                self._graphed, self._shape = _capture(self.model, self.runtime, images), images.shape
            except _CaptureError as error:
                self.runtime.graphs, self.runtime.graphs_error = False, str(error)
        if self._graphed is None or images.shape != self._shape:
            return self.model(images)
        return self._graphed(images)


class _CaptureError(Exception):
    """The network does something that a CUDA graph cannot hold, such as waiting for the device."""


class _Through(nn.Module):
    """What is captured in place of the network, whose own ``forward`` and copies stay as they are."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model(images)


def _capture(model: nn.Module, runtime: Runtime, images: torch.Tensor) -> nn.Module:
    """The passes that go before a capture leave no trace in statistics of norms or in random numbers."""
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    through = _Through(model)
    try:
        devices = [images.device] if images.is_cuda else []
        # A cache of casted weights would be filled by passes that are not part of the graph.
        autocast = runtime.autocast(cache_enabled=False)
        with torch.random.fork_rng(devices), compilation_errors(), memory_limit(), autocast:
            torch.cuda.make_graphed_callables(through, (images.clone(),), allow_unused_input=True)
    except OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise _CaptureError(str(error).splitlines()[0]) from error
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
    return through
