"""Whether an optimiser updates a weight padded with zeros as it updates the weight without padding.

Most optimisers do: they work value by value, or with norms, to which zeros add nothing. Those that depend on shapes
(factored moments, orthogonal updates, projections) do not, so a masked network would not train like the built one.
Instead of a list of names, the optimiser is tried out on a few weights.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from se_nas.errors import SeNasError
from se_nas.layers.masked_gates import write_padded
from se_nas.layers.squeeze_excite import SqueezeExcite
from se_nas.training.optim import make_optimizer
from se_nas.training.recipe import Recipe

_CHANNELS, _WIDTH, _LARGEST = 20, 12, 24
"""Widths below and above 16: timm's AdafactorBigVision factors moments from 16 upwards."""
_STEPS = 14
"""More than six: RAdam's rectification and Lookahead's averaging begin there."""


def keeps_padding(recipe: Recipe) -> bool:
    """Whether a masked network trains like the built network with this recipe's optimiser."""
    return why_padding_breaks(recipe) is None


@functools.lru_cache(maxsize=32)
def why_padding_breaks(recipe: Recipe) -> str | None:
    """Why a masked network does not train like the built one with this recipe, in one sentence; None if it does.

    Raises:
        ConfigError: timm knows no such optimiser.
    """
    try:
        # Some optimisers compile their step, which would take minutes.
        with torch.random.fork_rng(devices=[]), torch.compiler.set_stance("force_eager"):
            same = _trains_alike(recipe)
    except SeNasError:
        raise
    except (
        Exception
    ) as error:  # optimisers that need a closure, second derivatives or another device raise all kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return f"optimizer {recipe.optimizer!r} cannot be tried out for a masked network: {reason}"
    if same:
        return None
    return (
        f"optimizer {recipe.optimizer!r} updates a weight differently when it is padded with zeros,"
        " so a masked network would not train like the built one."
    )


def _trains_alike(recipe: Recipe) -> bool:
    torch.manual_seed(0)
    small, padded = _network(_WIDTH), _network(_LARGEST)
    absent = SqueezeExcite(_CHANNELS, _WIDTH).double()
    padded["absent"] = absent
    pairs = _pairs(small, padded)
    optimizers = [make_optimizer(network, recipe) for network in (small, padded)]
    for step in range(_STEPS):
        for weight, twin in pairs:
            weight.grad = _gradient(weight.detach(), step)
            twin.grad = torch.zeros_like(twin)
            write_padded(twin.grad, weight.grad)
        for parameter in absent.parameters():
            parameter.grad = torch.zeros_like(parameter)
        for network, optimizer in zip((small, padded), optimizers, strict=True):
            torch.manual_seed(step)
            if recipe.clip_grad is not None:
                nn.utils.clip_grad_norm_(network.parameters(), recipe.clip_grad)
            optimizer.step()
        if not _agree(pairs, absent):
            return False
    return True


def _network(width: int) -> nn.ModuleDict:
    return nn.ModuleDict(
        {
            "stem": nn.Conv2d(3, _CHANNELS, 3),
            "norm": nn.BatchNorm2d(_CHANNELS),
            "se": SqueezeExcite(_CHANNELS, width),
            "fc": nn.Linear(_CHANNELS, 4),
        }
    ).double()


@torch.no_grad()
def _pairs(small: nn.Module, padded: nn.ModuleDict) -> list[tuple[Tensor, Tensor]]:
    """Give both networks equal weights, padded with zeros in the second; its absent gate becomes zero."""
    twins = dict(padded.named_parameters())
    for parameter in small.parameters():
        parameter.normal_()
    for parameter in padded.parameters():
        parameter.zero_()
    pairs: list[tuple[Tensor, Tensor]] = [(weight, twins[name]) for name, weight in small.named_parameters()]
    for weight, twin in pairs:
        write_padded(twin, weight)
    return pairs


def _gradient(weight: Tensor, step: int) -> Tensor:
    """Random; in every other step almost orthogonal to the weight, like gradients of weights before a norm.

    AdamP and SGDP project a gradient if its cosine to the weight is below a threshold that depends on the shape.
    """
    noise = torch.randn_like(weight)
    if step % 2:
        return noise
    direction = weight / weight.norm()
    across = noise - (noise * direction).sum() * direction
    cosine = 0.004 * 1.14**step
    return across / across.norm() + cosine * direction


def _agree(pairs: list[tuple[Tensor, Tensor]], absent: nn.Module) -> bool:
    for weight, twin in pairs:
        corner = torch.zeros_like(twin)
        write_padded(corner, weight.detach())
        outside = torch.ones_like(twin, dtype=torch.bool)
        outside[tuple(slice(size) for size in weight.shape)] = False
        if not torch.allclose(twin, corner, rtol=1e-9, atol=1e-12) or twin[outside].any():
            return False
    return not any(parameter.any() for parameter in absent.parameters())
