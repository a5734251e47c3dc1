"""What runs an inference that is timed: torch, ONNX Runtime, or an entry point of the group ``se_nas.costs``.

A backend is a function ``prepare(model, images, settings) -> Prepared``. It gets the network in eval mode and
images of shape (N, channels, height, width), both in float32 on the CPU, and the settings, and gives back a
function that runs one inference and returns when it has ended. docs/costs.md adds one as an example.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Protocol

from se_nas.errors import ConfigError, nearest

if TYPE_CHECKING:
    import torch
    from torch import nn

    from se_nas.cost.settings import LatencySettings

GROUP = "se_nas.costs"


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """An inference that is ready to be timed.

    Attributes:
        run: does one inference and returns when it has ended, the device's work included.
        peak_memory: bytes that one inference holds at most, weights and images included; None if unknown.
        versions: programs that the timing depends on besides torch and timm.
        move: puts weights and images elsewhere in memory, in milliseconds; None where that takes longer or
            cannot be done. Where they lie is worth about 1 % of the time, so it is drawn anew for every quartet.
    """

    run: Callable[[], object]
    peak_memory: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    move: Callable[[], object] | None = None


class Backend(Protocol):
    """Makes a network ready to be timed."""

    def __call__(self, model: nn.Module, images: torch.Tensor, settings: LatencySettings) -> Prepared:
        """Prepare ``model`` for ``images``; raises a ``SeNasError`` for settings that it does not have."""


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
    from se_nas.cost.torch_backend import prepare

    return prepare(model, images, settings)


def _onnxruntime(model: nn.Module, images: torch.Tensor, settings: LatencySettings) -> Prepared:
    from se_nas.cost.onnx_backend import prepare

    return prepare(model, images, settings)


_BUILT_IN: dict[str, Backend] = {"torch": _torch, "onnxruntime": _onnxruntime}
