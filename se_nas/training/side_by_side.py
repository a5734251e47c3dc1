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

    A GPU puts them side by side itself, and each block is one transfer, for which nobody waits. If it has no memory
    for a block, the tensors come one by one.
    """
    copies: list[torch.Tensor] = list(tensors)
    for indices in by_type(tensors):
        some = [tensors[index].detach() for index in indices]
        try:
            copied = _together(some)
        except torch.OutOfMemoryError:
            copied = [tensor.to("cpu", copy=True) for tensor in some]
        for index, copy in zip(indices, copied, strict=True):
            copies[index] = copy
    return copies


def _together(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Copies on the CPU of tensors of one type."""
    block = room_for(tensors)
    parts = parts_of(block, tensors)
    # One of another format would keep all from being copied at once.
    alike = [index for index, part in enumerate(parts) if part.stride() == tensors[index].stride()]
    if alike:
        torch._foreach_copy_([parts[index] for index in alike], [tensors[index] for index in alike])
    for index in set(range(len(tensors))).difference(alike):
        parts[index].copy_(tensors[index])
    if block.device.type == "cpu":
        return parts
    target = room_for(tensors, pinned=block.is_cuda, device="cpu")
    target.copy_(block, non_blocking=block.is_cuda)
    return parts_of(target, tensors)


class Staging:
    """Values for tensors on a device, written on the CPU and sent together: by a transfer and a kernel for each type.

    Args:
        targets: where the values go; they may change, but not move.

    Attributes:
        values: a tensor on the CPU for each target, in its shape; kept from one ``send`` to the next.
    """

    def __init__(self, targets: Sequence[torch.Tensor]) -> None:
        self._targets = list(targets)
        self._kinds = [_kind(tensor) for tensor in targets]
        self.values: list[torch.Tensor] = list(targets)
        self._groups = []
        for indices in by_type(targets):
            some = [targets[index] for index in indices]
            here = room_for(some, device="cpu")
            for index, part in zip(indices, parts_of(here, some), strict=True):
                self.values[index] = part
            there = here if some[0].device.type == "cpu" else room_for(some)
            self._groups.append((some, here, there, parts_of(there, some)))

    def fits(self, targets: Sequence[torch.Tensor]) -> bool:
        """Whether these are the targets, where they were."""
        return [*map(id, targets)] == [*map(id, self._targets)] and [*map(_kind, targets)] == self._kinds

    @torch.no_grad()
    def send(self) -> None:
        """Copy the values into the targets. Nobody waits for a GPU; its current stream does it."""
        for targets, here, there, parts in self._groups:
            if there.is_cuda:
                # The transfer may be under way when the next values are written, so each has a pinned block.
                there.copy_(here.pin_memory(), non_blocking=True)
            elif there is not here:
                there.copy_(here)
            torch._foreach_copy_(targets, parts)


def copy_together(targets: Sequence[torch.Tensor], sources: Sequence[torch.Tensor]) -> None:
    """Copy with a few kernels for each type, if the memory formats are equal."""
    for indices in by_type(targets):
        torch._foreach_copy_(
            [targets[index] for index in indices], [sources[index] for index in indices], non_blocking=True
        )


def _kind(tensor: torch.Tensor) -> tuple[torch.device, torch.dtype, int]:
    return tensor.device, tensor.dtype, tensor.data_ptr()


def _aligned(tensor: torch.Tensor) -> int:
    return math.ceil(tensor.numel() / ALIGNMENT) * ALIGNMENT


def _strides(tensor: torch.Tensor) -> tuple[int, ...]:
    if tensor.is_contiguous() or tensor.is_contiguous(memory_format=torch.channels_last):
        return tensor.stride()
    return torch.empty_like(tensor, memory_format=torch.contiguous_format, device="meta").stride()
