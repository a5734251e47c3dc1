"""The running average of a network's weights that a recipe may evaluate instead of the weights themselves."""

from __future__ import annotations

from itertools import chain

import torch
from timm.utils import ModelEmaV3
from torch import nn

from se_nas.training.side_by_side import copy_together, parts_of, room_for


class Average:
    """timm's ``ModelEmaV3`` with its warm-up, updated with a share that lies on the device.

    Attributes:
        model: a copy of the network, with averaged weights and statistics of norms.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._ema = ModelEmaV3(model, decay=decay, use_warmup=True)
        self.model = self._ema.module
        weights = _tensors(model)
        pairs = [(average, weights[name]) for name, average in _tensors(self.model).items()]
        kinds = {average.dtype for average, _ in pairs if average.is_floating_point()}
        self._blocks = [_Block([pair for pair in pairs if pair[0].dtype == kind]) for kind in kinds]
        counters = [pair for pair in pairs if not pair[0].is_floating_point()]
        self._counters, self._counted = [pair[0] for pair in counters], [pair[1] for pair in counters]

    def share(self, updates: int) -> float:
        """The share of the weights in the average, in the update that follows ``updates`` others."""
        return 1.0 - self._ema.get_decay(updates + 1)

    @torch.no_grad()
    def update(self, share: torch.Tensor) -> None:
        """Move the average towards the weights. ``ModelEmaV3.update`` would read the share on the CPU."""
        for block in self._blocks:
            block.move(share)
        self._copy_counters()

    @torch.no_grad()
    def begin(self) -> None:
        """As a copy of the weights that the network has now."""
        for block in self._blocks:
            block.begin()
        self._copy_counters()

    def _copy_counters(self) -> None:
        if self._counters:
            copy_together(self._counters, self._counted)


class _Block:
    """Averages of one type side by side in memory, so that one kernel moves all of them.

    On a GPU, torch's ``_foreach_lerp_`` has a kernel for each tensor if the share lies on the device.

    Args:
        pairs: an average and the weight that it is of; the averages are moved.
    """

    def __init__(self, pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        self._averages, self._weights = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        self._block = room_for(self._averages)
        self._latest = torch.zeros_like(self._block)
        self._parts = parts_of(self._latest, self._averages)
        for average, place in zip(self._averages, parts_of(self._block, self._averages), strict=True):
            average.data = place.copy_(average.detach())

    def move(self, share: torch.Tensor) -> None:
        if self._block.is_cuda:
            self.move_at_once(share)
        else:
            # The same bit for bit, without the copies that launches are worth on a GPU.
            torch._foreach_lerp_(self._averages, self._weights, [share] * len(self._averages))

    def move_at_once(self, share: torch.Tensor) -> None:
        torch._foreach_copy_(self._parts, self._weights)
        self._block.lerp_(self._latest, share)

    def begin(self) -> None:
        torch._foreach_copy_(self._averages, self._weights)


def _tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """The parameters and buffers in the state dict of a network, themselves and not what it gives out."""
    found = dict(chain(model.named_parameters(), model.named_buffers()))
    return {name: found[name] for name in model.state_dict() if name in found}
