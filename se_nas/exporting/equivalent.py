"""The ``timm.create_model`` line that builds the same network, if timm itself can express it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

import timm
import torch
from timm.layers import SEModule, make_divisible
from torch import Tensor, nn

from se_nas.architecture import Architecture
from se_nas.layers.squeeze_excite import SqueezeExcite

_RATIOS = (16, 8, 4, 2, 32, 64, 12, 24, 1)


def equivalent_in_timm(architecture: Architecture, network: Any, input_size: tuple[int, ...]) -> str | None:
    """A line of Python, or None. It is claimed only after both networks were built and compared.

    Names and shapes in the state dict are equal, and so is every bit of the output for random weights: the
    weights of the network load into what the line builds, and give the same outputs there.
    """
    if any(isinstance(module, SqueezeExcite) and module.gate_scale != 1.0 for module in network.modules()):
        return None
    shapes = {key: value.shape for key, value in network.state_dict().items()}
    sizes: dict[str, Any] = {"num_classes": network.num_classes}
    if input_size[0] != 3:
        sizes["in_chans"] = input_size[0]
    for name, kwargs in _candidates(architecture):
        kwargs = {**dict(architecture.timm_kwargs), **kwargs}
        if not timm.is_model(name) or _shapes(name, {**kwargs, **sizes}) != shapes:
            continue
        if _same_function(network, name, {**kwargs, **sizes}, input_size):
            return _written(name, {**kwargs, **sizes})
    return None


def _candidates(architecture: Architecture) -> Iterator[tuple[str, dict[str, Any]]]:
    backbone = architecture.backbone
    yield backbone, {}
    yield f"se{backbone}", {}
    changed = list(architecture.changed())
    if not changed or any(width <= 0 for _, width in changed):
        return
    widths = {site.channels: width for site, width in changed if width > 0}
    act = architecture.act or changed[0][0].act
    for reduction in _RATIOS:
        yield backbone, {"se_ratio": 1 / reduction}
        for divisor in (8, 1):
            fits = (make_divisible(c / reduction, divisor, round_limit=0.0) == w for c, w in widths.items())
            if not all(fits):
                continue
            yield backbone, {"attn_layer": "se", "attn_kwargs": _attn_kwargs(reduction, divisor)}
            settings = _attn_kwargs(reduction, divisor)
            if act != "relu":
                settings["act_layer"] = act
            if architecture.gate != "sigmoid":
                settings["gate_layer"] = architecture.gate
            if not architecture.bias:
                settings["bias"] = False
            yield backbone, {"block_args": {"attn_layer": partial(SEModule, **settings)}}


def _attn_kwargs(reduction: int, divisor: int) -> dict[str, Any]:
    return {"rd_ratio": 1 / reduction, **({} if divisor == 8 else {"rd_divisor": divisor})}


def _build(name: str, kwargs: dict[str, Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return timm.create_model(name, **kwargs)


def _shapes(name: str, kwargs: dict[str, Any]) -> dict[str, torch.Size] | None:
    try:
        with torch.device("meta"):
            model = _build(name, kwargs)
    except Exception:  # timm refuses a keyword in as many ways as it has families
        return None
    return {key: value.shape for key, value in model.state_dict().items()}


@torch.no_grad()
def _same_function(
    network: nn.Module, name: str, kwargs: dict[str, Any], input_size: tuple[int, ...]
) -> bool:
    other = _build(name, kwargs).eval()
    weights = {key: value.clone() for key, value in network.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    trial = {key: _lively(key, value, generator) for key, value in weights.items()}
    x = torch.randn(2, *input_size, generator=generator).to(next(network.parameters()).dtype)
    try:
        network.load_state_dict(trial)
        other.to(x.dtype).load_state_dict(trial)
        first, second = network(x), other(x)
    finally:
        network.load_state_dict(weights)
    return torch.equal(first, second) and bool(first.isfinite().all()) and bool(first.std() > 0)


def _lively(key: str, value: Tensor, generator: torch.Generator) -> Tensor:
    """Random weights that leave nothing zero, saturated or constant."""
    if not value.is_floating_point():
        return value
    noise = torch.randn(value.shape, generator=generator, dtype=torch.float32).to(value.dtype)
    if value.ndim <= 1:
        return 0.1 * noise if key.endswith(("bias", "mean")) else (0.1 * noise + 1).abs()
    return noise * (2 / value[0].numel()) ** 0.5


def _written(name: str, kwargs: dict[str, Any]) -> str:
    arguments = ", ".join([repr(name), *(f"{key}={_literal(key, value)}" for key, value in kwargs.items())])
    line = f"timm.create_model({arguments})"
    if "SEModule" in line:
        return f"import functools, timm; from timm.layers import SEModule\n{line}"
    return f"import timm\n{line}"


def _literal(key: str, value: Any) -> str:
    if key in ("rd_ratio", "se_ratio"):
        return f"1/{round(1 / value)}"
    if isinstance(value, partial):
        inner = ", ".join(f"{k}={_literal(k, v)}" for k, v in value.keywords.items())
        return f"functools.partial(SEModule, {inner})"
    if isinstance(value, dict):
        return "dict(" + ", ".join(f"{k}={_literal(k, v)}" for k, v in value.items()) + ")"
    return repr(value)
