"""Device, precision, memory format and compilation: decided once for a run, recorded, and reused when it is
resumed.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from se_nas.device import resolve_device
from se_nas.documents.typed import Count, PositiveCount, parse
from se_nas.errors import ConfigError
from se_nas.training.recipe import Recipe

MAX_WORKERS = 8
FALLBACKS = {"compile": "compiling", "graphs": "CUDA graphs"}
"""Fields of a ``Runtime`` that are given up if they fail (the reason is in ``NAME_error``), in words."""


@dataclass(kw_only=True)
class Runtime:
    """How this machine trains. One object serves all candidates of a process; ``micro_batch`` is learned.

    Attributes:
        device: as in torch ("cpu", "cuda", "cuda:1", "mps").
        precision: "fp32", "bf16" or "fp16" (autocast; weights stay in fp32).
        channels_last: memory format of images and convolutions.
        compile: whether the blocks of the network are compiled; given up for good if that fails.
        compile_error: why it was given up, in one line.
        graphs: whether training steps are CUDA graphs; given up for good if that fails.
        graphs_error: why it was given up, in one line.
        graphs_note: what of a step is not part of its graph, and why, in one line.
        micro_batch: images of one pass, if a whole batch did not fit in memory.
        workers: processes that decode images of data that is not in memory; 0 decodes in this one.
    """

    device: str = "cpu"
    precision: str = "fp32"
    channels_last: bool = False
    compile: bool = False
    compile_error: str | None = None
    graphs: bool = False
    graphs_error: str | None = None
    graphs_note: str | None = None
    micro_batch: PositiveCount | None = None
    workers: Count = 0

    @classmethod
    def decide(cls, model: nn.Module, recipe: Recipe, device: str = "cpu") -> Runtime:
        """What the recipe asks for; "auto" is decided by the device and the kind of network, never by a
        timing, so that the same run decides the same way every time (docs/training.md has the measurements).
        Compiling and CUDA graphs are the exception, decided by ``choose_compile``; here "auto" is off.

        On a CPU bf16 pays if the processor has bf16 instructions and the network has no depthwise
        convolution, and channels-last pays in fp32. A GPU gets channels-last, and bf16 from compute
        capability 8.0, before that fp16. MPS stays in fp32.

        Raises:
            DeviceError: the device does not exist here.
        """
        resolved = resolve_device(device)
        kind = resolved.type
        precision = recipe.precision
        if precision == "auto":
            if kind == "cuda":
                precision = "bf16" if torch.cuda.get_device_capability(resolved)[0] >= 8 else "fp16"
            else:
                precision = (
                    "bf16" if kind == "cpu" and _cpu_has_bf16() and not _has_depthwise(model) else "fp32"
                )
        if precision == "fp16" and kind == "cpu":
            raise ConfigError("precision is 'fp16', which needs a GPU; allowed on a CPU: auto, fp32, bf16.")
        channels_last = recipe.channels_last == "on"
        if recipe.channels_last == "auto":
            channels_last = kind == "cuda" or (kind == "cpu" and precision == "fp32")
        return cls(
            device=str(resolved),
            precision=precision,
            channels_last=channels_last,
            compile=recipe.compile == "on",
            workers=min(MAX_WORKERS, _usable_cpus()),
        )

    @property
    def dtype(self) -> torch.dtype:
        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self.precision]

    def autocast(self, *, cache_enabled: bool = True) -> torch.autocast:
        """The autocast region of forward passes; cast weights are kept within it if the cache is on."""
        return torch.autocast(
            torch.device(self.device).type,
            dtype=self.dtype,
            enabled=self.precision != "fp32",
            cache_enabled=cache_enabled,
        )

    def place(self, model: nn.Module) -> nn.Module:
        """The model on the device, in the memory format."""
        keep_freed_memory()
        model = model.to(self.device)
        return model.to(memory_format=torch.channels_last) if self.channels_last else model

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, for the manifest."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Runtime:
        """Inverse of ``to_dict``; checks that the device exists here.

        Raises:
            ConfigError: it is something else.
            DeviceError: there is no such device.
        """
        try:
            runtime = parse(cls, data)
        except ValueError as error:
            raise ConfigError(f"this does not say how to train on a device: {error}.") from error
        resolve_device(runtime.device)
        return runtime

    def on(self, device: str) -> Runtime:
        """The same decisions on another device of the same kind."""
        return replace(self, device=str(resolve_device(device)))


@functools.cache
def keep_freed_memory() -> None:
    """Let glibc keep freed activations instead of giving them back to the kernel on every step.

    Without it, each step maps and clears its activations anew: 20 to 25 % of resnet50's time at 32 pixels.
    """
    if sys.platform.startswith("linux") and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        mmap_threshold, trim_threshold = -3, -1
        libc.mallopt(mmap_threshold, 1 << 30)
        libc.mallopt(trim_threshold, 2**31 - 1)


def _usable_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_has_bf16() -> bool:
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    names = ("avx512_bf16", "amx_bf16", "bf16")
    return any(bool(capabilities.get(name)) for name in names)


def _has_depthwise(model: nn.Module) -> bool:
    return any(
        isinstance(module, nn.Conv2d) and module.groups > 1 and module.groups == module.in_channels
        for module in model.modules()
    )
