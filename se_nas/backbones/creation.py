"""Creates backbones by name, from timm or an adapter, and finds the image size that they take."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import nn

from se_nas.backbones.adapters import adapter_of
from se_nas.errors import BackboneError, nearest


def create(name: str, *, pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """A backbone as timm or its adapter builds it.

    Raises:
        BackboneError: the name is unknown, or a keyword is refused.
    """
    own = adapter_of(name)
    try:
        if own is not None:
            adapter, model = own
            return adapter.create(model, pretrained=pretrained, **kwargs)
        check_name(name)
        return timm.create_model(name, pretrained=pretrained, **kwargs)
    except (TypeError, ValueError, AssertionError, KeyError, AttributeError) as error:
        given = ", ".join(f"{key}={value!r}" for key, value in kwargs.items()) or "no further keyword"
        raise BackboneError(f"{name} cannot be built with {given}: {error}") from error


def create_on_meta(name: str, **kwargs: Any) -> nn.Module:
    """A backbone on the meta device, without memory for its weights, if its constructor allows that."""
    try:
        with torch.device("meta"):
            return create(name, **kwargs)
    except (BackboneError, RuntimeError, NotImplementedError):
        # Some constructors read the values of tensors, which meta tensors do not have.
        return create(name, **kwargs)


def check_name(name: str) -> None:
    """Refuse a name that timm does not know."""
    if not timm.is_model(name):
        raise BackboneError(
            f"backbone {name!r} is unknown to timm {timm.__version__}.{nearest(name, timm.list_models())}"
            " timm.list_models() lists all."
        )


def input_size_of(model: nn.Module, name: str | None = None, **kwargs: Any) -> tuple[int, int, int]:
    """(channels, height, width) that a backbone takes; ``in_chans`` and ``img_size`` among the keywords count.

    Raises:
        BackboneError: the model does not say.
    """
    own = adapter_of(name) if name else None
    config = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None)
    size = own[0].input_size(own[1]) if own else None if config is None else config.get("input_size")
    if size is None:
        raise BackboneError(
            f"{type(model).__name__} does not say which images it takes: give"
            " input_size=(channels, height, width)."
        )
    channels, height, width = size
    if kwargs.get("img_size"):
        image = kwargs["img_size"]
        height, width = (image, image) if isinstance(image, int) else image
    return kwargs.get("in_chans", channels), height, width
