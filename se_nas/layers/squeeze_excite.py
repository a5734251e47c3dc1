"""The squeeze-and-excitation block: Hu et al., "Squeeze-and-Excitation Networks" (arXiv 1709.01507).

Squeeze z = mean of x over the map; excitation s = gate(W2 · act(W1 · z + b1) + b2); scale x̃ = s · x.
Layers and order of operations match timm's ``SEModule`` and torchvision's ``SqueezeExcitation``: equal weights
give bit-identical outputs, and state dicts have the same names and shapes (``fc1``, ``fc2``).

The identity start multiplies the gate by a constant, ``gate_scale``, which is saved with the weights: a state
dict has the entry only if the scale is not 1, and loading one without it resets the scale to 1.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from timm.layers import create_act_layer
from torch import Tensor, nn

from se_nas.errors import ConfigError, not_allowed
from se_nas.sites import ACTIVATIONS, GATES

SCALE = "gate_scale"
"""Name of the scale's entry in a block's state dict."""
INITS = ("default", "identity")

# gate -> (gate scale, bias of the last layer) such that scale * gate(bias) is exactly 1 and the gradient is
# healthy. The bias for tanh is the smallest float32 above artanh(1/2); its tanh rounds to 1/2 in float32,
# bfloat16 and float16. On a device whose tanh is off by one unit in the last place, the start is off by one too.
_IDENTITY = {
    "sigmoid": (2.0, 0.0),
    "hard_sigmoid": (2.0, 0.0),
    "relu": (1.0, 1.0),
    "tanh": (2.0, 0.5493061542510986),
}


class SqueezeExcite(nn.Module):
    """Gates the channels of a feature map, depending on the whole map.

    Maps (N, C, H, W) to the same shape, or (N, H, W, C) with ``channel_dim=-1``. Keeps the memory format.

    Args:
        channels: C.
        rd_channels: hidden width h, C / γ rounded; at least 1.
        act: inner activation, one of ``se_nas.architecture.ACTIVATIONS``.
        gate: one of ``se_nas.architecture.GATES``; the paper uses the sigmoid.
        bias: whether both layers have biases (timm and the released SENet weights: yes).
        init: "default" is torch's default for convolutions, as in timm. "identity" makes the block return its
            input unchanged, bit for bit, in float32, bfloat16 and float16, while the last layer gets its full
            gradient from the first step and the first layer from the second: 2·sigmoid and 2·hard_sigmoid
            with a zero last layer; ReLU and 2·tanh with last weights 0 and last biases 1 and artanh(1/2).
        channel_dim: 1, or -1 for tensors whose last axis holds the channels (MambaOut, ConvNeXt's inside).

    Attributes:
        gate_scale: constant factor of the gate; 1.0, or 2.0 for the identity start (not for ReLU).

    Raises:
        ConfigError: an argument is not one of those listed here, or an identity start is combined with
            ``bias=False`` and a gate that needs the bias (ReLU, tanh).
    """

    def __init__(
        self,
        channels: int,
        rd_channels: int,
        *,
        act: str = "relu",
        gate: str = "sigmoid",
        bias: bool = True,
        init: str = "default",
        channel_dim: int = 1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        _check_width("channels", channels)
        _check_width("rd_channels", rd_channels)
        _check_name("act", act, ACTIVATIONS)
        _check_name("gate", gate, GATES)
        _check_name("init", init, INITS)
        if channel_dim not in (1, -1, 3):
            raise ConfigError(f"channel_dim is {channel_dim!r}; allowed: 1 (N, C, H, W) and -1 (N, H, W, C).")
        self.channels_last = channel_dim != 1
        self.gate_scale = 1.0
        self.fc1 = nn.Conv2d(channels, rd_channels, 1, bias=bias, device=device, dtype=dtype)
        self.act = create_act_layer(act, inplace=True)
        self.fc2 = nn.Conv2d(rd_channels, channels, 1, bias=bias, device=device, dtype=dtype)
        self.gate = create_act_layer(gate)
        if init == "identity":
            self._start_as_identity(gate)

    def _start_as_identity(self, gate: str) -> None:
        scale, bias = _IDENTITY[gate]
        nn.init.zeros_(self.fc2.weight)
        if self.fc2.bias is not None:
            nn.init.constant_(self.fc2.bias, bias)
        elif bias:
            raise ConfigError(
                f"init 'identity' with gate {gate!r} needs bias=True, since {gate}(0) is 0;"
                " use bias=True, gate 'sigmoid' or 'hard_sigmoid', or init 'default'."
            )
        self.gate_scale = scale

    def forward(self, x: Tensor) -> Tensor:
        if self.channels_last:
            return x * self._gate(x.mean((1, 2), keepdim=True).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x * self._gate(x.mean((2, 3), keepdim=True))

    def _gate(self, squeezed: Tensor) -> Tensor:
        gate = self.gate(self.fc2(self.act(self.fc1(squeezed))))
        return gate if self.gate_scale == 1.0 else self.gate_scale * gate

    def extra_repr(self) -> str:
        layout = ", channel_dim=-1" if self.channels_last else ""
        return f"gate_scale={self.gate_scale:g}{layout}"

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.gate_scale != 1.0:
            weight = self.fc1.weight
            device = "cpu" if weight.is_meta else weight.device
            destination[prefix + SCALE] = torch.tensor(self.gate_scale, dtype=weight.dtype, device=device)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        name = prefix + SCALE
        if name in state_dict:
            error_messages: list[str] = args[-1]
            value = _read_scale(state_dict[name])
            if value is None:
                error_messages.append(f"{name} must be one finite number above 0.")
            else:
                self.gate_scale = value
            state_dict = {key: state_dict[key] for key in state_dict if key != name}
        elif prefix + "fc1.weight" in state_dict:
            self.gate_scale = 1.0
        super()._load_from_state_dict(state_dict, prefix, *args)


def _read_scale(value: Tensor) -> float | None:
    if value.numel() != 1 or value.is_meta:
        return None
    scale = float(value)
    return scale if math.isfinite(scale) and scale > 0 else None


def _check_width(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{name} is {value!r}; it must be an integer of at least 1.")


def _check_name(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(not_allowed(name, value, allowed))
