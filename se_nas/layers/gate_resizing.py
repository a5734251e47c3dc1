"""Removing a native gate, and giving it another hidden width."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from se_nas.errors import BackboneError
from se_nas.layers.native_gates import (
    channels_of,
    factors,
    find_bottleneck,
    probe_maps,
    randomised,
    weight_of,
)


def removed(module: nn.Module) -> nn.Module:
    """What replaces a removed gate: a module that returns its input."""
    return nn.Identity().train(module.training)


def resized(module: nn.Module, rd_channels: int) -> nn.Module:
    """A copy of an SE module with another hidden width; class, gate, activation and norms stay.

    A smaller width keeps the most important units, in their old order. The importance of a unit is the norm of its
    incoming weights, times the factor of the norm layer after it, times the norm of its outgoing weights. A larger
    width keeps all units and adds new ones with fresh incoming and zero outgoing weights, so the function stays
    the same.

    Raises:
        BackboneError: the module has no bottleneck, or ``rd_channels`` is not an integer of at least 1.
    """
    if isinstance(rd_channels, bool) or not isinstance(rd_channels, int) or rd_channels < 1:
        raise BackboneError(f"rd_channels is {rd_channels!r}; it must be an integer of at least 1.")
    places = find_bottleneck(module)
    if places is None:
        raise BackboneError(
            f"{type(module).__name__} has no bottleneck of two linear layers and cannot be resized;"
            " keep it or remove it."
        )
    result = copy.deepcopy(module)
    reduce, expand, *norms = (result.get_submodule(p) for p in (places.reduce, places.expand, *places.norms))
    kept = _most_important(reduce, expand, norms, rd_channels)
    result.set_submodule(places.reduce, _reduce_of(reduce, kept, rd_channels))
    result.set_submodule(places.expand, _expand_of(expand, kept, rd_channels))
    for path, norm in zip(places.norms, norms, strict=True):
        result.set_submodule(path, _norm_of(norm, kept, rd_channels))
    return result


def takes_padding(module: nn.Module) -> bool:
    """Whether adding hidden units with zero weights to an SE module leaves its function unchanged.

    Tried out on a copy with random weights, in training and in evaluation mode.
    """
    places = find_bottleneck(module)
    channels = channels_of(module)
    if places is None or channels is None:
        return False
    probe = randomised(module)
    width = len(weight_of(probe.get_submodule(places.reduce)))
    with torch.random.fork_rng(devices=[]):
        padded = resized(probe, width + 3)
    added = [padded.get_submodule(path) for path in (places.reduce, *places.norms)]
    with torch.no_grad():
        for tensor in (t for layer in added for t in (*layer.parameters(), *layer.buffers()) if t.ndim):
            tensor[width:] = 0.0
    for x in probe_maps(channels):
        for training in (True, False):
            before, after = factors(probe.train(training), x), factors(padded.train(training), x)
            if before is None or after is None:
                break
            if not torch.allclose(before, after, rtol=1e-4, atol=1e-5):
                return False
        else:
            return True
    return False


def _most_important(reduce: nn.Module, expand: nn.Module, norms: list[nn.Module], count: int) -> Tensor:
    rows = weight_of(reduce).detach().flatten(1).double().norm(dim=1)
    columns = weight_of(expand).detach().transpose(0, 1).flatten(1).double().norm(dim=1)
    importance = rows * columns
    for norm in norms:
        if isinstance(norm.weight, Tensor):
            importance = importance * norm.weight.detach().double().abs()
        if isinstance(norm, nn.BatchNorm2d | nn.BatchNorm1d) and norm.running_var is not None:
            importance = importance / (norm.running_var.double() + norm.eps).sqrt()
    # Meta tensors have no values to rank; any units will do, since their weights are loaded later.
    if importance.is_meta:
        return torch.arange(min(count, len(importance)))
    best = torch.sort(importance, descending=True, stable=True).indices[:count]
    return best.sort().values


def _like(layer: nn.Module, **widths: int) -> nn.Module:
    """A new layer of the same class and settings with other widths, on the same device."""
    names = {
        nn.Conv2d: ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups"),
        nn.Linear: ("in_features", "out_features"),
    }
    base = nn.Linear if isinstance(layer, nn.Linear) else nn.Conv2d
    settings = {name: getattr(layer, name) for name in names[base]} | widths
    new = type(layer)(
        **settings, bias=layer.bias is not None, device=weight_of(layer).device, dtype=weight_of(layer).dtype
    )
    return new.train(layer.training)


@torch.no_grad()
def _reduce_of(layer: nn.Module, kept: Tensor, width: int) -> nn.Module:
    new = _like(layer, **{_name(layer, "out"): width})
    for target, source in zip(new.parameters(), layer.parameters(), strict=True):
        target[: len(kept)] = source[kept]
    return _same_grad(new, layer)


@torch.no_grad()
def _expand_of(layer: nn.Module, kept: Tensor, width: int) -> nn.Module:
    new = _like(layer, **{_name(layer, "in"): width})
    weight_of(new).zero_()
    weight_of(new)[:, : len(kept)] = weight_of(layer)[:, kept]
    if isinstance(new.bias, Tensor):
        new.bias.copy_(layer.get_parameter("bias"))
    return _same_grad(new, layer)


@torch.no_grad()
def _norm_of(norm: nn.Module, kept: Tensor, width: int) -> nn.Module:
    new = copy.deepcopy(norm)
    fill = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}
    for name, value in [*norm.named_parameters(recurse=False), *norm.named_buffers(recurse=False)]:
        if value.ndim != 1:
            continue
        tensor = torch.full((width,), fill.get(name, 0.0), dtype=value.dtype, device=value.device)
        tensor[: len(kept)] = value[kept]
        is_parameter = isinstance(value, nn.Parameter)
        setattr(new, name, nn.Parameter(tensor, value.requires_grad) if is_parameter else tensor)
    for name in ("num_features", "num_channels"):
        if hasattr(new, name):
            setattr(new, name, width)
    return new


def _same_grad(new: nn.Module, old: nn.Module) -> nn.Module:
    for name, parameter in new.named_parameters():
        parameter.requires_grad_(old.get_parameter(name).requires_grad)
    return new


def _name(layer: nn.Module, side: str) -> str:
    return f"{side}_features" if isinstance(layer, nn.Linear) else f"{side}_channels"
