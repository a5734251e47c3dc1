"""Recognises the gates that timm builds, with their kind and hidden width.

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
class Bottleneck:
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
    bottleneck = find_bottleneck(module)
    if bottleneck:
        return "se", len(weight_of(module.get_submodule(bottleneck.reduce)))
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
    channels = channels_of(module)
    if channels is None or len(_weighted(module)) > _MAX_LAYERS:
        return False
    probe = randomised(module)
    generator = torch.Generator().manual_seed(0)
    # Away from zero, so that output / input is the gate; of both signs, so that a ReLU inside is not dead.
    level = torch.randn(8, channels, 1, 1, generator=generator)
    level = level + level.sign()
    x = level * (0.5 + torch.rand(8, channels, 4, 4, generator=generator))
    moved = x.flatten(2)[..., torch.randperm(16, generator=generator)].unflatten(2, (4, 4))
    for order in ((0, 1, 2, 3), (0, 2, 3, 1)):
        gate, gate_moved = factors(probe, x.permute(order)), factors(probe, moved.permute(order))
        if gate is None or gate_moved is None:
            continue
        factor = gate.mean((order.index(2), order.index(3)), keepdim=True)
        of_channels = torch.allclose(gate, factor.expand_as(gate), atol=1e-5)
        of_the_map = torch.allclose(gate, gate_moved, atol=1e-5)
        of_the_input = not torch.allclose(gate, gate[:1].expand_as(gate), atol=1e-5)
        if of_channels and of_the_map and of_the_input:
            return True
    return False


def bottleneck_layers(module: nn.Module) -> tuple[nn.Module, nn.Module, list[nn.Module]] | None:
    """The layers C → h and h → C and the norms between them; None if anything else in the module has weights."""
    places = find_bottleneck(module)
    if places is None:
        return None
    reduce, expand, *norms = (module.get_submodule(p) for p in (places.reduce, places.expand, *places.norms))
    return reduce, expand, norms


def factor_layer(module: nn.Module) -> str | None:
    """Name of the submodule that returns a gate's factors (usually its sigmoid); None if no submodule does."""
    channels = channels_of(module)
    if channels is None:
        return None
    probe = randomised(module)
    for name, child in reversed(list(probe.named_modules())):
        if not name or next(child.children(), None) is not None or _holds_tensors(child):
            continue
        constant = copy.deepcopy(probe)
        constant.set_submodule(name, _Ones())
        for x in probe_maps(channels):
            factor = factors(constant, x)
            if factor is not None and torch.equal(factor, torch.ones_like(factor)):
                return name
    return None


class _Ones(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.ones_like(x)


def probe_maps(channels: int) -> tuple[Tensor, Tensor]:
    """A random map, (8, C, 4, 4) and (8, 4, 4, C), without values near zero."""
    level = torch.randn(8, channels, 4, 4, generator=torch.Generator().manual_seed(0))
    level = level + level.sign()
    return level, level.permute(0, 2, 3, 1)


def _holds_tensors(module: nn.Module) -> bool:
    return bool([*module.parameters(recurse=False), *module.buffers(recurse=False)])


def weight_of(layer: nn.Module) -> Tensor:
    assert isinstance(layer.weight, Tensor)
    return layer.weight


def _weighted(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Submodules that directly hold parameters or buffers, in order of registration."""
    return [(name, child) for name, child in module.named_modules() if _holds_tensors(child)]


def find_bottleneck(module: nn.Module) -> Bottleneck | None:
    """Paths of the layers C → h and h → C; None if anything but these and norms of width h has weights."""
    layers = _weighted(module)
    linear = [(name, layer) for name, layer in layers if isinstance(layer, _LINEAR)]
    others = [(name, layer) for name, layer in layers if not isinstance(layer, _LINEAR)]
    if len(linear) != 2 or not all(_is_pointwise(layer) for _, layer in linear):
        return None
    (reduce, first), (expand, second) = linear
    hidden, channels = weight_of(first).shape[:2]
    if weight_of(second).shape[:2] != (channels, hidden):
        return None
    if not all(_is_norm_of(layer, hidden) for _, layer in others):
        return None
    return Bottleneck(reduce=reduce, expand=expand, norms=tuple(name for name, _ in others))


def _is_pointwise(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Conv2d):
        return layer.kernel_size == (1, 1) and layer.groups == 1
    return isinstance(layer, nn.Linear)


def _is_square(layer: nn.Module) -> bool:
    return _is_pointwise(layer) and weight_of(layer).shape[0] == weight_of(layer).shape[1]


def _is_norm_of(layer: nn.Module, width: int) -> bool:
    tensors = [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]
    return all(tensor.shape == (width,) for tensor in tensors if tensor.ndim)


def channels_of(module: nn.Module) -> int | None:
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
def randomised(module: nn.Module) -> nn.Module:
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
def factors(module: nn.Module, x: Tensor) -> Tensor | None:
    """Output / input, or None if the module cannot take the input or changes its shape."""
    try:
        y = module(x.clone())
    except Exception:  # a module that raises, whatever it raises, has not gated the map
        return None
    return y / x if isinstance(y, Tensor) and y.shape == x.shape else None
