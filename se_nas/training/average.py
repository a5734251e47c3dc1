"""The running average of a network's weights that a recipe may evaluate instead of the weights themselves."""

from __future__ import annotations

import torch
from timm.utils import ModelEmaV3
from torch import nn


class Average:
    """timm's ``ModelEmaV3`` with its warm-up, updated with a share that lies on the device.

    Attributes:
        model: a copy of the network, with averaged weights and statistics of norms.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._ema = ModelEmaV3(model, decay=decay, use_warmup=True)
        self.model = self._ema.module
        self._source = model
        pairs = list(zip(self.model.state_dict().values(), model.state_dict().values(), strict=True))
        averaged = [pair for pair in pairs if pair[0].is_floating_point()]
        self._averages, self._weights = [pair[0] for pair in averaged], [pair[1] for pair in averaged]
        self._counters = [pair for pair in pairs if not pair[0].is_floating_point()]

    def share(self, updates: int) -> float:
        """The share of the weights in the average, in the update that follows ``updates`` others."""
        return 1.0 - self._ema.get_decay(updates + 1)

    @torch.no_grad()
    def update(self, share: torch.Tensor) -> None:
        """Move the average towards the weights. ``ModelEmaV3.update`` would read the share on the CPU."""
        torch._foreach_lerp_(self._averages, self._weights, [share] * len(self._averages))
        for counter, value in self._counters:
            counter.copy_(value)

    def begin(self) -> None:
        """As a copy of the weights that the network has now."""
        self._ema.set(self._source)
