"""``build_model``: a timm backbone with SE inserted, which keeps its class, methods and pretrained weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from se_nas.architecture import Architecture
from se_nas.arguments import checked
from se_nas.backbones import insert
from se_nas.backbones.creation import create
from se_nas.checkpoints import load_checkpoint, start_new_classifier
from se_nas.errors import ConfigError, not_allowed
from se_nas.layers.squeeze_excite import INITS, SqueezeExcite
from se_nas.sites import Site


@checked
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
        pretrained: load timm's weights into the backbone (timm may download them). A classifier of another size
            starts at zero.
        init: how inserted blocks start: "default" as in timm and the paper, or "identity", with which the network
            first computes what the backbone computes.
        num_classes: width of the classifier.
        checkpoint: file with the weights of the plain backbone, as a trainer wrote it (docs/checkpoints.md).
            Every key must fit, but for a classifier of another size, which starts at zero.
        timm_kwargs: further keywords of ``timm.create_model`` (drop_path_rate, in_chans, ...).

    Returns:
        The model, an instance of timm's class, in training mode. The state dict of the plain backbone loads into
        it with only the SE keys missing.

    Raises:
        BackboneError: timm does not know the backbone or refuses a keyword.
        CheckpointError: the checkpoint cannot be read or does not fit.
        ConfigError: a keyword contradicts one of the architecture's, ``init`` is unknown, ``num_classes`` negative, or
            both ``pretrained`` and ``checkpoint`` are given.
    """
    if init not in INITS:
        raise ConfigError(not_allowed("init", init, INITS))
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
    if pretrained and checkpoint is not None:
        raise ConfigError("pretrained and checkpoint both set the initial weights; leave one of them out.")
    if num_classes < 0:
        raise ConfigError(f"num_classes is {num_classes}; it must be 0 (no classifier) or above.")
    own = dict(arch.timm_kwargs)
    for name in timm_kwargs.keys() & own.keys():
        if timm_kwargs[name] != own[name]:
            raise ConfigError(
                f"{name} is {timm_kwargs[name]!r}, but the architecture was made with {own[name]!r}; leave it out."
            )
    model = create(arch.backbone, pretrained=pretrained, **{"num_classes": num_classes, **own, **timm_kwargs})
    if pretrained:
        start_new_classifier(model)
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
