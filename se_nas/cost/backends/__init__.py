"""What runs an inference that is timed: torch, ONNX Runtime, or an entry point of the group ``se_nas.costs``."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from se_nas.cost.backends.base import Backend, Prepared
from se_nas.errors import ConfigError, nearest

if TYPE_CHECKING:
    import torch
    from torch import nn

    from se_nas.cost.settings import LatencySettings

__all__ = ["GROUP", "Backend", "Prepared", "backend_names", "resolve_backend"]

GROUP = "se_nas.costs"


def backend_names() -> list[str]:
    """Names of all backends, without loading any."""
    return sorted({*_BUILT_IN, *_plugins()})


def resolve_backend(name: str) -> Backend:
    """The backend of that name.

    Raises:
        ConfigError: there is none of that name, or the plugin that declares it does not load.
    """
    if name in _BUILT_IN:
        return _BUILT_IN[name]
    plugins = _plugins()
    if name not in plugins:
        known = backend_names()
        raise ConfigError(f"backend is {name!r}; known: {', '.join(known)}.{nearest(name, known)}")
    try:
        loaded = plugins[name].load()
    except Exception as error:
        raise ConfigError(
            f"backend {name!r} ({plugins[name].value}) does not load: {type(error).__name__}: {error}."
        ) from error
    if not callable(loaded):
        raise ConfigError(f"backend {name!r} ({plugins[name].value}) is no function.")
    backend: Backend = loaded
    return backend


def _plugins() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def _torch(model: nn.Module, images: torch.Tensor, settings: LatencySettings) -> Prepared:
    from se_nas.cost.backends.torch import prepare

    return prepare(model, images, settings)


def _onnxruntime(model: nn.Module, images: torch.Tensor, settings: LatencySettings) -> Prepared:
    from se_nas.cost.backends.onnxruntime import prepare

    return prepare(model, images, settings)


_BUILT_IN: dict[str, Backend] = {"torch": _torch, "onnxruntime": _onnxruntime}
