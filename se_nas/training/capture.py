"""CUDA graphs: work that was recorded once is launched again as a whole, without Python between its kernels.

A small network on small images keeps a GPU waiting for launches; a graph has none of that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from se_nas.compilation import compilation_errors
from se_nas.training.faults import memory_limit

WARM_UP = 3
"""Runs before a capture, in which libraries choose their kernels and allocate what they keep."""


class CaptureError(Exception):
    """The work contains something that a CUDA graph cannot hold, such as waiting for the device."""


def capture(
    work: Callable[[], None],
    changes: Iterable[torch.Tensor],
    device: torch.device,
    forget: Callable[[], None] = lambda: None,
) -> Callable[[], None]:
    """Record ``work`` on the current stream, which is not the default one; what is returned runs it again.

    Args:
        work: reads and writes tensors that stay where they are.
        changes: all tensors that it changes and that outlive it. They keep their values, and so do the generators.
        forget: drops what a run of ``work`` has left behind, such as gradients, so that the next makes it anew.

    Raises:
        CaptureError: it cannot be captured.
        OutOfMemoryError, CompilationError: as in every run.
    """
    kept = [(tensor, tensor.detach().clone()) for tensor in changes]
    try:
        with compilation_errors(), memory_limit():
            try:
                with torch.random.fork_rng([device] if device.type == "cuda" else []):
                    for _ in range(WARM_UP):
                        work()
                        forget()
            finally:
                with torch.no_grad():
                    for tensor, value in kept:
                        tensor.copy_(value)
            return record(work, device)
    except RuntimeError as error:
        forget()
        raise CaptureError(str(error).splitlines()[0]) from error


def record(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Capture without a warm-up."""
    graph = torch.cuda.CUDAGraph()
    stream = torch.cuda.current_stream(device)
    met: Exception | None = None
    try:
        # Other threads write checkpoints and pin memory meanwhile, which only the strictest mode would forbid.
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            try:
                work()
            except Exception as error:
                met = error
                raise
    except RuntimeError:
        # Ending a capture that has failed fails too, and hides that memory ran out.
        if met is not None:
            raise met from None
        raise
    return graph.replay
