"""Memory of an inference on the CPU: what its tensors hold at the fullest moment."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from se_nas.errors import InfeasibleError


def peak_of_tensors(model: nn.Module, images: Tensor) -> int:
    """Bytes of weights, images and all feature maps alive at the fullest moment of an eager inference.

    Scratch space inside the kernels is not included.
    """
    held = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    return held + images.nbytes + _peak_of_features(model, images)


def check_batch_fits(model: nn.Module, image: Tensor, batch_size: int) -> None:
    """Refuse a batch that will not fit into memory, judged by one image (1, channels, height, width).

    A system that overcommits memory would kill the process, and a search with it.

    Raises:
        InfeasibleError: the feature maps of the batch need more than is free.
    """
    available = _available_memory()
    if batch_size == 1 or available is None:
        return
    needed = (_peak_of_features(model, image) + image.nbytes) * batch_size
    if needed > available:
        raise InfeasibleError(
            f"batch_size is {batch_size}, whose feature maps need about {needed / 2**30:.1f} GiB;"
            f" {available / 2**30:.1f} GiB of memory are free, which is enough for"
            f" {int(batch_size * available / needed)} images."
        )


def _peak_of_features(model: nn.Module, images: Tensor) -> int:
    with torch.inference_mode(), _TensorMemory() as memory:
        model(images)
    return memory.peak


class _TensorMemory(TorchDispatchMode):
    """Follows the storages that operations create, until they are freed."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._now = 0
        self._alive: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {_storage_id(value) for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)}
        for value in tree_leaves(result):
            if isinstance(value, Tensor) and _storage_id(value) not in given | self._alive:
                self._follow(value)
        return result

    def _follow(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        address, size = _storage_id(tensor), storage.nbytes()
        self._alive.add(address)
        self._now += size
        self.peak = max(self.peak, self._now)

        def freed() -> None:
            self._alive.discard(address)
            self._now -= size

        weakref.finalize(storage, freed)


def _storage_id(tensor: Tensor) -> int:
    # Views share one storage.
    return tensor.untyped_storage()._cdata


def _available_memory() -> int | None:
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return None
    for line in meminfo.read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None
