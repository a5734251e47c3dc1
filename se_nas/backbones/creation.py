"""Creates backbones by name, from timm or an adapter, and finds the image size that they take."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import timm
import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.constants import ENDPOINT
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from se_nas.backbones.adapters import adapter_of
from se_nas.errors import BackboneError, nearest

_DRAWS = frozenset({Tensor.normal_, Tensor.uniform_})


def create(name: str, *, pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """A backbone as timm or its adapter builds it.

    Raises:
        BackboneError: the name is unknown, a keyword is refused, or pretrained weights cannot be had.
    """
    own = adapter_of(name)
    try:
        if own is not None:
            adapter, model = own
            return adapter.create(model, pretrained=pretrained, **kwargs)
        check_name(name)
        if pretrained:
            return _create_pretrained(name, **kwargs)
        return timm.create_model(name, **kwargs)
    except (TypeError, ValueError, AssertionError, KeyError, AttributeError) as error:
        given = ", ".join(f"{key}={value!r}" for key, value in kwargs.items()) or "no further keyword"
        raise BackboneError(f"{name} cannot be built with {given}: {error}") from error


def _create_pretrained(name: str, **kwargs: Any) -> nn.Module:
    config = None if "pretrained_cfg" in kwargs else timm.get_pretrained_cfg(name)
    repository = None if config is None or config.file else config.hf_hub_id
    if repository and not _can_download(repository):
        raise BackboneError(
            f"the pretrained weights of {name} cannot be downloaded: {ENDPOINT} cannot be reached from here; give a"
            " file that has them with --checkpoint."
        )
    try:
        return timm.create_model(name, pretrained=True, **kwargs)
    except (TypeError, ValueError, AssertionError, KeyError, AttributeError, BackboneError):
        raise
    except Exception as error:  # Of three libraries that download, each with errors of its own.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise BackboneError(
            f"the pretrained weights of {name} cannot be loaded: {reason}; give a file that has them with"
            " --checkpoint."
        ) from error


def _can_download(repository: str) -> bool:
    """Whether there is hope; without a network the library would try again for most of a minute."""
    if getproxies() or any(
        isinstance(try_to_load_from_cache(repository, file), str)
        for file in ("model.safetensors", "pytorch_model.bin")
    ):
        return True
    try:
        return bool(socket.getaddrinfo(urlsplit(ENDPOINT).hostname, None))
    except OSError:
        return False


class _Undrawn(TorchFunctionMode):
    """Leaves out the drawing of first weights."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        undrawn = func in _DRAWS and args[0].is_meta
        return args[0] if undrawn else func(*args, **(kwargs or {}))


@contextmanager
def on_meta() -> Iterator[None]:
    """Networks are built on the meta device, where PyTorch would draw weights in Python, and for nothing."""
    with torch.device("meta"), _Undrawn():
        yield


def create_on_meta(name: str, **kwargs: Any) -> nn.Module:
    """A backbone on the meta device, without memory for its weights, if its constructor allows that."""
    try:
        with on_meta():
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
