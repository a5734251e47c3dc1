"""An optimiser's state that can be put back to its start, or to a checkpoint, without moving in memory.

A CUDA graph writes to the addresses that it was captured with. torch's optimisers make their state at the first
step and replace it when they load one, so here it is made beforehand and then only copied into.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch

from se_nas.training.side_by_side import copy_together


class FixedState:
    """The state of a newly made optimiser, from now on at fixed addresses."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._parameters = [weight for group in optimizer.param_groups for weight in group["params"]]
        optimizer.state = defaultdict(_Recorded)
        self._make()

    def _make(self) -> None:
        """One step from zero by zero, of which each entry's first value is kept: that is how trainings start."""
        weights = [weight.detach().clone() for weight in self._parameters]
        with torch.no_grad():
            for weight in self._parameters:
                weight.zero_()
                weight.grad = torch.zeros_like(weight)
            self._optimizer.step()
            self._optimizer.zero_grad()
            for weight, value in zip(self._parameters, weights, strict=True):
                weight.copy_(value)
        self.reset()

    def reset(self) -> None:
        """As before the first step."""
        held, first = [], []
        for entries in self._optimizer.state.values():
            _check_names(entries, entries.first)
            for key, value in entries.first.items():
                if isinstance(value, torch.Tensor):
                    held.append(entries[key])
                    first.append(value)
                else:
                    entries[key] = value
        if held:
            with torch.no_grad():
                copy_together(held, first)

    def load(self, state: dict[str, Any]) -> None:
        """Take over a ``state_dict`` of such an optimiser; a parameter that has no entries yet is reset.

        Raises:
            ValueError: it is the state of another optimiser or network.
        """
        saved = [index for group in state["param_groups"] for index in group["params"]]
        if len(saved) != len(self._parameters):
            raise ValueError(
                f"the loaded state is of {len(saved)} parameters; the optimiser has {len(self._parameters)}"
            )
        for index, weight in zip(saved, self._parameters, strict=True):
            entries = self._optimizer.state[weight]
            _fill(entries, state["state"].get(index) or entries.first)

    def tensors(self) -> Iterator[torch.Tensor]:
        for entries in self._optimizer.state.values():
            yield from (value for value in entries.values() if isinstance(value, torch.Tensor))


class _Recorded(dict[str, Any]):
    """Entries of one parameter, and what was first assigned to each."""

    def __init__(self) -> None:
        super().__init__()
        self.first: dict[str, Any] = {}

    def __setitem__(self, key: str, value: Any) -> None:
        if key not in self.first:
            self.first[key] = value.detach().clone() if isinstance(value, torch.Tensor) else value
        super().__setitem__(key, value)


def _check_names(entries: dict[str, Any], values: dict[str, Any]) -> None:
    if entries.keys() != values.keys():
        raise ValueError(f"the loaded state has {sorted(values)}; the optimiser has {sorted(entries)}")


def _fill(entries: dict[str, Any], values: dict[str, Any]) -> None:
    _check_names(entries, values)
    for key, value in values.items():
        held = entries[key]
        if isinstance(held, torch.Tensor):
            if held.shape != value.shape:
                raise ValueError(
                    f"the loaded {key} has shape {tuple(value.shape)} instead of {tuple(held.shape)}"
                )
            held.copy_(value)
        else:
            entries[key] = value
