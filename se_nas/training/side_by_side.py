"""Tensors side by side in one block of memory, so that one kernel, or one copy, serves all of them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import torch

ALIGNMENT = 64
"""Elements between the places at which tensors may begin; kernels read aligned memory faster."""


def room_for(
    tensors: Sequence[torch.Tensor], *, pinned: bool = False, device: str | None = None
) -> torch.Tensor:
    """A block of zeros with room for tensors of one type.

    Args:
        tensors: of one type, and on one device.
        pinned: whether it is in memory of the CPU to which a GPU copies while nobody waits.
        device: of the block; None for that of the tensors.
    """
    end = sum(_aligned(tensor) for tensor in tensors)
    where = tensors[0].device if device is None else device
    return torch.zeros(end, dtype=tensors[0].dtype, device=where, pin_memory=pinned)


def parts_of(block: torch.Tensor, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Views of a block with the shapes and memory formats of the tensors, one after the other."""
    parts, start = [], 0
    for tensor in tensors:
        parts.append(block.as_strided(tensor.shape, _strides(tensor), start))
        start += _aligned(tensor)
    return parts


def by_type(tensors: Sequence[torch.Tensor]) -> list[list[int]]:
    """Indices of the tensors that can lie in one block: of one type, on one device."""
    kinds: dict[tuple[torch.device, torch.dtype], list[int]] = defaultdict(list)
    for index, tensor in enumerate(tensors):
        kinds[tensor.device, tensor.dtype].append(index)
    return list(kinds.values())


def copies_on_cpu(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Copies of the tensors, those of one type in one block; on CUDA complete once the current stream's work is.

    A GPU puts them side by side itself, and each block is one transfer, for which nobody waits.
    """
    copies: list[torch.Tensor] = list(tensors)
    for indices in by_type(tensors):
        some = [tensors[index].detach() for index in indices]
        cuda = some[0].is_cuda
        block = room_for(some)
        torch._foreach_copy_(parts_of(block, some), some)
        target = room_for(some, pinned=cuda, device="cpu") if some[0].device.type != "cpu" else block
        if target is not block:
            target.copy_(block, non_blocking=cuda)
        for index, part in zip(indices, parts_of(target, some), strict=True):
            copies[index] = part
    return copies


def _aligned(tensor: torch.Tensor) -> int:
    return math.ceil(tensor.numel() / ALIGNMENT) * ALIGNMENT


def _strides(tensor: torch.Tensor) -> tuple[int, ...]:
    if tensor.is_contiguous() or tensor.is_contiguous(memory_format=torch.channels_last):
        return tensor.stride()
    return torch.empty_like(tensor, memory_format=torch.contiguous_format, device="meta").stride()
