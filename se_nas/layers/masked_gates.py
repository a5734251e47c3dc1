"""Gates of constant shape whose hidden width is set by a mask; width 0 means no gate.

A masked gate computes what a gate of the chosen width computes, but its tensors have the shapes of the largest
width. Units beyond the width have zero weights; the mask blocks their output and their gradient, so they stay
zero. An absent gate returns its input bit for bit, and its weights get gradients of exactly zero.

The masks are buffers that are not part of state dicts: ``idle`` (True for units beyond the width) and ``absent``.
They are written in place, and nothing else differs between widths, so one CUDA graph, or one compilation, serves
all widths.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from se_nas.errors import BackboneError
from se_nas.layers.gate_resizing import takes_padding
from se_nas.layers.native_gates import bottleneck_layers, factor_layer
from se_nas.layers.squeeze_excite import SqueezeExcite

IDLE, ABSENT_FLAG = "idle", "absent"


class MaskedSqueezeExcite(SqueezeExcite):
    """An SE block with up to ``rd_channels`` hidden units. Takes the arguments of ``SqueezeExcite``.

    Attributes:
        idle: True for hidden units beyond the width, shape (rd_channels, 1, 1).
        absent: True if there is no gate, shape ().
        scale: factor of the gate, shape (): ``gate_scale`` times ``gain``.
        gain: constant by which the surrounding block would multiply the output of a gate that is present.
    """

    idle: Tensor
    absent: Tensor
    scale: Tensor

    def __init__(self, channels: int, rd_channels: int, *, gain: float = 1.0, **settings: Any) -> None:
        super().__init__(channels, rd_channels, **settings)
        self.gain = gain
        _add_mask(self, IDLE, (rd_channels, 1, 1))
        _add_mask(self, ABSENT_FLAG, ())
        self.register_buffer("scale", torch.tensor(gain * self.gate_scale), persistent=False)

    def set_scale(self, gate_scale: float) -> None:
        """Change ``gate_scale``, in place, so that a captured graph sees it."""
        self.gate_scale = gate_scale
        self.scale.fill_(self.gain * gate_scale)

    def _gate(self, squeezed: Tensor) -> Tensor:
        # Not in place: the activation needs its own output for its gradient.
        hidden = self.act(self.fc1(squeezed)).masked_fill(self.idle, 0.0)
        return (self.scale * self.gate(self.fc2(hidden))).masked_fill(self.absent, 1.0)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        self.set_scale(self.gate_scale)


def mask_native(gate: nn.Module, gain: float = 1.0) -> None:
    """Add masks to a gate that timm built, in place; its weights keep their names.

    Args:
        gate: at its largest hidden width. Without a bottleneck it can only be present or absent.
        gain: constant by which the surrounding block would multiply the output of a gate that is present.

    Raises:
        BackboneError: hidden units with zero weights would change what the gate computes.
    """
    layers = bottleneck_layers(gate)
    if layers is not None:
        if not takes_padding(gate):
            raise BackboneError(
                f"{type(gate).__name__} cannot be masked: adding hidden units with zero weights changes its"
                " output (a norm across the hidden units does that)."
            )
        expand = layers[1]
        width = _width(expand)
        _add_mask(expand, IDLE, (width,) if isinstance(expand, nn.Linear) else (width, 1, 1))
        expand.register_forward_pre_hook(_without_idle_units)
    # Filling the factors is cheaper than choosing between two maps, but needs a module that returns them.
    name = factor_layer(gate)
    place = gate if name is None else gate.get_submodule(name)
    _add_mask(place, ABSENT_FLAG, ())
    vars(place)["gain"] = gain
    place.register_forward_hook(_input_if_absent if name is None else _one_if_absent)


def set_mask(gate: nn.Module, width: int) -> None:
    """Set the masks of a gate to a hidden width; 0 is no gate, ``KEEP`` is a gate without a bottleneck.

    Fills tensors on their device, without synchronisation.
    """
    for name, mask in masks_of(gate):
        fill_mask(name, mask, width)


def masks_of(gate: nn.Module) -> list[tuple[str, Tensor]]:
    """The masks of a gate, each with its name."""
    found = ((name, module._buffers.get(name)) for module in gate.modules() for name in (IDLE, ABSENT_FLAG))
    return [(name, mask) for name, mask in found if mask is not None]


def fill_mask(name: str, mask: Tensor, width: int) -> None:
    """Write what the mask of that name is at a hidden width."""
    if name == IDLE:
        mask[: max(width, 0)] = False
        mask[max(width, 0) :] = True
    else:
        mask.fill_(width == 0)


def unit_axes(gate: nn.Module) -> dict[str, int]:
    """Tensor name → the axis that runs over hidden units, for the tensors of a gate that have such an axis.

    Empty without a bottleneck. Call it before ``mask_native``.
    """
    if isinstance(gate, SqueezeExcite):
        return {"fc1.weight": 0, "fc1.bias": 0, "fc2.weight": 1}
    layers = bottleneck_layers(gate)
    if layers is None:
        return {}
    reduce, expand, norms = layers
    axis = {id(tensor): 0 for tensor in _tensors(reduce)}
    axis |= {id(tensor): 0 for norm in norms for tensor in _tensors(norm) if tensor.ndim}
    axis[id(expand.weight)] = 1
    named = [*gate.named_parameters(), *gate.named_buffers()]
    return {name: axis[id(tensor)] for name, tensor in named if id(tensor) in axis}


@torch.no_grad()
def write_padded(target: Tensor, source: Tensor) -> None:
    """Copy a tensor into the leading corner of one at least as large on every axis; the rest becomes zero."""
    for axis, size in enumerate(source.shape):
        target.narrow(axis, size, target.shape[axis] - size).zero_()
    target[tuple(slice(size) for size in source.shape)].copy_(source)


def _add_mask(module: nn.Module, name: str, shape: tuple[int, ...]) -> None:
    tensor = next(iter([*module.parameters(), *module.buffers()]), None)
    device = None if tensor is None else tensor.device
    module.register_buffer(name, torch.zeros(shape, dtype=torch.bool, device=device), persistent=False)


def _width(expand: nn.Module) -> int:
    assert isinstance(expand, nn.Conv2d | nn.Linear)
    return expand.in_features if isinstance(expand, nn.Linear) else expand.in_channels


def _tensors(layer: nn.Module) -> list[Tensor]:
    return [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]


# Hooks are given their module, so deep copies of a network (weight averages) use their own masks.


def _without_idle_units(layer: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (args[0].masked_fill(layer.get_buffer(IDLE), 0.0), *args[1:])


def _one_if_absent(layer: nn.Module, args: tuple[Tensor, ...], factor: Tensor) -> Tensor:
    return _gained(layer, factor).masked_fill(layer.get_buffer(ABSENT_FLAG), 1.0)


def _input_if_absent(gate: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return torch.where(gate.get_buffer(ABSENT_FLAG), args[0], _gained(gate, output))


def _gained(module: nn.Module, value: Tensor) -> Tensor:
    gain = vars(module)["gain"]
    return value if gain == 1.0 else gain * value
