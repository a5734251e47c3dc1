"""Gates that timm builds: recognise their kind, remove them, and change their hidden width.

A gate is recognised by what it does, not by its class: its output is its input times one factor per channel,
and the factor depends on the whole map but not on the arrangement of its pixels. Squeeze-and-excitation has two
linear layers, C → h → C; effective SE (arXiv 1911.06667) has one, C → C; ECA (arXiv 1910.03151) convolves over
the channels.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from se_nas.errors import BackboneError

_LINEAR = (nn.Conv2d, nn.Linear)
# No gate in timm has more, so nothing larger needs to be copied and tried out.
_MAX_LAYERS = 8


@dataclass(frozen=True, kw_only=True)
class _Bottleneck:
    """Paths of the two linear layers of an SE module, and of the norms of hidden width between them."""

    reduce: str
    expand: str
    norms: tuple[str, ...]


def describe_native(module: nn.Module) -> tuple[str, int | None]:
    """Kind and hidden width of a gate: ("se", h), or ("ese", None), ("eca", None), ... without a bottleneck.

    The kind of any other gate is its class name in lower case.

    Raises:
        BackboneError: the module is not a channel gate.
    """
    if not is_channel_gate(module):
        raise BackboneError(
            f"{type(module).__name__} is not a channel gate: its output is not its input times one factor"
            " per channel that depends on the whole map."
        )
    bottleneck = _bottleneck(module)
    if bottleneck:
        return "se", len(_weight(module.get_submodule(bottleneck.reduce)))
    layers = _weighted(module)
    if len(layers) == 1 and isinstance(layers[0][1], _LINEAR) and _is_square(layers[0][1]):
        return "ese", None
    if layers and all(isinstance(layer, nn.Conv1d) for _, layer in layers):
        return "eca", None
    return type(module).__name__.lower().removesuffix("module"), None


def is_channel_gate(module: nn.Module) -> bool:
    """Whether the module multiplies every channel of its input by a factor computed from the whole map.

    Tried out on a copy with random weights, so the answer is right for meta tensors and for trained weights that
    saturate the gate. Works for (N, C, H, W) and (N, H, W, C) modules.
    """
    channels = _channels(module)
    if channels is None or len(_weighted(module)) > _MAX_LAYERS:
        return False
    probe = _randomised(module)
    generator = torch.Generator().manual_seed(0)
    # Away from zero, so that output / input is the gate; of both signs, so that a ReLU inside is not dead.
    level = torch.randn(8, channels, 1, 1, generator=generator)
    level = level + level.sign()
    x = level * (0.5 + torch.rand(8, channels, 4, 4, generator=generator))
    moved = x.flatten(2)[..., torch.randperm(16, generator=generator)].unflatten(2, (4, 4))
    for order in ((0, 1, 2, 3), (0, 2, 3, 1)):
        gate, gate_moved = _gate(probe, x.permute(order)), _gate(probe, moved.permute(order))
        if gate is None or gate_moved is None:
            continue
        factor = gate.mean((order.index(2), order.index(3)), keepdim=True)
        of_channels = torch.allclose(gate, factor.expand_as(gate), atol=1e-5)
        of_the_map = torch.allclose(gate, gate_moved, atol=1e-5)
        of_the_input = not torch.allclose(gate, gate[:1].expand_as(gate), atol=1e-5)
        if of_channels and of_the_map and of_the_input:
            return True
    return False


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
    places = _bottleneck(module)
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


def bottleneck_layers(module: nn.Module) -> tuple[nn.Module, nn.Module, list[nn.Module]] | None:
    """The layers C → h and h → C and the norms between them; None if anything else in the module has weights."""
    places = _bottleneck(module)
    if places is None:
        return None
    reduce, expand, *norms = (module.get_submodule(p) for p in (places.reduce, places.expand, *places.norms))
    return reduce, expand, norms


def factor_layer(module: nn.Module) -> str | None:
    """The name of the submodule that returns a gate's factors (the sigmoid at its end); None if there is none."""
    channels = _channels(module)
    if channels is None:
        return None
    probe = _randomised(module)
    for name, child in reversed(list(probe.named_modules())):
        if not name or next(child.children(), None) is not None or _holds_tensors(child):
            continue
        constant = copy.deepcopy(probe)
        constant.set_submodule(name, _Ones())
        for x in _maps(channels):
            factor = _gate(constant, x)
            if factor is not None and torch.equal(factor, torch.ones_like(factor)):
                return name
    return None


def takes_padding(module: nn.Module) -> bool:
    """Whether an SE module with further hidden units, their weights all zero, computes what it did.

    Tried out on a copy with random weights, in training and in evaluation mode.
    """
    places = _bottleneck(module)
    channels = _channels(module)
    if places is None or channels is None:
        return False
    probe = _randomised(module)
    width = len(_weight(probe.get_submodule(places.reduce)))
    with torch.random.fork_rng(devices=[]):
        padded = resized(probe, width + 3)
    added = [padded.get_submodule(path) for path in (places.reduce, *places.norms)]
    with torch.no_grad():
        for tensor in (t for layer in added for t in (*layer.parameters(), *layer.buffers()) if t.ndim):
            tensor[width:] = 0.0
    for x in _maps(channels):
        for training in (True, False):
            before, after = _gate(probe.train(training), x), _gate(padded.train(training), x)
            if before is None or after is None:
                break
            if not torch.allclose(before, after, rtol=1e-4, atol=1e-5):
                return False
        else:
            return True
    return False


class _Ones(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.ones_like(x)


def _maps(channels: int) -> tuple[Tensor, Tensor]:
    """A random map, (8, C, 4, 4) and (8, 4, 4, C), without values near zero."""
    level = torch.randn(8, channels, 4, 4, generator=torch.Generator().manual_seed(0))
    level = level + level.sign()
    return level, level.permute(0, 2, 3, 1)


def _holds_tensors(module: nn.Module) -> bool:
    return bool([*module.parameters(recurse=False), *module.buffers(recurse=False)])


def _most_important(reduce: nn.Module, expand: nn.Module, norms: list[nn.Module], count: int) -> Tensor:
    rows = _weight(reduce).detach().flatten(1).double().norm(dim=1)
    columns = _weight(expand).detach().transpose(0, 1).flatten(1).double().norm(dim=1)
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
        **settings, bias=layer.bias is not None, device=_weight(layer).device, dtype=_weight(layer).dtype
    )
    return new.train(layer.training)


def _weight(layer: nn.Module) -> Tensor:
    assert isinstance(layer.weight, Tensor)
    return layer.weight


@torch.no_grad()
def _reduce_of(layer: nn.Module, kept: Tensor, width: int) -> nn.Module:
    new = _like(layer, **{_name(layer, "out"): width})
    for target, source in zip(new.parameters(), layer.parameters(), strict=True):
        target[: len(kept)] = source[kept]
    return _same_grad(new, layer)


@torch.no_grad()
def _expand_of(layer: nn.Module, kept: Tensor, width: int) -> nn.Module:
    new = _like(layer, **{_name(layer, "in"): width})
    _weight(new).zero_()
    _weight(new)[:, : len(kept)] = _weight(layer)[:, kept]
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


def _weighted(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Submodules that directly hold parameters or buffers, in order of registration."""
    return [(name, child) for name, child in module.named_modules() if _holds_tensors(child)]


def _bottleneck(module: nn.Module) -> _Bottleneck | None:
    """Paths of the layers C → h and h → C; None if anything but these and norms of width h has weights."""
    layers = _weighted(module)
    linear = [(name, layer) for name, layer in layers if isinstance(layer, _LINEAR)]
    others = [(name, layer) for name, layer in layers if not isinstance(layer, _LINEAR)]
    if len(linear) != 2 or not all(_is_pointwise(layer) for _, layer in linear):
        return None
    (reduce, first), (expand, second) = linear
    hidden, channels = _weight(first).shape[:2]
    if _weight(second).shape[:2] != (channels, hidden):
        return None
    if not all(_is_norm_of(layer, hidden) for _, layer in others):
        return None
    return _Bottleneck(reduce=reduce, expand=expand, norms=tuple(name for name, _ in others))


def _is_pointwise(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Conv2d):
        return layer.kernel_size == (1, 1) and layer.groups == 1
    return isinstance(layer, nn.Linear)


def _is_square(layer: nn.Module) -> bool:
    return _is_pointwise(layer) and _weight(layer).shape[0] == _weight(layer).shape[1]


def _is_norm_of(layer: nn.Module, width: int) -> bool:
    tensors = [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]
    return all(tensor.shape == (width,) for tensor in tensors if tensor.ndim)


def _channels(module: nn.Module) -> int | None:
    """Channels of the map that the module takes, from its first linear layer; None without one.

    ECA's convolutions take any number of channels.
    """
    layers = [layer for _, layer in _weighted(module)]
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            return layer.in_channels
        if isinstance(layer, nn.Linear):
            return layer.in_features
    return 12 if layers and all(isinstance(layer, nn.Conv1d) for layer in layers) else None


@torch.no_grad()
def _randomised(module: nn.Module) -> nn.Module:
    probe = copy.deepcopy(module).to_empty(device="cpu").float()
    probe.eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in probe.parameters():
        if parameter.ndim > 1:
            parameter.normal_(0.0, max(1, parameter[0].numel()) ** -0.5, generator=generator)
    for name, value in [*probe.named_parameters(), *probe.named_buffers()]:
        if value.ndim <= 1:
            value.fill_(1 if name.endswith(("weight", "running_var")) else 0)
    return probe


@torch.no_grad()
def _gate(module: nn.Module, x: Tensor) -> Tensor | None:
    """Output / input, or None if the module cannot take the input or changes its shape."""
    try:
        y = module(x.clone())
    except Exception:  # a module that raises, whatever it raises, has not gated the map
        return None
    return y / x if isinstance(y, Tensor) and y.shape == x.shape else None
