"""Inference by torch: eager, compiled, or one captured CUDA graph."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from se_nas.compilation import CompilationError, compilation_errors, compile_separately
from se_nas.cost.backends.base import Prepared
from se_nas.cost.counting import is_out_of_memory
from se_nas.cost.memory import peak_of_tensors
from se_nas.cost.settings import LatencySettings
from se_nas.device import resolve_device
from se_nas.errors import ConfigError

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_CAPTURE_WARM_UP = 3


def prepare(model: nn.Module, images: Tensor, settings: LatencySettings) -> Prepared:
    """A synchronised inference of ``model`` on ``images`` under ``settings``.

    Compiling and capturing are done when this returns. The peak memory is the allocator's on CUDA (in mode graph
    that of an eager inference). On a CPU it is that of the tensors alive during an eager inference, without the
    scratch space of kernels.

    Raises:
        ConfigError: the network cannot be compiled or captured here.
    """
    device = resolve_device(settings.device)
    layout = torch.channels_last if settings.channels_last else torch.preserve_format
    dtype = _DTYPES[settings.precision]
    model = model.to(device, dtype).to(memory_format=layout)
    images = images.to(device=device, dtype=dtype, memory_format=layout)
    forward: Callable[[Tensor], Any] = model
    if settings.mode == "compile":
        forward = compile_separately(lambda images: model(images))

    def run() -> None:
        with torch.inference_mode():
            forward(images)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        elif device.type == "mps":
            torch.mps.synchronize()

    if settings.mode == "compile":
        try:
            with compilation_errors():
                run()
        except CompilationError as error:
            raise ConfigError(f"latency mode 'compile' does not work here: {error}; choose eager.") from error
    # Replaying a graph allocates nothing, so this comes before the capture.
    peak = _peak_memory(run, model, images, device)
    if settings.mode == "graph":
        forward = _captured(model, images, device)
        run()
    # A captured graph contains addresses, and a compiled network may.
    move = _mover((*model.parameters(), *model.buffers(), images)) if settings.mode == "eager" else None
    return Prepared(run=run, peak_memory=peak, move=move)


def _mover(tensors: Sequence[Tensor]) -> Callable[[], None]:
    """Copy one tensor after the other in random order, so that each may take the place that another has just left."""
    order = list(tensors)
    generator = random.Random(0)

    def move() -> None:
        generator.shuffle(order)
        for tensor in order:
            tensor.data = tensor.data.clone()

    return move


def _peak_memory(
    run: Callable[[], object], model: nn.Module, images: Tensor, device: torch.device
) -> int | None:
    if device.type == "cpu":
        return peak_of_tensors(model, images)
    if device.type != "cuda":
        return None
    run()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run()
    held = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers(), images))
    return torch.cuda.max_memory_allocated(device) - before + held


def _captured(model: nn.Module, images: Tensor, device: torch.device) -> Callable[[Tensor], None]:
    try:
        with torch.cuda.device(device), torch.inference_mode():
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(_CAPTURE_WARM_UP):
                    model(images)
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            # Other threads may use the device meanwhile, such as one that copies images.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                model(images)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"latency mode 'graph' does not work here: {reason}; choose eager.") from error

    def replay(_: Tensor) -> None:
        graph.replay()

    return replay
