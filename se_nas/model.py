"""``build_model``: a timm backbone with SE inserted, which keeps its class, methods and pretrained weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from se_nas.architecture import Architecture
from se_nas.backbones import insert
from se_nas.backbones.creation import create
from se_nas.errors import CheckpointError, ConfigError
from se_nas.layers.squeeze_excite import SqueezeExcite
from se_nas.sites import Site


def build_model(
    arch: Architecture,
    *,
    pretrained: bool = False,
    init: str = "default",
    num_classes: int = 1000,
    checkpoint: str | Path | None = None,
    **timm_kwargs: Any,
) -> nn.Module:
    """Build the network that an architecture describes.

    Args:
        arch: what to build.
        pretrained: load timm's weights into the backbone (timm may download them).
        init: how inserted blocks start: "default" as in timm and the paper, or "identity", with which the network
            first computes what the backbone computes.
        num_classes: width of the classifier.
        checkpoint: weights of the plain backbone (safetensors, or a file that ``torch.load(weights_only=True)``
            reads). Every key must fit, except that a classifier of another size keeps its fresh weights.
        timm_kwargs: further keywords of ``timm.create_model`` (drop_path_rate, in_chans, ...).

    Returns:
        The model, an instance of timm's class, in training mode. The state dict of the plain backbone loads into
        it with only the SE keys missing.

    Raises:
        BackboneError: timm does not know the backbone or refuses a keyword.
        CheckpointError: the checkpoint cannot be read or does not fit.
        ConfigError: a keyword contradicts one of the architecture's.
    """
    model = build_plain(
        arch, pretrained=pretrained, num_classes=num_classes, checkpoint=checkpoint, **timm_kwargs
    )
    return add_gates(model, arch, init=init)


def build_plain(
    arch: Architecture,
    *,
    pretrained: bool = False,
    num_classes: int = 1000,
    checkpoint: str | Path | None = None,
    **timm_kwargs: Any,
) -> nn.Module:
    """The backbone of an architecture as timm makes it: ``build_model`` before it changes gates.

    Takes the same arguments and raises the same errors.
    """
    own = dict(arch.timm_kwargs)
    for name in timm_kwargs.keys() & own.keys():
        if timm_kwargs[name] != own[name]:
            raise ConfigError(
                f"{name} is {timm_kwargs[name]!r}, but the architecture was made with {own[name]!r}; leave it out."
            )
    model = create(arch.backbone, pretrained=pretrained, **{"num_classes": num_classes, **own, **timm_kwargs})
    if checkpoint is not None:
        load_checkpoint(model, checkpoint)
    return model


def add_gates(model: nn.Module, arch: Architecture, *, init: str = "default") -> nn.Module:
    """Turn an existing plain backbone into the architecture, in place."""

    def make_block(site: Site, width: int) -> nn.Module:
        return SqueezeExcite(site.channels, width, **gate_settings(arch, site, init))

    return insert(model, arch.changed(), make_block)


def gate_settings(arch: Architecture, site: Site, init: str) -> dict[str, Any]:
    """Keywords of ``SqueezeExcite`` for a block that the architecture inserts at a site."""
    return {
        "act": arch.act or site.act,
        "gate": arch.gate,
        "bias": arch.bias,
        "init": init,
        "channel_dim": site.channel_dim,
    }


def load_checkpoint(model: nn.Module, path: str | Path) -> None:
    """Load a plain backbone's weights, strictly except for a classifier of another size.

    Raises:
        CheckpointError: the file cannot be read, or keys are missing, unknown or of another shape.
    """
    load_weights(model, read_weights(path), str(path))


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Load weights, strictly except for a classifier of another size, which keeps its fresh weights.

    Raises:
        CheckpointError: keys are missing, unknown or of another shape; the message calls the weights ``source``.
    """
    expected = model.state_dict()
    head = _classifier_keys(model)
    odd = [
        f"{key} has shape {tuple(weights[key].shape)}, the model {tuple(expected[key].shape)}"
        for key in expected
        if key in weights and weights[key].shape != expected[key].shape and key not in head
    ]
    odd += [f"{key} is missing" for key in expected if key not in weights and key not in head]
    odd += [f"{key} is unknown to the model" for key in weights if key not in expected and key not in head]
    if odd:
        more = f", and {len(odd) - 5} more" if len(odd) > 5 else ""
        raise CheckpointError(f"{source} does not fit {type(model).__name__}: {'; '.join(odd[:5])}{more}.")
    fits = {k: v for k, v in weights.items() if k in expected and v.shape == expected[k].shape}
    # A head that is loaded in part (the weight but not the bias) would be a mix of old and new.
    if not head <= fits.keys():
        fits = {key: value for key, value in fits.items() if key not in head}
    model.load_state_dict({**expected, **fits})


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors, by name, in a safetensors file or a file that ``torch.save`` wrote."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"checkpoint {str(path)!r} does not exist.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            loaded: Any = load_file(path)
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(f"{path} holds no readable weights: {error}") from error
    for name in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(name), dict):
            loaded = loaded[name]
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise CheckpointError(f"{path} holds no state dict (a mapping of names to tensors).")
    return {name.removeprefix("module."): value for name, value in loaded.items()}


def _classifier_keys(model: nn.Module) -> set[str]:
    config = getattr(model, "pretrained_cfg", None) or {}
    names = config.get("classifier") or ()
    names = (names,) if isinstance(names, str) else tuple(names)
    return {key for key in model.state_dict() if key.startswith(tuple(f"{name}." for name in names))}
