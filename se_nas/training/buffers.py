"""Tensors at fixed places on a device whose values are replaced step by step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch

from se_nas.training.draws import Inputs

ALIGNMENT = 16


class Buffers(Mapping[str, torch.Tensor]):
    """One buffer for each tensor of ``example``, with its name, shape and type.

    What comes from the CPU lies side by side in one block of memory, so that the inputs of a step reach a GPU in
    one copy, for which nobody waits.
    """

    def __init__(self, example: Inputs, device: torch.device) -> None:
        self._forms = {name: (value.shape, value.dtype) for name, value in example.items()}
        self._places: dict[str, slice] = {}
        end = 0
        for name, value in example.items():
            if value.device.type == "cpu":
                self._places[name] = slice(end, end + value.numel() * value.element_size())
                end = math.ceil(self._places[name].stop / ALIGNMENT) * ALIGNMENT
        self._block = torch.zeros(end, dtype=torch.uint8, device=device)
        elsewhere = {name: value for name, value in example.items() if name not in self._places}
        self._tensors = self._views(self._block) | {n: torch.empty_like(v) for n, v in elsewhere.items()}
        self._staging = torch.zeros_like(self._block, device="cpu") if self._block.is_cuda else self._block
        self._targets = self._tensors | self._views(self._staging)

    def load(self, values: Inputs) -> None:
        """Copy values into the buffers.

        Raises:
            ValueError: a name, shape or type is not that of the example.
        """
        forms = {name: (value.shape, value.dtype) for name, value in values.items()}
        if forms != self._forms:
            raise ValueError(f"the inputs are {forms}; the buffers were made for {self._forms}")
        for name, value in values.items():
            self._targets[name].copy_(value)
            if value.is_cuda:
                # Made on a loader's stream, which must not use its memory again before the copy is done.
                value.record_stream(torch.cuda.current_stream(value.device))
        if self._block.is_cuda:
            # Copies of earlier steps may still be under way, so each has a pinned block, which the allocator of
            # pinned memory keeps until the copy is done.
            self._block.copy_(self._staging.pin_memory(), non_blocking=True)

    def _views(self, block: torch.Tensor) -> Inputs:
        views = {}
        for name, place in self._places.items():
            shape, dtype = self._forms[name]
            views[name] = block[place].view(dtype).view(shape)
        return views

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)
