"""What training steps change: weights, the optimiser's state, loss scaling and the weight average."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from se_nas.training.average import Average
from se_nas.training.optim import can_be_captured, make_optimizer
from se_nas.training.optimizer_state import FixedState
from se_nas.training.recipe import Recipe
from se_nas.training.runtime import Runtime


class TrainState:
    """A network with its optimiser, loss scaling and average; can begin again and go on from a checkpoint.

    Attributes:
        fixed: whether a CUDA graph can hold the optimiser's steps: then its state stays where it is in memory, and
            its rates are tensors.
        average: of the weights; None if the recipe has none.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, runtime: Runtime, lr_factor: float) -> None:
        self.model = model
        self._recipe, self._lr_factor = recipe, lr_factor
        self.fixed = runtime.graphs and can_be_captured(recipe, runtime.precision)
        self.optimizer = make_optimizer(model, recipe, lr_factor, capturable=self.fixed)
        self._fixed_state = FixedState(self.optimizer) if self.fixed else None
        device = torch.device(runtime.device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=runtime.precision == "fp16")
        # It makes its tensors at the first use, which a capture must not be.
        self.scaler.scale(torch.zeros((), device=device))
        self._first_scaler = self.scaler.state_dict()
        self.average = None if recipe.ema_decay is None else Average(model, recipe.ema_decay)

    @property
    def evaluated(self) -> nn.Module:
        """The network that counts: the average if there is one."""
        return self.model if self.average is None else self.average.model

    def begin(self) -> None:
        """Start again from the weights that the network has now."""
        if self._fixed_state is None:
            self.optimizer = make_optimizer(self.model, self._recipe, self._lr_factor)
        else:
            self._fixed_state.reset()
        self.scaler.load_state_dict(self._first_scaler)
        if self.average is not None:
            self.average.begin()

    def set_rates(self, rates: Sequence[float | torch.Tensor]) -> None:
        """The learning rate of each of the optimiser's groups."""
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    def update(self, share: torch.Tensor | None) -> None:
        """Clip the gradients, step the optimiser, move the average by ``share`` and forget the gradients."""
        if self._recipe.clip_grad is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self._recipe.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        if self.average is not None:
            assert share is not None
            self.average.update(share)

    def tensors(self) -> Iterator[torch.Tensor]:
        """All tensors that stay where they are and that passes and updates change, gradients excepted."""
        yield from self.model.parameters()
        yield from self.model.buffers()
        if self._fixed_state is not None:
            yield from self._fixed_state.tensors()
        if self.average is not None:
            yield from self.average.model.state_dict().values()
        if self.scaler.is_enabled():
            assert self.scaler._scale is not None
            assert self.scaler._growth_tracker is not None
            yield from (self.scaler._scale, self.scaler._growth_tracker)

    def state_dict(self, rates: Sequence[float]) -> dict[str, Any]:
        """For a checkpoint, with the rates of the next step."""
        optimizer = self.optimizer.state_dict()
        groups = zip(optimizer["param_groups"], rates, strict=True)
        return {
            "model": self.model.state_dict(),
            "optimizer": optimizer | {"param_groups": [group | {"lr": rate} for group, rate in groups]},
            "scaler": self.scaler.state_dict(),
            "ema": None if self.average is None else self.average.model.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint.

        Raises:
            RuntimeError, ValueError, KeyError: it is that of another network or optimiser.
        """
        self.model.load_state_dict(state["model"])
        if self._fixed_state is None:
            self.optimizer.load_state_dict(_with_ways_of(self.optimizer, state["optimizer"]))
        else:
            self._fixed_state.load(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average.model.load_state_dict(state["ema"])


def _with_ways_of(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """A saved state with the optimiser's ways of computing, which belong to the machine and not to the training."""
    ways = ("capturable", "fused", "foreach")
    groups = [
        saved | {way: group[way] for way in ways if way in group}
        for saved, group in zip(state["param_groups"], optimizer.param_groups, strict=True)
    ]
    return state | {"param_groups": groups}
