"""Inference by torch: eager, compiled, or one captured CUDA graph."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from se_nas.compilation import CompilationError, compilation_errors, compile_separately
from se_nas.cost.backends.base import Prepared
from se_nas.cost.memory import peak_of_tensors
from se_nas.cost.settings import LatencySettings
from se_nas.device import resolve_device
from se_nas.errors import ConfigError

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_CAPTURE_WARM_UP = 3


def prepare(model: nn.Module, images: Tensor, settings: LatencySettings) -> Prepared:
    """A synchronised inference of ``model`` on ``images`` under ``settings``.

    A network that is to be compiled is so when this returns. The peak memory is the device allocator's on
    CUDA. On the CPU it is that of the tensors alive during an eager inference, scratch space of the kernels
    not included.

    Raises:
        ConfigError: the network cannot be compiled here.
    """
    device = resolve_device(settings.device)
    layout = torch.channels_last if settings.channels_last else torch.preserve_format
    dtype = _DTYPES[settings.precision]
    model = model.to(device, dtype).to(memory_format=layout)
    images = images.to(device=device, dtype=dtype, memory_format=layout)
    on_cpu = device.type == "cpu"
    peak = peak_of_tensors(model, images) if on_cpu else None

    forward: Callable[[Tensor], Any] = model
    if settings.mode == "compile":
        forward = compile_separately(lambda images: model(images))
    elif settings.mode == "cudagraph":
        forward = _captured(model, images)

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
    if device.type == "cuda":
        run()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        held = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers(), images))
        peak = torch.cuda.max_memory_allocated(device) - before + held
    # A captured graph knows addresses, a compiled network may.
    move = _mover((*model.parameters(), *model.buffers(), images)) if settings.mode == "eager" else None
    return Prepared(run=run, peak_memory=peak, move=move)


def _mover(tensors: Sequence[Tensor]) -> Callable[[], None]:
    """Copies one tensor after the other, in random order: each may get the place that another has just left."""
    order = list(tensors)
    generator = random.Random(0)

    def move() -> None:
        generator.shuffle(order)
        for tensor in order:
            tensor.data = tensor.data.clone()

    return move


def _captured(model: nn.Module, images: Tensor) -> Callable[[Tensor], None]:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.inference_mode(), torch.cuda.stream(stream):
        for _ in range(_CAPTURE_WARM_UP):
            model(images)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.inference_mode(), torch.cuda.graph(graph):
        model(images)
    return lambda _: graph.replay()
