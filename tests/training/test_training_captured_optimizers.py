"""Which of timm's optimisers a CUDA graph can hold, found out without one.

A graph keeps the operations of one step with all numbers that Python gave them. So a tape of torch's operations,
replayed with other gradients and rates, shows what would be frozen: it trains like the optimiser or it does not.
"""

from __future__ import annotations

import sys
import warnings

import pytest
import torch
from timm.optim import list_optimizers
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from se_nas.training import Recipe
from se_nas.training.optim import can_be_captured, make_optimizer
from se_nas.training.optimizer_state import FixedState

STEPS = 12
"""More than six: RAdam's rectification begins there."""
# Those of other libraries need a GPU, Adahessian needs second derivatives.
NAMES = list_optimizers(exclude_filters=["bnb*", "fused*", "adahessian"])
FIRST_STEP_DIFFERS = {"adopt", "adoptc", "adoptw", "cadopt", "cadoptc", "cadoptw"}


class Tape(TorchDispatchMode):
    """The operations inside of ``with``, with the tensors and numbers that they were given."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        return out

    def replay(self):
        for func, args, kwargs, out in self.calls:
            for old, new in zip(tree_leaves(out), tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(old, torch.Tensor) and old is not new and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def trained(name, taped):
    """Weights after steps with changing gradients and rates; ``taped``: all but the first are replays of it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 20, 3), nn.BatchNorm2d(20), nn.Flatten(), nn.Linear(20, 4))
    optimizer = make_optimizer(model, Recipe(optimizer=name, weight_decay=0.05), capturable=True)
    FixedState(optimizer)
    rates = torch.zeros(len(optimizer.param_groups))
    for group, rate in zip(optimizer.param_groups, rates.unbind(), strict=True):
        group["lr"] = rate
        if group.get("capturable") and group.get("foreach", False) is None and not group.get("fused"):
            # torch's default on a GPU.
            group["foreach"] = True
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight)
    tape = None
    for step in range(STEPS):
        rates.fill_(1e-2 * (1 + step % 3))
        for weight in model.parameters():
            weight.grad.copy_(torch.randn(weight.shape))
        with torch.no_grad():
            if tape is not None:
                tape.replay()
            elif taped:
                with (tape := Tape()):
                    optimizer.step()
            else:
                optimizer.step()
    return [weight.detach() for weight in model.parameters()]


def replays_alike(name):
    # Some compile their step, and some warn of rates that are tensors.
    with torch.compiler.set_stance("force_eager"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            stepped, replayed = trained(name, taped=False), trained(name, taped=True)
        except (AttributeError, RuntimeError, TypeError, ValueError):
            # A rate that is a tensor is nothing to them.
            return False
    return all(torch.equal(one, other) for one, other in zip(stepped, replayed, strict=True))


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """torch's capturable optimisers refuse a CPU, though they compute the same there."""
    for module in list(sys.modules.values()):
        if module.__name__.startswith(("torch.optim", "timm.optim")):
            known = "_get_capturable_supported_devices"
            if hasattr(module, known):
                monkeypatch.setattr(module, known, lambda *args, **keywords: ["cpu"])


@pytest.mark.parametrize("name", [name for name in NAMES if name not in FIRST_STEP_DIFFERS])
def test_what_is_captured_trains_as_without_a_graph_and_nothing_else_would(as_on_a_gpu, name):
    assert replays_alike(name) == can_be_captured(Recipe(optimizer=name), "fp32")


def test_an_optimiser_whose_first_step_differs_is_not_captured():
    assert FIRST_STEP_DIFFERS.issubset(NAMES)
    assert not any(can_be_captured(Recipe(optimizer=name), "fp32") for name in FIRST_STEP_DIFFERS)


def test_a_captured_optimiser_begins_again_with_one_copy_of_each_type(as_on_a_gpu):
    model = nn.Sequential(*(nn.Linear(3, 3) for _ in range(40)))
    optimizer = make_optimizer(model, Recipe(optimizer="nadamw"), capturable=True)
    state = FixedState(optimizer)
    first = [tensor.clone() for tensor in state.tensors()]
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    assert not all(torch.equal(one, other) for one, other in zip(state.tensors(), first, strict=True))
    with (tape := Tape()):
        state.reset()
    assert [func.overloadpacket.__name__ for func, *_ in tape.calls] == ["_foreach_copy_"]
    assert all(torch.equal(one, other) for one, other in zip(state.tensors(), first, strict=True))
